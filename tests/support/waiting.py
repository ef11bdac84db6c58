"""Waiting for something to become true, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02


def wait_for(
    condition: Callable[[], T | None],
    timeout: float = 10.0,
    message: str | Callable[[], str] = "the condition did not come true",
    interval: float = POLL_SECONDS,
) -> T:
    """Call *condition* until it gives something true and return that; AssertionError after *timeout* seconds.

    A callable *message* is asked only when the time is up, so it can tell what was last seen.
    """
    deadline = time.monotonic() + timeout
    while True:
        outcome = condition()
        if outcome:
            return outcome
        if time.monotonic() >= deadline:
            text = message() if callable(message) else message
            raise AssertionError(f"{text} (waited {timeout:g} s)")
        time.sleep(interval)
