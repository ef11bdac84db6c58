"""Tasks of a worker whose processes write their spans into the file that SPANS names, one JSON object a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from celery import shared_task
from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult


class FileExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        # One write for each, so that processes do not mix.
        with open(os.environ["SPANS"], "ab", buffering=0) as file:
            for span in spans:
                file.write(f"{span.to_json(indent=None)}\n".encode())
        return SpanExportResult.SUCCESS


@worker_process_init.connect(weak=False)
def begin(**kwargs: Any) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter()))
    trace.set_tracer_provider(provider)
    if os.environ.get("INSTRUMENT"):
        CeleryInstrumentor().instrument()


@shared_task(name="traced.add")
def add(*numbers: int) -> int:
    return sum(numbers)


@shared_task(name="traced.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task(name="traced.fail")
def fail(*args: Any) -> None:
    raise ValueError("no luck")


@shared_task(name="traced.note")
def note(*args: Any) -> None:
    pass
