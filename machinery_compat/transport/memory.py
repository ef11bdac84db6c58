"""Machinery's eager broker as a Kombu transport: a task runs where it is sent, before the sending returns.

Nothing of a task is kept here. What Celery sends for itself (remote control, events) goes through
Kombu's queues in memory, which the threads of one process share.
"""

from __future__ import annotations

from typing import Any, ClassVar

from kombu.transport import memory, virtual

from machinery_compat.transport import EAGER_URL, base, border
from machinery_compat.wire import Signature

__all__ = ["Channel", "Transport"]


class Channel(base.TaskChannel, memory.Channel):  # type: ignore[misc]
    """A channel that runs the Signatures that are published on it."""

    #: Of Kombu's own messages, by queue.
    queues: ClassVar[dict[str, Any]] = {}

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self.border = border.border_of(connection.client.transport_options)
        self.kombu_queues: set[str] = set()
        super().__init__(connection, **kwargs)

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **kwargs: Any) -> Any:
        if not isinstance(message, Signature):
            return super().basic_publish(message, exchange, routing_key, **kwargs)
        self.require_application()
        if not message.routing_key:
            message.routing_key = self.border.queue_of(exchange, routing_key)
        self.border.publishing(message)
        # Through the bytes, so that values arrive exactly as they would over a real broker.
        body = self.encoded(message)
        self.border.before_publish(message, EAGER_URL)
        self.border.run(body)
        return None

    def pending_tasks(self, queue: str) -> list[Signature]:
        """Nothing ever waits here."""
        return []

    def delayed_tasks(self) -> list[Signature]:
        """Nothing ever waits here."""
        return []


class Transport(memory.Transport):  # type: ignore[misc]
    """Kombu transport for the broker ``eager``."""

    Channel = Channel

    can_parse_url = True
    global_state = virtual.BrokerState()
