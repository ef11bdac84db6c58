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


@functools.cache
def alike(broker: str, results: str) -> Any:
    """Plain Celery with what this project does by default: nothing is lost, and a task's states are told."""
    app = celery.Celery("bench", broker=broker, backend=results, set_as_current=False)
    app.conf.task_default_queue = QUEUE
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, task_track_started=True)
    if broker.startswith("amqp"):
        app.conf.broker_transport_options = {"confirm_publish": True}
    return app.task(name="add")(add)
