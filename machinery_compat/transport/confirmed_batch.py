"""Messages that RabbitMQ confirms while others are being sent; what ``kombu.Producer.batch`` asks a channel for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.transport import pyamqp

from machinery_compat.transport.reconnect import Unavailable, Unconfirmed

if TYPE_CHECKING:
    from machinery_compat.transport.confirms import ConfirmingChannel
    from machinery_compat.wire import Signature

__all__ = ["ERRORS", "FAILED", "ConfirmedBatch"]

#: How many bytes and messages are on their way at most. More would fill what a broker that reads no more has
#: room for, and writing would wait for it without an end.
MOST_BYTES = 128 * 1024
MOST_MESSAGES = 200

#: What can go wrong with a connection or a channel.
ERRORS: tuple[type[Exception], ...] = (*pyamqp.Transport.connection_errors, *pyamqp.Transport.channel_errors)
#: And with a message.
FAILED: tuple[type[Exception], ...] = (*ERRORS, Unavailable)


class ConfirmedBatch:
    """One batch. A failure is told at its end, with what must be sent again.

    Args:
        channel: the channel that sends.
        max_size: no effect: what is on its way is limited by what the broker can hold.
    """

    def __init__(self, channel: ConfirmingChannel, max_size: int) -> None:
        self.channel = channel
        #: The task that is being sent, or was sent last.
        self._sending: Signature | None = None
        #: What is on its way: the tag, the task and its route.
        self._waiting: list[tuple[int, Signature, tuple[str, str]]] = []
        self._bytes = 0
        self._failed: list[Signature] = []
        self._broken = False

    def publish(self, message: Signature, **options: Any) -> None:
        """Sends a message, and waits for those before it only if there are too many."""
        if self._broken:
            self._failed.append(message)
            return
        try:
            if self._sending is None:
                self.channel.begin_confirming(self.channel.confirm_timeout)
            self._sending = message
            self.channel.basic_publish(message, _publish_batch=self, **options)
            if self._bytes > MOST_BYTES or len(self._waiting) >= MOST_MESSAGES:
                self.settle()
        except FAILED:
            self._broken = True
            self._failed += [signature for _, signature, _ in self._waiting]
            self._failed.append(message)
            self._waiting.clear()

    def add(self, tag: int, size: int, route: tuple[str, str]) -> None:
        """Called by the channel for a message that it has sent.

        Args:
            tag: the number under which the broker confirms it.
            size: its length in bytes.
            route: its exchange and routing key.
        """
        assert self._sending is not None
        self._waiting.append((tag, self._sending, route))
        self._bytes += size

    def settle(self) -> None:
        """Waits until the broker has said of everything on its way whether it has it."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        verdicts, returned = self.channel.verdicts([tag for tag, *_ in waiting])
        self._failed += [
            signature for tag, signature, route in waiting if verdicts.get(tag) is not True or route in returned
        ]
        if None in verdicts.values():
            self._broken = True

    def flush(self) -> None:
        """Waits for the rest.

        Raises:
            Unconfirmed: not everything is at the broker.
        """
        if self._waiting:
            self.settle()
        if self._failed:
            failed, self._failed = self._failed, []
            raise Unconfirmed(failed)

    def discard(self) -> None:
        """Forgets what is on its way, which cannot be called back."""
        self.channel.forget([tag for tag, *_ in self._waiting])
        self._waiting.clear()

    def close(self) -> None:
        """Nothing is held."""
