"""The messages of an application that nobody could run, from outside a worker."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery as CeleryApp
from kombu.exceptions import OperationalError

from machinery_compat import errors
from machinery_compat.transport.dead import DeadEntry, DeadLetters, Requeued

__all__ = ["DeadEntry", "DeadQueue", "Requeued"]


class DeadQueue:
    """The dead messages of one queue; made by ``app.machinery.dead_letters(queue)``.

    A number is the place of an entry at this moment: it changes when entries before it go.

    Args:
        app: an application of this package.
        queue: the queue whose dead messages these are, by default the application's default queue.
    """

    def __init__(self, app: CeleryApp, queue: str = "") -> None:
        self._app = app
        self.queue = queue or str(app.conf.task_default_queue)

    def __repr__(self) -> str:
        return f"<DeadQueue of {self.queue}>"

    def entries(self) -> Iterator[DeadEntry]:
        """The entries, the oldest first. On AMQP nobody else sees them until the iteration has ended.

        Raises:
            BrokerError: the broker cannot be reached, or keeps no dead messages.
        """
        with self._channel() as channel:
            yield from channel.dead_entries(self.queue)

    def get(self, number: int) -> DeadEntry:
        """One entry.

        Raises:
            MachineryError: there is no such number.
            BrokerError: as :meth:`entries`.
        """
        count = 0
        for entry in self.entries():
            count = entry.number
            if count == number:
                return entry
        raise errors.MachineryError(
            f"{self.queue}:dead has no number {number}: " + (f"it holds 1 to {count}" if count else "it is empty")
        )

    def requeue(self, numbers: Collection[int] | None = None, *, force: bool = False) -> Requeued:
        """Puts entries (by default all) back into their queue, as if they had just been sent.

        Who waits for the task waits for it again: its state is PENDING. What the first failure has set off
        (an OnError callback, the end of a chord) is not taken back.

        Args:
            numbers: which entries.
            force: also those that are no Signature; without it they stay.

        Raises:
            MachineryError: there is no such number, or on AMQP no such queue.
            BrokerError: as :meth:`entries`.
        """
        with self._channel() as channel:
            return channel.requeue_dead(self.queue, numbers, force)

    def purge(self, numbers: Collection[int] | None = None) -> int:
        """Deletes entries (by default all) and returns their number.

        Raises:
            MachineryError: there is no such number.
            BrokerError: as :meth:`entries`.
        """
        with self._channel() as channel:
            return channel.purge_dead(self.queue, numbers)

    @contextmanager
    def _channel(self) -> Iterator[DeadLetters]:
        with self._app.connection_for_write() as connection:
            failures: tuple[type[BaseException], ...] = (
                *connection.connection_errors,
                *connection.channel_errors,
                OperationalError,
            )
            try:
                connection.ensure_connection(max_retries=1)
                channel: Any = connection.default_channel
                if not isinstance(channel, DeadLetters):
                    raise errors.BrokerError(
                        f"the broker {connection.as_uri()} keeps no dead messages: what fails there fails at its sender"
                    )
                yield channel
            except errors.MachineryError:
                raise
            except failures as exc:
                raise errors.BrokerError(f"the broker {connection.as_uri()} cannot be reached: {exc}") from exc
