"""AMQP publishing that knows what became of each message, and never waits for ever.

py-amqp takes any confirmation for that of the message just sent, raises in the middle when a message
is returned, and waits for a broker whose memory alarm is on until it goes off.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import amqp
from kombu.transport import pyamqp

from machinery_compat.transport.confirmed_batch import FAILED, ConfirmedBatch
from machinery_compat.transport.reconnect import Unavailable

__all__ = ["CONFIRM_TIMEOUT", "ConfirmingChannel", "ConfirmingConnection"]

#: How long the broker may take to confirm a message or to answer a question, in seconds; the
#: transport option ``confirm_timeout``.
CONFIRM_TIMEOUT = 15.0
NO_ROUTE = 312


def _settle(connection: ConfirmingConnection, blocked: bool, user: Callable[..., Any] | None) -> Callable[..., Any]:
    def told(*args: Any) -> None:
        connection.blocked = blocked
        if user is not None:
            user(*args)

    return told


class _BoundedWait:
    """Answers do not come from a broker that is frozen; mixed into py-amqp's connection and channel."""

    #: Seconds.
    confirm_timeout = CONFIRM_TIMEOUT

    def wait(self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False) -> Any:
        limit = timeout or self.confirm_timeout
        try:
            return super().wait(method, callback, limit, returns_tuple)  # type: ignore[misc]
        except TimeoutError as exc:
            # Celery's loop would take a timeout for silence, and go on.
            raise amqp.RecoverableConnectionError(f"no answer from the broker within {limit:g} s") from exc


class ConfirmingConnection(_BoundedWait, pyamqp.Connection):  # type: ignore[misc]
    """An AMQP connection that knows whether the broker has blocked it.

    Args:
        confirm_publish: confirm Kombu's own messages too (events, remote control); tasks always are.
        confirm_timeout: seconds to wait for a confirmation or an answer.
        on_blocked: called with a text when the broker takes no more messages.
        on_unblocked: called when it takes them again.
    """

    def __init__(
        self,
        *args: Any,
        confirm_publish: bool = False,
        confirm_timeout: float | None = None,
        on_blocked: Callable[..., Any] | None = None,
        on_unblocked: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.blocked = False
        self.confirm_timeout = CONFIRM_TIMEOUT if confirm_timeout is None else float(confirm_timeout)
        self.confirm_all = confirm_publish
        super().__init__(
            *args,
            # The channels do it themselves.
            confirm_publish=False,
            on_blocked=_settle(self, True, on_blocked),
            on_unblocked=_settle(self, False, on_unblocked),
            **kwargs,
        )

    def close(self, *args: Any, **kwargs: Any) -> Any:
        if self.blocked:
            # It would not read the farewell either.
            self.collect()
            return None
        return super().close(*args, **kwargs)


class ConfirmingChannel(_BoundedWait, pyamqp.Channel):  # type: ignore[misc]
    """An AMQP channel that waits for the confirmation of each message it is asked to."""

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        self.confirm_timeout = connection.confirm_timeout
        self._confirming = False
        self._sent = 0
        #: Delivery tag -> whether the broker has taken the message; None while it has not said.
        self._verdicts: dict[int, bool | None] = {}
        #: The exchanges and keys of the messages that no queue was there for.
        self._returned: list[tuple[str, str]] = []
        #: The exchange and the key of the message for which no queue was there just now.
        self._unroutable: tuple[str, str] | None = None
        super().__init__(connection, *args, **kwargs)

    def open(self) -> Any:
        # Also after the broker has closed the channel; the count begins anew.
        self._confirming, self._sent = False, 0
        self._verdicts.clear()
        return super().open()

    def basic_publish(self, msg: Any, exchange: str = "", routing_key: str = "", **kwargs: Any) -> Any:
        connection = self._connected()
        if connection.confirm_all:
            return self.publish_confirmed(msg, exchange, routing_key, **kwargs)
        kwargs.pop("confirm_timeout", None)
        if connection.blocked:
            # What is written now would wait for the alarm's end, and this process with it.
            self._expect_unblocked(0)
        return self._send(msg, exchange, routing_key, **kwargs)

    def publish_confirmed(
        self, msg: Any, exchange: str, routing_key: str, confirm_timeout: float | None = None, **kwargs: Any
    ) -> None:
        """Publishes a message and waits until the broker has it.

        Args:
            msg: the message.
            exchange: its exchange.
            routing_key: its routing key.
            confirm_timeout: seconds to wait, in place of the connection's.
            **kwargs: as of py-amqp.

        Raises:
            Unavailable: the broker has blocked this connection; or no queue is there for the message, again.
            amqp.RecoverableChannelError: the broker has refused the message, or no queue is there for it.
            amqp.RecoverableConnectionError: the connection is lost; the broker may have the message.
        """
        limit = confirm_timeout or self.confirm_timeout
        self.begin_confirming(limit)
        tag = self._sent + 1
        self._verdicts[tag] = None
        try:
            self._send(msg, exchange, routing_key, **kwargs)
            taken = self._verdict(tag, limit)
        except amqp.NotFound as exc:
            raise self._undeliverable(exchange, routing_key, f"there is no exchange {exchange!r}") from exc
        finally:
            self._verdicts.pop(tag, None)
        if not taken:
            raise amqp.RecoverableChannelError("it has refused the message; a queue may be full")
        if self._returned:
            raise self._undeliverable(
                exchange, routing_key, f"no queue gets what exchange {exchange!r} is sent with key {routing_key!r}"
            )
        self._unroutable = None

    def begin_confirming(self, limit: float) -> None:
        """Called before a message or a batch of them is sent.

        Args:
            limit: seconds to wait for a broker that has blocked this connection.

        Raises:
            Unavailable: it blocks it still.
        """
        self._expect_unblocked(limit)
        self._returned.clear()
        if not self._confirming:
            self.events["basic_ack"].add(self._on_confirmed)
            self.events["basic_nack"].add(self._on_refused)
            self.events["basic_return"].add(self._on_returned)
            self.confirm_select()
            self._confirming = True

    # -- many messages, which are confirmed while others are being sent

    def create_publish_batch(self, max_size: int) -> ConfirmedBatch:
        return ConfirmedBatch(self, max_size)

    def publish_in_batch(self, batch: ConfirmedBatch, msg: Any, exchange: str, routing_key: str, **kwargs: Any) -> None:
        """Publishes a message whose confirmation the batch waits for."""
        kwargs.pop("confirm_timeout", None)
        tag = self._sent + 1
        self._verdicts[tag] = None
        try:
            self._send(msg, exchange, routing_key, **kwargs)
        except BaseException:
            self._verdicts.pop(tag, None)
            raise
        batch.add(tag, len(msg.body), (exchange, routing_key))

    def verdicts(self, tags: list[int]) -> tuple[dict[int, bool | None], set[tuple[str, str]]]:
        """What the broker says of messages, and the routes that lead to no queue; None is said of what is not known."""
        try:
            for tag in tags:
                self._verdict(tag, self.confirm_timeout)
        except FAILED:
            pass
        return {tag: self._verdicts.pop(tag, None) for tag in tags}, set(self._returned)

    def forget(self, tags: list[int]) -> None:
        for tag in tags:
            self._verdicts.pop(tag, None)

    def _send(self, msg: Any, exchange: str, routing_key: str, **kwargs: Any) -> Any:
        sent = super().basic_publish(msg, exchange=exchange, routing_key=routing_key, **kwargs)
        self._sent += self._confirming
        return sent

    def _undeliverable(self, exchange: str, routing_key: str, why: str) -> Exception:
        """The error for a message that no queue gets; the first time one upon which a sender tries again."""
        route, before = (exchange, routing_key), self._unroutable
        if route == before:
            self._unroutable = None
            return _unavailable(self._connected(), why)
        # Somebody has deleted what was declared here once: the next attempt declares it again.
        self._unroutable = route
        self._connected().client.declared_entities.clear()
        error: Exception = amqp.RecoverableChannelError(why, reply_code=NO_ROUTE)
        return error

    def _verdict(self, tag: int, limit: float) -> bool:
        deadline = monotonic() + limit
        while (taken := self._verdicts[tag]) is None:
            left = deadline - monotonic()
            connection = self._connected()
            if left <= 0:
                blocked = connection.blocked
                # A confirmation that comes later must not be taken for another message's.
                connection.collect()
                if blocked:
                    raise _unavailable(connection, f"{_blocked_text(limit)}; it may yet take it when that is over")
                raise amqp.RecoverableConnectionError(f"no confirmation from the broker within {limit:g} s")
            self._read(left)
        return taken

    def _expect_unblocked(self, limit: float) -> None:
        deadline = monotonic() + limit
        connection = self._connected()
        while self._read(0):
            pass
        while connection.blocked:
            left = deadline - monotonic()
            if left <= 0:
                raise _unavailable(connection, _blocked_text(limit))
            self._read(left)

    def _read(self, seconds: float) -> bool:
        """Handles the next thing that the broker says; False when it says nothing in time."""
        try:
            self._connected().drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def _connected(self) -> Any:
        if self.connection is None:
            raise amqp.RecoverableConnectionError("the connection to the broker is lost")
        return self.connection

    def _on_confirmed(self, tag: int, multiple: bool) -> None:
        self._decide(tag, multiple, True)

    def _on_refused(self, tag: int, multiple: bool) -> None:
        self._decide(tag, multiple, False)

    def _decide(self, tag: int, multiple: bool, taken: bool) -> None:
        for waiting in self._verdicts:
            if waiting == tag or (multiple and waiting <= tag):
                self._verdicts[waiting] = taken

    def _on_returned(self, exc: amqp.ChannelError, exchange: str, routing_key: str, message: Any) -> None:
        self._returned.append((exchange, routing_key))

    def close(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection is not None and self.connection.blocked:
            self.connection.collect()
            return None
        return super().close(*args, **kwargs)


def _unavailable(connection: Any, why: str) -> Unavailable:
    return Unavailable(f"the broker {connection.client.as_uri()} has not taken the message: {why}")


def _blocked_text(limit: float) -> str:
    return (
        "it has blocked this connection (connection.blocked), as RabbitMQ does while its memory or disk alarm is on; "
        f"waited {limit:g} s"
    )
