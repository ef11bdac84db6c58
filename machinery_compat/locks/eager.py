"""Machinery's eager lock: within one process."""

from __future__ import annotations

import threading
import time
from typing import Final

from machinery_compat import errors
from machinery_compat.locks.base import RETRIES, RetryingLock

__all__ = ["EagerLock"]

#: Seconds between two tries.
PAUSE: Final = 5.0


class EagerLock(RetryingLock):
    """A lock that other processes know nothing of; mirrors Go's ``locks/eager``.

    Args:
        retries: tries after the first.
        pause: seconds between two tries.
    """

    failure = "eager lock: failed to acquire lock"

    def __init__(self, retries: int = RETRIES, pause: float = PAUSE) -> None:
        super().__init__(retries, pause)
        self._guard = threading.Lock()
        self._held: dict[str, int] = {}

    def lock(self, key: str, value: int) -> None:
        with self._guard:
            if time.time_ns() <= self._held.get(key, 0):
                raise errors.LockError(self.failure)
            self._held[key] = value
