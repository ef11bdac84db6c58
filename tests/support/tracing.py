"""OpenTelemetry in the process of the tests: the spans that end are kept in memory."""

from __future__ import annotations

from functools import lru_cache

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

__all__ = ["spans", "start", "traceparent", "tracer"]


@lru_cache(maxsize=1)
def _exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process can set it once only.
    trace.set_tracer_provider(provider)
    return exporter


def start() -> InMemorySpanExporter:
    """What keeps the spans, empty."""
    exporter = _exporter()
    exporter.clear()
    return exporter


def tracer() -> trace.Tracer:
    return trace.get_tracer("tests")


def spans(name: str = "") -> list[ReadableSpan]:
    """The spans that have ended, in that order: all, or those of a name."""
    return [span for span in _exporter().get_finished_spans() if name in ("", span.name)]


def traceparent(span: trace.Span | ReadableSpan) -> str:
    """The header that says that this span is the parent."""
    about = span.get_span_context()
    return f"00-{about.trace_id:032x}-{about.span_id:016x}-{about.trace_flags:02x}"
