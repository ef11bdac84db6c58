"""What a transport knows of the event loop that reads for it."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

__all__ = ["EventLoopTransport"]


class EventLoopTransport:
    """Mixed into a Kombu transport whose channels put things off for a moment."""

    _loop: Any = None
    _loop_thread = 0

    if not TYPE_CHECKING:

        def register_with_event_loop(self, connection: Any, loop: Any) -> None:
            super().register_with_event_loop(connection, loop)
            self._loop, self._loop_thread = loop, get_ident()

    def call_later(self, seconds: float, callback: Callable[[], Any]) -> Any:
        """A timer in the event loop; None without a loop, and in other threads, which it does not expect."""
        if self._loop is None or get_ident() != self._loop_thread:
            return None
        return self._loop.call_later(seconds, callback)
