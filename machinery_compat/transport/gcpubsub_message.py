"""The messages that a worker has taken from Pub/Sub, and how they are settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kombu.transport import virtual

from machinery_compat.gcpubsub_client import FAILURES
from machinery_compat.transport import base
from machinery_compat.transport.gcpubsub_inbox import Arrived
from machinery_compat.transport.gcpubsub_keeper import Held
from machinery_compat.transport.keeping import KeepingQoS

if TYPE_CHECKING:
    from machinery_compat.transport.gcpubsub import Channel

__all__ = ["HoldingQoS", "TaskMessage"]


class TaskMessage(base.TaskPayload, virtual.Message):  # type: ignore[misc]
    """A Kombu message made of a Signature."""

    channel: Channel

    def __init__(self, payload: Arrived, channel: Any = None, **kwargs: Any) -> None:
        assert payload.signature is not None
        self.arrived = payload
        self.signature = payload.signature
        self.raw_body = payload.body
        fields = self.celery_fields(payload.signature, payload.body)
        fields["properties"]["delivery_info"] = {
            "exchange": "",
            "routing_key": payload.queue,
            "redelivered": base.was_run(payload.body),
        }
        virtual.base.base.Message.__init__(
            self,
            channel=channel,
            delivery_tag=str(uuid4()),
            delivery_info=fields["properties"]["delivery_info"],
            **fields,
        )
        self._decoded_cache = fields["body"]

    def is_ours(self) -> bool:
        return self.channel.keeper.holds(self.arrived.held)

    def adopt(self, again: Arrived) -> None:
        """Goes on as another delivery of the same message, which Pub/Sub has given to this worker twice."""
        before, self.arrived = self.arrived, again
        self.channel.keeper.forget(before.held)

    def bury(self, reason: str) -> None:
        self.channel.bury(self.arrived, reason)
        self._forget()

    def hand_back(self) -> None:
        self.channel.keeper.give_back(self.arrived.held)
        self._forget()

    def park(self, seconds: float) -> None:
        # A deadline is in whole seconds, and 0 is now.
        self.channel.keeper.give_back(self.arrived.held, max(1, round(seconds)))
        self._forget()

    def redeliver(self) -> None:
        """Sends a counted copy in the message's place; Pub/Sub itself does not count."""
        self.replace(base.redelivered(self.raw_body))

    def replace(self, body: bytes) -> None:
        """Sends another body in the message's place."""
        channel, arrived = self.channel, self.arrived
        try:
            channel.clients.get().publish(arrived.queue, body)
        except FAILURES as exc:
            base.logger.warning("a message goes back as it is: %s", exc)
            self.hand_back()
            return
        channel.keeper.settle(arrived.held)
        self._forget()

    def _forget(self) -> None:
        self.channel.qos.release(self.delivery_tag)
        self._state = "REQUEUED"


class HoldingQoS(KeepingQoS):
    """Settles what this worker holds."""

    channel: Channel

    def ack(self, delivery_tag: str) -> None:
        message = self._delivered.get(delivery_tag)
        if message is not None:
            self.channel.keeper.settle(message.arrived.held)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        message = self._delivered.get(delivery_tag)
        if message is not None and requeue and message.raw_body != message.arrived.body:
            message.replace(message.raw_body)
        elif message is not None and requeue:
            self.give_back(message)
            self.release(delivery_tag)
        elif message is not None:
            self.ack(delivery_tag)

    def release(self, delivery_tag: str) -> None:
        """Forgets a message that is dealt with."""
        super().ack(delivery_tag)

    def still_held(self) -> list[Held]:
        """What stays held when the channel is closed."""
        self._flush()
        return [message.arrived.held for tag, message in self._delivered.items() if tag in self.kept]

    def give_back(self, message: TaskMessage) -> None:
        self.channel.keeper.give_back(message.arrived.held)
