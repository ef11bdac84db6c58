"""Machinery's AMQP broker as a Kombu transport.

Tasks are published as Go publishes them: the Signature's JSON as the body, its Headers as the
headers, persistent, with the priority, to Machinery's exchange. Unlike Go, only queues that have
a consumer's name are declared, so that no copy of each message fills a queue nobody reads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import time_ns
from typing import Any

import amqp
from kombu.transport import pyamqp

from machinery_compat import errors
from machinery_compat.transport import base, tls
from machinery_compat.transport.dead_amqp import AMQPDeadLetters
from machinery_compat.wire import Signature, outgoing

__all__ = ["Channel", "Connection", "Message", "SSLTransport", "Transport"]

#: Shortest delay, in ms: a delay queue expires after twice its delay, and must still be there
#: when the message arrives.
SHORTEST_DELAY = 20
#: Most that is put into the table of headers, in bytes: RabbitMQ cuts off who sends a larger one than
#: its frames (128 KiB), and the connection's other channels with it.
LARGEST_TABLE = 100_000
#: The longest routing key of AMQP, in bytes.
LONGEST_KEY = 255


class Message(base.TaskPayload, pyamqp.Message):  # type: ignore[misc]
    """An AMQP message from a queue of tasks; its Signature is None when it holds none."""

    def __init__(self, raw: amqp.Message, channel: Channel, queue: str) -> None:
        super().__init__(raw, channel=channel)
        # Kombu has taken the user's headers for its own, such as one that is called compression.
        self.errors = []
        self.queue = queue
        self.raw_body = _bytes(raw.body)
        try:
            self.signature = base.decode(self.raw_body, channel.border.max_body_size)
        except errors.DecodeError:
            # Kombu hands a message with errors to the consumer's on_decode_error.
            self.errors.append(sys.exc_info())
            return
        fields = self.celery_fields(self.signature, self.raw_body)
        self.headers, self.properties, self.body = fields["headers"], fields["properties"], fields["body"]
        self.content_type = self.content_encoding = None
        self._decoded_cache = self.body

    def bury(self, reason: str) -> None:
        self.channel.bury(self.raw_body, reason, self.queue)
        self.ack()

    def hand_back(self) -> None:
        self.requeue()

    def park(self, seconds: float) -> None:
        self.channel.park(self, seconds)
        self.ack()


class Channel(AMQPDeadLetters, base.TaskChannel, pyamqp.Channel):  # type: ignore[misc]
    """An AMQP channel whose task messages are Signatures."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.border = base.border_of(self.connection.client.transport_options)
        self.kombu_queues: set[str] = set()
        self._queue_of: dict[str, str] = {}
        self._side: Any = None
        # With confirms on, amqp has put its confirming method over the class's own.
        self._publish_raw: Any = self.basic_publish
        self.basic_publish: Any = self._publish

    # -- publishing

    def _publish(self, msg: Any, exchange: str = "", routing_key: str = "", **kwargs: Any) -> Any:
        if not isinstance(msg, Signature):
            return self._publish_raw(msg, exchange=exchange, routing_key=routing_key, **kwargs)
        exchange, routing_key = self.border.route(exchange, routing_key)
        if not msg.routing_key:
            msg.routing_key = routing_key
        self.border.publishing(msg)
        _check_length(msg.routing_key)
        message = amqp_message(msg, self.encoded(msg))
        self.border.before_publish(msg, "amqp://")
        delay = delay_ms(msg)
        if delay:
            return self.publish_delayed(message, delay, exchange, msg.routing_key)
        return self._publish_raw(message, exchange=exchange, routing_key=routing_key, **kwargs)

    def _delay_queue(self, message: amqp.Message, delay: int, exchange: str, routing_key: str) -> str:
        """Declares the queue in which a message waits; RabbitMQ then moves it on."""
        arguments: dict[str, Any] = {
            "x-dead-letter-exchange": exchange,
            "x-dead-letter-routing-key": routing_key,
        }
        queue = self.border.delayed_queue
        if queue:
            message.properties["expiration"] = str(delay)
        else:
            queue = f"delay.{delay}.{exchange}.{routing_key}"
            arguments.update({"x-message-ttl": delay, "x-expires": 2 * delay})
        self.queue_declare(queue=queue, durable=True, auto_delete=self.border.delay_auto_delete, arguments=arguments)
        return queue

    # -- consuming

    def queue_declare(self, queue: str = "", **kwargs: Any) -> Any:
        _check_length(queue)
        self.note_queue(queue, bool(kwargs.get("auto_delete")), kwargs.get("arguments"))
        return super().queue_declare(queue=queue, **kwargs)

    def basic_consume(self, queue: str = "", consumer_tag: str = "", *args: Any, **kwargs: Any) -> Any:
        if queue not in self.kombu_queues:
            self.require_application()
            self._queue_of[consumer_tag] = queue
        return super().basic_consume(queue, consumer_tag, *args, **kwargs)

    def message_to_python(self, raw_message: amqp.Message) -> Any:
        queue = self._queue_of.get(raw_message.delivery_info.get("consumer_tag", ""))
        if queue is None or _is_celery_message(raw_message):
            return super().message_to_python(raw_message)
        message = Message(raw_message, self, queue)
        if message.signature is not None:
            self.border.received([message.signature])
        return message

    def pending_tasks(self, queue: str) -> list[Signature]:
        """The tasks in a queue, the next one first; they are put back at once."""
        count = self.queue_declare(queue=queue, passive=True).message_count
        fetched = [message for _ in range(count) if (message := self.basic_get(queue)) is not None]
        try:
            return base.decode_all([_bytes(message.body) for message in fetched], queue)
        finally:
            for message in fetched:
                self.basic_reject(message.delivery_tag, requeue=True)

    def delayed_tasks(self) -> list[Signature]:
        raise errors.MachineryError(
            "RabbitMQ keeps delayed tasks in queues of their own and cannot list them (Go: Not implemented)"
        )

    def park(self, message: Message, seconds: float) -> None:
        """Sends a copy of a message to the tail of its queue, by way of a delay queue.

        RabbitMQ puts what is rejected back at the head, so that two workers, each with its
        prefetch full of what only the other one knows, would wait for each other for ever.
        """
        assert message.signature is not None
        copy = amqp_message(message.signature, message.raw_body)
        # Powers of two, so that parked tasks share a few queues.
        delay = 1 << max(int(seconds * 1000) - 1, 0).bit_length()
        self.side_channel.publish_delayed(copy, delay, "", message.queue)

    def publish_delayed(self, message: amqp.Message, delay: int, exchange: str, routing_key: str) -> None:
        """Sends a message that reaches an exchange after a delay in ms."""
        queue = self._delay_queue(message, delay, exchange, routing_key)
        self._publish_raw(message, exchange="", routing_key=queue)

    def bury(self, body: bytes, reason: str, queue: str) -> None:
        """Keeps a copy of a message that nobody can run in ``<queue>:dead``, with the reason."""
        dead = base.dead_queue(queue)
        base.log_buried(body, reason, dead)
        side = self.side_channel
        side.queue_declare(queue=dead, durable=True, auto_delete=False)
        entry = amqp.Message(base.dead_letter(body, reason, queue), content_type="application/json", delivery_mode=2)
        side._publish_raw(entry, exchange="", routing_key=dead)

    def message_for(self, signature: Signature, body: bytes) -> amqp.Message:
        return amqp_message(signature, body)

    @property
    def side_channel(self) -> Channel:
        """A channel of a connection of its own, to wait for the server from within a delivery.

        Waiting on the delivering connection would deliver the next message meanwhile.
        """
        if self._side is None:
            self._side = self.connection.client.clone()
        channel: Channel = self._side.default_channel
        return channel

    def close(self, *args: Any, **kwargs: Any) -> Any:
        side, self._side = self._side, None
        if side is not None:
            side.release()
        return super().close(*args, **kwargs)


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


def _check_length(name: str) -> None:
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


def _bytes(body: str | bytes | memoryview) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)


def _is_celery_message(message: amqp.Message) -> bool:
    """Whether a plain Celery application has put this into the queue.

    Headers alone do not tell: Go sends a Signature's own ones along, whatever their names.
    """
    headers = message.properties.get("application_headers") or {}
    return "task" in headers and "id" in headers and "lang" in headers and _bytes(message.body)[:1] != b"{"


class Connection(pyamqp.Connection):  # type: ignore[misc]
    """An AMQP connection whose channels translate."""

    Channel = Channel


class Transport(pyamqp.Transport):  # type: ignore[misc]
    """Kombu transport for Machinery's AMQP URLs."""

    Connection = Connection

    def establish_connection(self) -> Any:
        client = self.client
        if client.hostname != "127.0.0.1":
            # What Kombu makes of localhost.
            self._host = client.hostname or "localhost"
        self._tls = getattr(self, "_tls", client.ssl)
        # Anew each time: the next host, after a failover, has another name.
        client.ssl = tls.amqp_options(self._tls, getattr(self, "_host", client.hostname))
        return super().establish_connection()

    def qos_semantics_matches_spec(self, connection: Any) -> bool:
        """Makes Celery limit each consumer, as Go does, and not the channel as a whole.

        RabbitMQ puts a channel at its limit aside; beside a Go worker that requeues what it does
        not know in a tight loop, it was seen not to come back. Celery raises its limit only for
        tasks with an ETA, which here wait at the broker.
        """
        return True


class SSLTransport(Transport):
    """The same over TLS, for ``amqps://``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.client.ssl:
            self.client.ssl = True
