"""Writes that wait for a store that is away: what a task has done must not be lost with a connection."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["patiently"]

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
