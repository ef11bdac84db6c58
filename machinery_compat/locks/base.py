"""What a lock is, and how often it is tried."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Final, Protocol, runtime_checkable

from machinery_compat import errors

__all__ = ["RETRIES", "Lock", "RetryingLock"]

#: Tries after the first, as many as Go makes.
RETRIES: Final = 3


@runtime_checkable
class Lock(Protocol):
    """Something that only one of many processes gets; mirrors Go's ``locks/iface.Lock``.

    Nobody gives it back: it is free again when its time is over.
    """

    def lock(self, key: str, value: int) -> None:
        """Takes the lock *key* until *value*, in Unix nanoseconds, or raises LockError."""

    def lock_with_retries(self, key: str, value: int) -> None:
        """As :meth:`lock`, in several tries."""


class RetryingLock(ABC):
    """Tries a lock several times.

    Args:
        retries: tries after the first.
        pause: seconds between two tries.

    Raises:
        ConfigError: one of them is negative.
    """

    #: What Go says when all tries have failed.
    failure: str

    def __init__(self, retries: int, pause: float) -> None:
        if retries < 0 or pause < 0:
            raise errors.ConfigError(f"retries ({retries}) and pause ({pause}) of a lock must not be negative")
        self.retries = retries
        self.pause = pause

    @abstractmethod
    def lock(self, key: str, value: int) -> None:
        """Takes the lock *key* until *value*; mirrors Go's ``Lock``.

        Args:
            key: the name of the lock.
            value: Unix nanoseconds.

        Raises:
            LockError: another holds it, or it cannot be told; the latter has a cause.
        """

    def lock_with_retries(self, key: str, value: int) -> None:
        """Takes the lock *key* until *value*; mirrors Go's ``LockWithRetries``, but does not pause after the last try.

        Raises:
            LockError: no try got it. The last try's failure, where it was not a lock held by another, is the cause.
        """
        for remaining in reversed(range(self.retries + 1)):
            try:
                return self.lock(key, value)
            except errors.LockError as error:
                if not remaining:
                    raise errors.LockError(self.failure) from error.__cause__
            if self.pause:
                time.sleep(self.pause)
        return None
