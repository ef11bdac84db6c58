"""The AMQP messages that carry Signatures."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any

import amqp
from kombu.transport import pyamqp

from machinery_compat import errors
from machinery_compat.transport import base, payloads
from machinery_compat.transport.reconnect import Unavailable
from machinery_compat.wire import FAILURE, STARTED, SUCCESS, Signature, outgoing

if TYPE_CHECKING:
    from machinery_compat.transport.amqp import Channel

__all__ = ["Message", "amqp_message", "body_of", "check_length", "delay_ms", "is_celery_message"]

#: Shortest delay, in ms.
SHORTEST_DELAY = 20
#: Most that is put into the table of headers, in bytes: RabbitMQ cuts off who sends a larger one than
#: its frames (128 KiB), and the connection's other channels with it.
LARGEST_TABLE = 100_000
#: The longest routing key of AMQP, in bytes.
LONGEST_KEY = 255


class Message(base.TaskPayload, pyamqp.Message):  # type: ignore[misc]
    """An AMQP message from a queue of tasks; its Signature is None when it holds none."""

    comes_renumbered = True
    channel: Channel
    delivery_tag: int
    delivery_info: dict[str, Any]

    def __init__(self, raw: amqp.Message, channel: Channel, queue: str) -> None:
        super().__init__(raw, channel=channel)
        # Kombu has taken the user's headers for its own, such as one that is called compression.
        self.errors = []
        self.queue = queue
        self.raw_body = body_of(raw)
        try:
            self.signature = payloads.decode(self.raw_body, channel.border.max_body_size)
        except errors.DecodeError:
            # Kombu hands a message with errors to the consumer's on_decode_error.
            self.errors.append(sys.exc_info())
            return
        fields = self.celery_fields(self.signature, self.raw_body)
        self.headers, self.properties, self.body = fields["headers"], fields["properties"], fields["body"]
        if base.deliveries(self.raw_body):
            self.delivery_info = {**self.delivery_info, "redelivered": True}
        self.content_type = self.content_encoding = None
        self._decoded_cache = self.body

    def adopt(self, again: Message) -> None:
        """Goes on as another delivery of the same message, which came after its own connection was lost."""
        self.channel, self.delivery_tag, self.delivery_info = again.channel, again.delivery_tag, again.delivery_info
        self.raw_body = max(self.raw_body, again.raw_body, key=base.deliveries)

    def is_ours(self) -> bool:
        # With the connection goes the message: the broker gives it out again.
        return self.channel.connection is not None

    def ack_log_error(self, logger: Any, errors: Any, multiple: bool = False) -> None:
        try:
            self.ack(multiple=multiple)
        except errors as exc:
            self._log_unsettled(logger, exc)

    def reject_log_error(self, logger: Any, errors: Any, requeue: bool = False) -> None:
        try:
            self.reject(requeue=requeue)
        except errors as exc:
            self._log_unsettled(logger, exc)

    def _log_unsettled(self, logger: Any, exc: Exception) -> None:
        name = f"task {self.signature.name}[{self.signature.uuid}]" if self.signature is not None else "a message"
        logger.warning("%s: the connection it came on is lost (%s); the broker delivers it again", name, exc)

    def bury(self, reason: str) -> None:
        try:
            self.channel.bury(self.raw_body, reason, self.queue)
        except Unavailable as exc:
            # It stays unacknowledged, and so with the broker.
            base.logger.error("a message cannot be kept in %s: %s", payloads.dead_queue(self.queue), exc)
            return
        self.ack()

    def hand_back(self) -> None:
        self.requeue()

    def redeliver(self) -> None:
        if self._is_counted_when_it_comes():
            self.requeue()
            return
        try:
            self.channel.publish_again(self, base.redelivered(self.raw_body))
        except Unavailable as exc:
            base.logger.warning("a message goes back uncounted: %s", exc)
            self.requeue()
            return
        self.ack()

    def _is_counted_when_it_comes(self) -> bool:
        """Whether who gets the message again will see by the state that its first run had begun."""
        border, signature = self.channel.border, self.signature
        if signature is None or base.deliveries(self.raw_body) or not border.redelivery_limit:
            return False
        state, run = border.progress_of(signature)
        return run == 0 and state in (STARTED, SUCCESS, FAILURE)

    def park(self, seconds: float) -> None:
        try:
            self.channel.park(self, seconds)
        except Unavailable as exc:
            base.logger.warning("a message goes back at once, since it cannot wait at the broker: %s", exc)
            self.requeue()
            return
        self.ack()


def amqp_message(signature: Signature, body: bytes | None = None) -> amqp.Message:
    """The AMQP message that Go would publish for a Signature (with the body it came in)."""
    properties: dict[str, Any] = {"content_type": "application/json", "delivery_mode": 2}
    if signature.priority:
        properties["priority"] = signature.priority
    headers = _table(signature.headers) if signature.headers else None
    if headers:
        properties["application_headers"] = headers
    return amqp.Message(signature.encode() if body is None else body, **properties)


def _table(headers: Mapping[str, Any]) -> dict[str, Any]:
    """What of Headers goes into the AMQP table too, which nobody of Machinery reads: the body counts."""
    table: dict[str, Any] = {}
    room = LARGEST_TABLE
    for name, value in headers.items():
        if not outgoing.is_header(name, value):
            continue
        # A character is at most four bytes.
        room -= 4 * len(name) + (4 * len(value) if isinstance(value, str) else 1)
        if room < 0:
            break
        table[name] = value
    return table


def check_length(name: str) -> None:
    """Refuses the name of a queue or a routing key that AMQP has no room for.

    Raises:
        EncodeError: it is too long.
    """
    if len(name) > LONGEST_KEY // 4 and len(name.encode()) > LONGEST_KEY:
        raise errors.EncodeError(f"AMQP takes routing keys and queues of at most {LONGEST_KEY} bytes, not {name!r}")


def delay_ms(signature: Signature) -> int:
    """How long a Signature has to wait, in ms; 0 when it is due.

    Raises:
        EncodeError: longer than the server can keep a queue.
    """
    if signature.eta_ns is None:
        return 0
    left = -(-(signature.eta_ns - time_ns()) // 1_000_000)
    if left <= 0:
        return 0
    if left > 0xFFFFFFFF:
        raise errors.EncodeError(
            f"task {signature.uuid} is due in {left // 86_400_000} days; RabbitMQ keeps a message for 49 days at most"
        )
    return max(left, SHORTEST_DELAY)


def body_of(message: amqp.Message) -> bytes:
    body = message.body
    return body.encode() if isinstance(body, str) else bytes(body)


def is_celery_message(message: amqp.Message) -> bool:
    """Whether a plain Celery application has put this into the queue.

    Headers alone do not tell: Go sends a Signature's own ones along, whatever their names.
    """
    headers = message.properties.get("application_headers") or {}
    return "task" in headers and "id" in headers and "lang" in headers and body_of(message)[:1] != b"{"
