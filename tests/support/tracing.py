"""OpenTelemetry in the process of the tests: the spans that end are kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

__all__ = ["recording", "spans", "traceparent", "tracer"]


class _Switch(trace.TracerProvider):
    """The provider of this process, which can be set once only; between tests it has no spans."""

    def __init__(self) -> None:
        self.off = self.now = trace.NoOpTracerProvider()
        self.exporter = InMemorySpanExporter()

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return self.now.get_tracer(*args, **kwargs)


@lru_cache(maxsize=1)
def _switch() -> _Switch:
    switch = _Switch()
    trace.set_tracer_provider(switch)
    return switch


@contextmanager
def recording() -> Iterator[None]:
    """Has spans, and nobody's context left behind."""
    switch, provider = _switch(), TracerProvider()
    switch.exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(switch.exporter))
    switch.now = provider
    try:
        yield
        assert not context.get_current(), "a context was left behind"
    finally:
        switch.now = switch.off
        provider.shutdown()


def tracer() -> trace.Tracer:
    return trace.get_tracer("tests")


def spans(name: str = "") -> list[ReadableSpan]:
    """The spans that have ended, in that order: all, or those of a name."""
    return [span for span in _switch().exporter.get_finished_spans() if name in ("", span.name)]


def traceparent(span: trace.Span | ReadableSpan) -> str:
    """The header that says that this span is the parent."""
    about = span.get_span_context()
    return f"00-{about.trace_id:032x}-{about.span_id:016x}-{about.trace_flags:02x}"
