"""Celery's thread pool, for several applications in one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.concurrency.thread import TaskPool

__all__ = ["ThreadPool"]


class ThreadPool(TaskPool):  # type: ignore[misc]
    """Runs each task under the application whose worker this is.

    A thread of Celery's own pool takes the process's default application, which need not be the
    one of a worker that was launched inside another program.
    """

    #: Celery keeps this once for the whole process: the program beside the worker may wait for results.
    task_join_will_block = False

    def on_apply(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return super().on_apply(partial(self._run, target), *args, **kwargs)

    def _run(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.app.set_current()
        return target(*args, **kwargs)
