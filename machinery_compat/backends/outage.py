"""Waiting for a result through an outage of the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["LONGEST_OUTAGE", "Patience"]

logger = logging.getLogger("machinery_compat.backends")

T = TypeVar("T")

#: How long a store may be away while a client waits without a timeout, in seconds.
LONGEST_OUTAGE = 60.0


class Patience:
    """Looks into the store for one waiting client, whom a short outage does not disturb.

    Args:
        may_pass: whether an error can be over soon.
        deadline: when the client's patience ends, in seconds of ``time.monotonic``; None means never.
    """

    def __init__(self, may_pass: Callable[[Exception], bool], deadline: float | None) -> None:
        self._may_pass = may_pass
        self._deadline = deadline
        self._since: float | None = None

    def look(self, ask: Callable[[], T]) -> T | None:
        """What the store says; None while it is away.

        Raises:
            Exception: the error of a store that has been away for too long, or will not come back by waiting.
        """
        try:
            answer = ask()
        except Exception as exc:
            if not self._may_pass(exc):
                raise
            now = time.monotonic()
            if self._since is None:
                self._since = now
                logger.warning("the result backend is away: %s; still waiting", exc)
            if now >= (self._since + LONGEST_OUTAGE if self._deadline is None else self._deadline):
                raise
            return None
        self._since = None
        return answer
