"""Celery's pool of threads for a worker that is not alone in its process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery.concurrency.thread import TaskPool

__all__ = ["ThreadPool"]


class ThreadPool(TaskPool):  # type: ignore[misc]
    """Threads in which the worker's application is the current one.

    Celery's own threads find the process's default application, which a worker in a thread is not.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.executor = ThreadPoolExecutor(max_workers=self.limit, initializer=self.app.set_current)
