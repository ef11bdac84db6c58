"""Machinery's AMQP broker as a Kombu transport.

Tasks are published as Go publishes them: the Signature's JSON as the body, its Headers as the
headers, persistent, with the priority, to Machinery's exchange. Unlike Go, only queues that have
a consumer's name are declared, so that no copy of each message fills a queue nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import amqp
from kombu.transport import pyamqp

from machinery_compat import errors
from machinery_compat.transport import base, border, payloads, tls
from machinery_compat.transport.amqp_gathering import GatheringChannel
from machinery_compat.transport.amqp_message import (
    Message,
    amqp_message,
    body_of,
    check_length,
    delay_ms,
    is_celery_message,
)
from machinery_compat.transport.confirmed_batch import ERRORS, FAILED, ConfirmedBatch
from machinery_compat.transport.confirms import ConfirmingChannel, ConfirmingConnection
from machinery_compat.transport.dead_amqp import AMQPDeadLetters
from machinery_compat.transport.event_loop import EventLoopTransport
from machinery_compat.transport.redelivery import has_followers
from machinery_compat.wire import FAILURE, STARTED, SUCCESS, Signature

__all__ = ["Channel", "Connection", "Message", "SSLTransport", "Transport"]

#: How much longer than twice its delay a delay queue is kept, in ms. Go keeps none longer, and when
#: the broker is slow the queue is gone before the message, or with it.
DELAY_SLACK = 5_000

T = TypeVar("T")


class Channel(AMQPDeadLetters, GatheringChannel, ConfirmingChannel):
    """An AMQP channel whose task messages are Signatures."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.border = border.border_of(self.connection.client.transport_options)
        self.kombu_queues: set[str] = set()
        self._exchanges: dict[str, dict[str, Any]] = {}
        self._queues: dict[str, dict[str, Any]] = {}
        self._bindings: dict[str, list[dict[str, Any]]] = {}
        self._side: Any = None

    # -- publishing

    def basic_publish(self, msg: Any, exchange: str = "", routing_key: str = "", **kwargs: Any) -> Any:
        """Publishes a message; a task is there when this returns, or at the end of its batch."""
        batch: ConfirmedBatch | None = kwargs.pop("_publish_batch", None)
        if not isinstance(msg, Signature):
            return super().basic_publish(msg, exchange=exchange, routing_key=routing_key, **kwargs)
        exchange, routing_key = self.border.route(exchange, routing_key)
        if not msg.routing_key:
            msg.routing_key = routing_key
        self.border.publishing(msg)
        check_length(msg.routing_key)
        message = amqp_message(msg, self.encoded(msg))
        self.border.before_publish(msg, "amqp://")
        delay = delay_ms(msg)
        if delay:
            if batch is not None:
                batch.settle()
            return self.publish_delayed(message, delay, exchange, msg.routing_key)
        # Without it the broker drops what no queue gets, and says nothing.
        kwargs["mandatory"] = True
        if batch is not None:
            return self.publish_in_batch(batch, message, exchange, routing_key, **kwargs)
        return self.publish_confirmed(message, exchange=exchange, routing_key=routing_key, **kwargs)

    def publish_delayed(self, message: amqp.Message, delay: int, exchange: str, routing_key: str) -> None:
        """Sends a message that reaches an exchange after a delay in ms.

        Raises:
            amqp.RecoverableChannelError: the broker was so slow that the message may be lost.
        """
        begin = monotonic()
        queue = self._delay_queue(message, delay, exchange, routing_key)
        self.publish_confirmed(message, exchange="", routing_key=queue, mandatory=True)
        if not self.border.delayed_queue and (monotonic() - begin) * 1000 > delay + DELAY_SLACK:
            raise amqp.RecoverableChannelError(f"it took so long that {queue} may have expired with the message")

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
            # Not Go's name, under which RabbitMQ would refuse the other expiry.
            queue = f"delay.{delay}+{DELAY_SLACK}.{exchange}.{routing_key}"
            arguments.update({"x-message-ttl": delay, "x-expires": 2 * delay + DELAY_SLACK})
        check_length(queue)
        super().queue_declare(queue=queue, durable=True, auto_delete=self.border.delay_auto_delete, arguments=arguments)
        return queue

    # -- declaring

    def exchange_declare(self, exchange: str, type: str, **kwargs: Any) -> Any:
        self._exchanges[exchange] = {"type": type, **_kept(kwargs)}
        return super().exchange_declare(exchange, type, **kwargs)

    def queue_declare(self, queue: str = "", **kwargs: Any) -> Any:
        check_length(queue)
        self.note_queue(queue, bool(kwargs.get("auto_delete")), kwargs.get("arguments"))
        if not kwargs.get("passive"):
            self._queues[queue] = _kept(kwargs)
            self._bindings[queue] = []
        return super().queue_declare(queue=queue, **kwargs)

    def queue_bind(self, queue: str, exchange: str = "", routing_key: str = "", **kwargs: Any) -> Any:
        binding = {"exchange": exchange, "routing_key": routing_key, **_kept(kwargs)}
        self._bindings.setdefault(queue, []).append(binding)
        return super().queue_bind(queue, exchange, routing_key, **kwargs)

    def _declare_on(self, other: Channel, queue: str) -> None:
        """Declares again what was declared here, with its exchanges and bindings."""
        bindings = self._bindings.get(queue, ())
        for exchange in {binding["exchange"] for binding in bindings} & set(self._exchanges):
            other.exchange_declare(exchange, **self._exchanges[exchange])
        other.queue_declare(queue, **self._queues.get(queue, {"passive": True}))
        for binding in bindings:
            other.queue_bind(queue, **binding)

    # -- consuming

    def basic_consume(self, queue: str = "", consumer_tag: str = "", *args: Any, **kwargs: Any) -> Any:
        if queue in self.kombu_queues:
            return super().basic_consume(queue, consumer_tag, *args, **kwargs)
        self.require_application()
        callback = kwargs.get("callback")
        watched = {
            **kwargs,
            "callback": partial(self._delivered, queue, callback) if callback is not None else None,
            "on_cancel": partial(self._consume_again, queue, args, kwargs),
        }
        return super().basic_consume(queue, consumer_tag, *args, **watched)

    def _consume_again(self, queue: str, args: tuple[Any, ...], options: dict[str, Any], consumer_tag: str) -> None:
        """Goes on with a queue whose consumer the broker has cancelled, as it does when it is deleted.

        Celery alone would make a new connection for it, and what runs would run twice.

        Raises:
            ConsumerCancelled: it is not to be had; Celery connects again.
        """
        base.logger.warning("the broker has ended the delivery from %s: declared and consumed again", queue)
        try:
            self._aside(partial(self._declare_on, queue=queue))
        except FAILED as exc:
            base.logger.error("queue %s cannot be declared again: %s", queue, exc)
            raise amqp.ConsumerCancelled(f"the consumer of queue {queue} was cancelled") from exc
        self.basic_consume(queue, consumer_tag, *args, **{**options, "nowait": True})

    def _delivered(self, queue: str, callback: Callable[[amqp.Message], Any], raw: amqp.Message) -> None:
        again, body = bool(raw.delivery_info["redelivered"]), body_of(raw)
        if (again or base.deliveries(body)) and not is_celery_message(raw):
            run = self._next_run(Message(raw, self, queue), again)
            if run is None:
                return
            # What lies at the broker stays as it is; the states of the run say its number.
            raw.body = base.redelivered(body, run - base.deliveries(body))
        self.gather(queue, callback, raw)

    def _next_run(self, message: Message, again: bool) -> int | None:
        """Which run of its task begins with a message that was delivered before; None where none must begin now.

        RabbitMQ tells that it was delivered, and not how often, nor whether the task had begun.

        Args:
            message: a message that RabbitMQ delivers again, or a counted copy of one.
            again: whether RabbitMQ delivers it again.
        """
        signature, count, limit = message.signature, base.deliveries(message.raw_body), self.border.redelivery_limit
        if signature is None:
            return count
        # Of a task that only others know too: the copy that waits for them carries the number.
        state, run = self.border.progress_of(signature, of_others=True)
        running = self.border.running(signature.uuid)
        if isinstance(running, Message) and not running.is_ours() and run <= base.deliveries(running.raw_body):
            # The connection was lost, and the task goes on.
            if running.acknowledged:
                message.ack()
            else:
                running.adopt(message)
            return None
        if state == SUCCESS and not has_followers(signature):
            # Its end was stored, and only the acknowledgement was lost.
            message.ack()
            return None
        # A run with a lower number than what is stored would be refused.
        last = max(count, run)
        # The states of a Go worker have no number.
        began = state == STARTED and (run >= count or not run)
        ended = state in (SUCCESS, FAILURE) and run >= count
        if not again or not (began or ended):
            # It has not begun since it was counted: others only had it, or handed it back.
            return last
        if ended:
            return self._run_after_end(message, state, last)
        if last == 0 and limit:
            # At once and not behind the backlog. One that comes back again goes there, with its count:
            # a Go worker's states have none.
            return 1
        message.raw_body = base.redelivered(message.raw_body, last - count)
        message.lost("its worker or the connection of its worker was lost")
        return None

    def _run_after_end(self, message: Message, state: str, last: int) -> int | None:
        """The same for a task whose end is stored, by a run: what follows it may not have been sent.

        It was this message that the run began with, or another one of the same task. So it is not taken for lost,
        but if this goes on it is what happens after its end that takes the worker along.
        """
        if last <= self.border.redelivery_limit:
            return last + 1
        message.bury(f"its state is {state}, but {last + 1} times its worker was lost before it was acknowledged")
        return None

    def _on_close(self, reply_code: int, reply_text: str, class_id: int, method_id: int) -> None:
        consumed = bool(self.callbacks)
        try:
            super()._on_close(reply_code, reply_text, class_id, method_id)
        except amqp.ChannelError as exc:
            if not consumed:
                raise
            # The consumers went with it. Celery takes the error of a channel for the end of the worker.
            raise amqp.RecoverableConnectionError(f"the broker has closed the consuming channel: {exc}") from exc

    def pending_tasks(self, queue: str) -> list[Signature]:
        """The tasks in a queue, the next one first; they are put back at once."""
        count = self.queue_declare(queue=queue, passive=True).message_count
        fetched = [message for _ in range(count) if (message := self.basic_get(queue)) is not None]
        try:
            return payloads.decode_all([body_of(message) for message in fetched], queue)
        finally:
            for message in fetched:
                self.basic_reject(message.delivery_tag, requeue=True)

    def delayed_tasks(self) -> list[Signature]:
        raise errors.MachineryError(
            "RabbitMQ keeps delayed tasks in queues of their own and cannot list them (Go: Not implemented)"
        )

    # -- what waits for the server during a delivery

    def publish_again(self, message: Message, body: bytes) -> None:
        """Sends a copy of a message, with another body, to the tail of its queue."""
        assert message.signature is not None
        copy = amqp_message(message.signature, body)
        self._aside(lambda side: side.publish_confirmed(copy, exchange="", routing_key=message.queue, mandatory=True))

    def park(self, message: Message, seconds: float) -> None:
        """Sends a copy of a message to the tail of its queue, by way of a delay queue.

        RabbitMQ puts what is rejected back at the head, so that two workers, each with its
        prefetch full of what only the other one knows, would wait for each other for ever.
        """
        assert message.signature is not None
        copy = amqp_message(message.signature, message.raw_body)
        # Powers of two, so that parked tasks share a few queues.
        delay = 1 << max(int(seconds * 1000) - 1, 0).bit_length()
        self._aside(lambda side: side.publish_delayed(copy, delay, "", message.queue))

    def bury(self, body: bytes, reason: str, queue: str) -> None:
        """Keeps a copy of a message that nobody can run in ``<queue>:dead``, with the reason."""
        dead = payloads.dead_queue(queue)
        payloads.log_buried(body, reason, dead)
        letter = payloads.dead_letter(body, reason, queue)
        entry = amqp.Message(letter, content_type="application/json", delivery_mode=2)

        def keep(side: Channel) -> None:
            side.queue_declare(queue=dead, durable=True, auto_delete=False)
            side.publish_confirmed(entry, exchange="", routing_key=dead, mandatory=True)

        self._aside(keep)

    def _aside(self, work: Callable[[Channel], T]) -> T:
        """Does on a connection of its own what waits for the server, as it may from within a delivery.

        Waiting on the delivering connection would deliver the next message meanwhile.
        """
        if self._side is None:
            self._side = self._connected().client.clone()
        side = self._side
        for again in (True, False):
            try:
                # Each of its URLs once.
                side.ensure_connection(max_retries=len(side.alt or "-") - 1, reraise_as_library_errors=False)
                return work(side.default_channel)
            except ERRORS as exc:
                if isinstance(exc, amqp.ConnectionError | OSError):
                    side.collect()
                if not again:
                    raise
        raise AssertionError

    def collect(self) -> None:
        side, self._side = self._side, None
        if side is not None:
            side.collect()
            side.release()
        super().collect()

    def close(self, *args: Any, **kwargs: Any) -> Any:
        side, self._side = self._side, None
        if side is not None:
            side.release()
        return super().close(*args, **kwargs)


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "nowait"}


class Connection(ConfirmingConnection):
    """An AMQP connection whose channels translate."""

    Channel = Channel


class Transport(EventLoopTransport, pyamqp.Transport):  # type: ignore[misc]
    """Kombu transport for Machinery's AMQP URLs."""

    Connection = Connection
    implements = pyamqp.Transport.implements.extend(batch_publish=True)

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
