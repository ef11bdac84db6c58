"""How the threads of the SQS transport wake the event loop."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import Any

__all__ = ["Bell"]


class Bell:
    """A pair of sockets; what is written to one end wakes who watches the other."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._loop: Any = None
        self._tick: Callable[[], None] | None = None

    def ring(self) -> None:
        """Wakes the loop; from any thread."""
        # A full pipe wakes as well.
        with contextlib.suppress(BlockingIOError, OSError):
            self._in.send(b"!")

    def silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._out.recv(4096):
                pass

    def wait(self, seconds: float) -> None:
        """Waits until it rings."""
        select.select([self._out], [], [], seconds)

    def hang(self, loop: Any, tick: Callable[[], None], ring: Callable[[], None]) -> None:
        """Lets an event loop call ``tick`` with each round, and ``ring`` when it rings."""
        self._loop, self._tick = loop, tick
        loop.on_tick.add(tick)
        loop.add_reader(self._out.fileno(), ring)

    def remove(self) -> None:
        """Takes it from the event loop; it can be hung up again."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.on_tick.discard(self._tick)
            with contextlib.suppress(KeyError, ValueError, OSError):
                loop.remove_reader(self._out.fileno())
