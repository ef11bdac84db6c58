"""The messages that SQS delivers, and what becomes of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from kombu.transport import virtual

from machinery_compat import errors
from machinery_compat.transport import base
from machinery_compat.transport.keeping import KeepingQoS
from machinery_compat.transport.sqs_client import Unavailable
from machinery_compat.transport.sqs_receiver import Received
from machinery_compat.wire import Signature

if TYPE_CHECKING:
    from machinery_compat.transport.sqs import Channel

__all__ = ["Delivery", "Message", "QoS", "body_text", "deduplication_id"]

#: The longest MessageDeduplicationId.
LONGEST_ID = 128
#: The longest time for which an unknown task is hidden, in seconds.
LONGEST_PARK = 30
#: An unknown task is hidden for a second more each time it has been handed out so often.
PARK_STEP = 4


class Delivery(NamedTuple):
    """A Signature on its way to a task."""

    signature: Signature
    received: Received


class Message(base.TaskPayload, virtual.Message):  # type: ignore[misc]
    """A Kombu message made of a Signature (or, on Kombu's own queues, of Kombu's envelope)."""

    channel: Channel
    received: Received | None = None
    #: Whether its task has failed and asks that SQS keeps it.
    keeps = False

    def __init__(self, payload: Delivery | Mapping[str, Any], channel: Any = None, **kwargs: Any) -> None:
        if not isinstance(payload, Delivery):
            super().__init__(payload, channel=channel, **kwargs)
            return
        self.received = received = payload.received
        self.signature = signature = payload.signature
        self.raw_body = received.body
        signature.sqs_receipt_handle = received.held.handle
        # The task sees what Go's does, and the count of its redeliveries.
        told = base.redelivered(signature.encode(), base.deliveries(received.body))
        fields = self.celery_fields(signature, told)
        fields["properties"]["delivery_info"] = {
            "exchange": "",
            "routing_key": received.queue,
            "redelivered": received.count > 1 or base.was_run(received.body),
        }
        virtual.base.base.Message.__init__(
            self,
            channel=channel,
            delivery_tag=str(uuid4()),
            delivery_info=fields["properties"]["delivery_info"],
            **fields,
        )
        self._decoded_cache = fields["body"]

    def task_failed(self) -> None:
        self.keeps = self.signature is not None and self.signature.stop_task_deletion_on_error

    def is_ours(self) -> bool:
        return self.received is None or (self.channel.qos.holds(self.delivery_tag) and self.received.held.is_hidden())

    def hand_back(self) -> None:
        self.channel.parked()
        self._give_back(0)

    def park(self, seconds: float) -> None:
        assert self.received is not None
        self.channel.parked()
        longest = min(self.received.count // PARK_STEP, LONGEST_PARK)
        self._give_back(max(-int(-seconds // 1), longest))

    def redeliver(self) -> None:
        assert self.received is not None
        try:
            self.channel.send_copy(self.received, base.redelivered(self.raw_body))
        except (Unavailable, errors.MachineryError) as exc:
            base.logger.warning("a message goes back uncounted: %s", exc)
            self._give_back(0)
            return
        self._settle()

    def bury(self, reason: str) -> None:
        assert self.received is not None
        if self.channel.bury(self.received, reason):
            self._settle()
        else:
            self.channel.custody.forget(self.received.held)
            self._forget()

    def adopt(self, again: Received) -> None:
        """Goes on with another receipt of the same message, which others could see meanwhile."""
        assert self.received is not None
        self.channel.custody.forget(self.received.held)
        self.received = again

    def _give_back(self, seconds: int) -> None:
        assert self.received is not None
        self.channel.custody.release(self.received.held, seconds)
        self._forget()

    def _settle(self) -> None:
        assert self.received is not None
        self.channel.custody.delete(self.received.held)
        self._forget()

    def _forget(self) -> None:
        self.channel.qos.release(self.delivery_tag)
        self._state = "REQUEUED"


class QoS(KeepingQoS):
    """Deletes acknowledged messages, or gives them back."""

    channel: Channel

    def ack(self, delivery_tag: str) -> None:
        message = self._delivered.get(delivery_tag)
        if message is not None and message.received and delivery_tag not in self._dirty:
            if message.keeps:
                # It comes again when its time is over, or goes where the queue's redrive policy says.
                self.channel.custody.forget(message.received.held)
            else:
                self.channel.custody.delete(message.received.held)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        message = self._delivered.get(delivery_tag)
        if message is None or delivery_tag in self._dirty:
            return
        if not message.received:
            super().reject(delivery_tag, requeue=requeue)
        elif not requeue:
            self.ack(delivery_tag)
        else:
            self.give_back(message)
            self.release(delivery_tag)

    def give_back(self, message: Message) -> None:
        if not message.received:
            return
        held = message.received.held
        if held.is_hidden():
            self.channel.custody.release(held)
        else:
            # Somebody else may have received it, from whom it must not be taken.
            self.channel.custody.forget(held)

    def release(self, delivery_tag: str) -> None:
        """Forgets a message that has been settled; one that was never delivered takes no place."""
        if delivery_tag in self._delivered:
            super().ack(delivery_tag)

    def holds(self, delivery_tag: str) -> bool:
        """Whether a message has been delivered and neither settled nor given back since."""
        return delivery_tag in self._delivered and delivery_tag not in self._dirty


def deduplication_id(signature: Signature) -> str:
    """What tells SQS that a message to a FIFO queue is the same one, sent twice.

    The task's UUID, as in Go. A retry has the UUID too, and SQS would drop it for five minutes;
    it also carries the receipt handle of the run before, which no other run has.
    """
    made = signature.uuid
    if signature.sqs_receipt_handle:
        made = f"{made}-{hashlib.sha256(signature.sqs_receipt_handle.encode()).hexdigest()[:16]}"
    return made if len(made) <= LONGEST_ID else hashlib.sha256(made.encode()).hexdigest()


def body_text(body: bytes) -> str:
    """A Signature's JSON as SQS takes it, which refuses two characters that JSON can also spell otherwise."""
    return body.decode("utf-8").replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
