"""Messages that RabbitMQ pushes, delivered together while their tasks would have to wait anyway."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import amqp
from kombu.transport import pyamqp

from machinery_compat.transport import base
from machinery_compat.transport.amqp_message import Message, is_celery_message

__all__ = ["GatheringChannel"]

#: The seconds for which a message may wait for others, while this worker has enough to do.
DELIVERED_WITHIN = 0.005
#: The most messages that wait so, where the worker takes any number.
MOST = 50

Arrived = tuple[str, Callable[[amqp.Message], Any], amqp.Message]


class GatheringChannel(base.TaskChannel, pyamqp.Channel):  # type: ignore[misc]
    """An AMQP channel that writes RECEIVED once for several messages.

    Written for each one, it would take the main process of a busy worker a third of its time.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._arrived: deque[Arrived] = deque()
        #: The Message of each delivery tag that is just being delivered.
        self._made: dict[int, Message] = {}
        self._delivery_timer: Any = None
        self._prefetch = 0
        super().__init__(*args, **kwargs)

    def basic_qos(self, prefetch_size: int, prefetch_count: int, a_global: bool, **kwargs: Any) -> Any:
        self._prefetch = prefetch_count
        return super().basic_qos(prefetch_size, prefetch_count, a_global, **kwargs)

    def gather(self, queue: str, callback: Callable[[amqp.Message], Any], raw: amqp.Message) -> None:
        """Delivers a message now, or a moment later together with others."""
        self._arrived.append((queue, callback, raw))
        # What waits behind the running tasks feeds the pool until then.
        enough = max((self._prefetch - self.slots()) // 2, 1) if self._prefetch else MOST
        if len(self._arrived) < enough and self.border.held() > self.slots():
            if self._delivery_timer is None:
                timers = self.connection.client.transport
                self._delivery_timer = timers.call_later(DELIVERED_WITHIN, self.deliver_gathered)
            if self._delivery_timer is not None:
                return
        self.deliver_gathered()

    def deliver_gathered(self) -> None:
        """Delivers what has arrived, in order."""
        self._forget_timer()
        for queue, _, raw in self._arrived:
            if not is_celery_message(raw):
                self._made[raw.delivery_tag] = Message(raw, self, queue)
        self._tell_received([made for made in self._made.values() if made.signature is not None])
        try:
            while self._arrived:
                _, callback, raw = self._arrived.popleft()
                callback(raw)
        finally:
            self._made.clear()

    def _tell_received(self, messages: list[Message]) -> None:
        signatures = [message.signature for message in messages if message.signature is not None]
        try:
            self.border.received(signatures, [base.deliveries(message.raw_body) for message in messages])
        except Exception:  # noqa: BLE001 - Kombu would take it for a message that cannot be decoded
            names = ", ".join(signature.uuid for signature in signatures)
            base.logger.exception("RECEIVED is not stored for the tasks %s", names)

    def message_to_python(self, raw_message: amqp.Message) -> Any:
        return self._made.pop(raw_message.delivery_tag, None) or super().message_to_python(raw_message)

    def give_back_undelivered(self) -> None:
        self._forget_timer()
        while self._arrived:
            *_, raw = self._arrived.pop()
            self.basic_reject(raw.delivery_tag, requeue=True)

    def collect(self) -> None:
        # The broker gives them out again.
        self._arrived.clear()
        self._forget_timer()
        super().collect()

    def _forget_timer(self) -> None:
        timer, self._delivery_timer = self._delivery_timer, None
        if timer is not None:
            timer.cancel()
