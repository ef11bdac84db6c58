"""Writes that wait for a store that is away: what a task has done must not be lost with a connection."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from celery.backends.base import Backend as CeleryBackend

__all__ = ["PatientBackend", "patiently"]

T = TypeVar("T")

logger = logging.getLogger("machinery_compat.backends")

#: First and longest pause between two attempts, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0


def patiently(write: Callable[[], T], is_outage: Callable[[Exception], bool], what: str) -> T:
    """Calls *write* until the store answers, with growing pauses, for ever.

    The message of the task is not acknowledged meanwhile: a worker that is ended while it waits loses nothing.

    Args:
        write: writes to the store; it may have arrived although it has failed, so twice must do no harm.
        is_outage: whether an error means that the store is away; any other is raised.
        what: for the log.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return write()
        except Exception as exc:
            if not is_outage(exc):
                raise
            logger.warning("%s waits for the result backend: %s; trying again in %g s", what, exc, pause)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


class PatientBackend(CeleryBackend):  # type: ignore[misc]
    """A Celery backend whose workers keep what they cannot store, and try again."""

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        def write() -> Any:
            return super(PatientBackend, self).store_result(task_id, result, state, traceback, request, **kwargs)

        # Only a worker has a request; others get the error.
        if request is None:
            return write()
        return patiently(write, self.exception_safe_to_retry, f"task {task_id} ({state})")
