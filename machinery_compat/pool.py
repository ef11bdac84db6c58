"""What Celery's pools lack where tasks run in the worker's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from billiard.process import current_process
from celery.concurrency.thread import TaskPool
from celery.exceptions import WorkerShutdown, WorkerTerminate

from machinery_compat import errors

__all__ = ["ThreadPool", "exits_are_failures"]


@contextmanager
def exits_are_failures() -> Iterator[None]:
    """Makes an ordinary exception of a task's wish to end its process.

    Celery's solo pool would end the whole worker, its thread pool would leave the task STARTED
    for ever. A process of the prefork pool is the task's own: it may end, and Celery sees it.

    Raises:
        TaskError: in place of what is no Exception, such as SystemExit.
    """
    try:
        yield
    except (Exception, WorkerShutdown, WorkerTerminate, GeneratorExit):
        raise
    except BaseException as exc:
        if isinstance(exc, (SystemExit, KeyboardInterrupt)) and current_process().name != "MainProcess":
            raise
        raise errors.TaskError(f"the task raised {exc!r}") from exc


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
