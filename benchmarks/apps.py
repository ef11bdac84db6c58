"""The same task in two applications: one of this project, one of plain Celery."""

from __future__ import annotations

import functools
from typing import Any

import celery

import machinery_compat

QUEUE = "bench"


def add(a: int, b: int) -> int:
    return a + b


@functools.cache
def ours(broker: str, results: str) -> Any:
    app = machinery_compat.Celery("bench", broker=broker, backend=results, set_as_current=False)
    app.conf.task_default_queue = QUEUE
    return app.task(name="add")(add)


@functools.cache
def plain(broker: str, results: str) -> Any:
    app = celery.Celery("bench", broker=broker, backend=results, set_as_current=False)
    app.conf.task_default_queue = QUEUE
    return app.task(name="add")(add)
