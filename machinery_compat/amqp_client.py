"""One AMQP connection a process for what is no message to a worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import amqp
from kombu import Connection

__all__ = ["CONNECTION_ERRORS", "SharedChannel"]

T = TypeVar("T")

#: What a connection that is gone raises.
CONNECTION_ERRORS = (amqp.ConnectionError, OSError)


class _Opened:
    """The channel of one process and its lock."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.connection: Any = None
        self.channel: Any = None


class SharedChannel:
    """A channel that all threads of a process share, one at a time; made at its first use.

    Args:
        url: ``amqp://`` or ``amqps://``.
        ssl: Kombu's ``ssl``: True or a dict of options.
        timeout: seconds until a connection counts as failed.
    """

    def __init__(self, url: str, ssl: Any = None, timeout: float = 5.0) -> None:
        self._url, self._ssl, self._timeout = url, ssl, timeout
        self._opened = _Opened()

    def use(self, act: Callable[[Any], T], again: bool = True) -> T:
        """Calls ``act`` with the channel.

        Args:
            act: what to do; an error of the channel costs the channel, not the connection.
            again: whether it may be done twice, when the connection turns out to be gone.
        """
        if self._opened.pid != os.getpid():
            # What the parent of a forked process has opened stays the parent's.
            self._opened = _Opened()
        opened = self._opened
        with opened.lock:
            was_open = opened.connection is not None
            try:
                return act(self._channel(opened))
            except CONNECTION_ERRORS:
                self._close(opened)
                if not (again and was_open):
                    raise
            except BaseException:
                # Whatever it was doing, the next one must not find the rest of it.
                self._close_channel(opened)
                raise
            return act(self._channel(opened))

    def _channel(self, opened: _Opened) -> Any:
        if opened.connection is None:
            options = {"ssl": self._ssl} if self._ssl else {}
            opened.connection = Connection(self._url, connect_timeout=self._timeout, **options)
            opened.connection.connect()
        if opened.channel is None:
            opened.channel = opened.connection.channel()
        return opened.channel

    @staticmethod
    def _close_channel(opened: _Opened) -> None:
        channel, opened.channel = opened.channel, None
        try:
            if channel is not None and channel.is_open:
                channel.close()
        except (amqp.AMQPError, OSError):
            SharedChannel._close(opened)

    @staticmethod
    def _close(opened: _Opened) -> None:
        connection, opened.connection, opened.channel = opened.connection, None, None
        if connection is not None:
            connection.collect()

    def close(self) -> None:
        """Closes this process's connection; the next use makes a new one."""
        opened = self._opened
        if opened.pid == os.getpid():
            with opened.lock:
                self._close(opened)
