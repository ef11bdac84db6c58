"""The SQS channel: delivers what its threads receive."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar

from kombu.transport import memory, virtual
from kombu.transport.base import to_rabbitmq_queue_arguments

from machinery_compat import errors
from machinery_compat.transport import base, border, payloads, sqs_client
from machinery_compat.transport.dead_sqs import SQSDeadLetters
from machinery_compat.transport.redelivery import Fate, fate_of
from machinery_compat.transport.sqs_bell import Bell
from machinery_compat.transport.sqs_client import asking
from machinery_compat.transport.sqs_custody import Custody
from machinery_compat.transport.sqs_delayed import Mover
from machinery_compat.transport.sqs_message import Delivery, Message, QoS
from machinery_compat.transport.sqs_publishing import Publishing
from machinery_compat.transport.sqs_queues import Queues
from machinery_compat.transport.sqs_receiver import Received, Receiver, receive
from machinery_compat.wire import FAILURE, Signature

__all__ = ["Channel"]

#: How long one receive waits where nobody says it, in seconds; a worker waits for it when it ends.
DEFAULT_WAIT = 5
#: The largest message of SQS, in bytes.
LARGEST_MESSAGE = 262_144
#: After nothing but unknown tasks has come, others ask first: for how many seconds at least and at most.
STAND_BACK = (0.1, 1.1)
NOT_LISTED = "SQS cannot list the tasks of a queue (Go: Not implemented)"


class Channel(SQSDeadLetters, Publishing, memory.Channel):  # type: ignore[misc]
    """An SQS channel whose task messages are Signatures."""

    QoS = QoS
    Message = Message

    #: Of Kombu's own messages, by queue.
    queues: ClassVar[dict[str, Any]] = {}
    supports_fanout = False
    region = ""
    wait_time_seconds: int | None = None
    visibility_timeout: int | None = None
    max_message_size = LARGEST_MESSAGE
    from_transport_options = (
        *virtual.Channel.from_transport_options,
        "region",
        "wait_time_seconds",
        "visibility_timeout",
        "max_message_size",
    )

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self.border = border.border_of(connection.client.transport_options)
        self.kombu_queues: set[str] = set()
        self.receivers: dict[str, Receiver] = {}
        self._leaving: list[threading.Thread] = []
        self._arrived: deque[tuple[str, Received]] = deque()
        self._undelivered: deque[Delivery] = deque()
        self._mover: Mover | None = None
        #: How many unknown tasks have gone back to their queues.
        self._parked = 0
        self._ask_after = 0.0
        self.bell: Bell = connection.bell
        super().__init__(connection, **kwargs)
        self.client = sqs_client.client_for(connection.base_url, self.border.sqs.client, self.region)
        configured = self.border.sqs.receive_visibility_timeout
        visibility = configured if self.visibility_timeout is None else self.visibility_timeout
        self.addresses = Queues(self.client, connection.base_url, visibility)
        self.wait = int(self.wait_time_seconds or self.border.sqs.receive_wait_time_seconds or DEFAULT_WAIT)
        self.custody = Custody(self.client)

    # -- declaring

    def is_task_queue(self, queue: str) -> bool:
        return queue not in self.kombu_queues and queue not in self.queues

    def prepare_queue_arguments(self, arguments: dict[str, Any] | None, **kwargs: Any) -> Any:
        # By these it is told what Celery declares for itself.
        return to_rabbitmq_queue_arguments(arguments, **kwargs)

    def _new_queue(self, queue: str, auto_delete: bool = False, **kwargs: Any) -> None:
        self.note_queue(queue, auto_delete, kwargs.get("arguments"))
        if not self.is_task_queue(queue):
            super()._new_queue(queue, auto_delete=auto_delete, **kwargs)

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        if self.is_task_queue(queue):
            raise errors.EncodeError(f"only tasks can be sent to SQS, and this message to {queue} is none")
        super()._put(queue, message, **kwargs)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return bool(self.is_task_queue(queue) or super()._has_queue(queue, **kwargs))

    def _size(self, queue: str) -> int:
        return self.addresses.size(queue) if self.is_task_queue(queue) else int(super()._size(queue))

    def _purge(self, queue: str) -> int:
        if not self.is_task_queue(queue):
            return int(super()._purge(queue))
        size, url = self.addresses.size(queue), self.addresses.url(queue)
        with asking(url):
            self.client.purge_queue(QueueUrl=url)
        return size

    # -- consuming

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        if self.is_task_queue(queue) and queue not in self.receivers:
            self.require_application()
            # Here, where it can be told; a thread could only log it.
            self.addresses.hidden(queue)
            self.receivers[queue] = receiver = Receiver(self._take, queue, self._on_arrival)
            receiver.start()
            if self._mover is None:
                self._mover = Mover(self)
                self._mover.start()
        return super().basic_consume(queue, no_ack=no_ack, callback=callback, consumer_tag=consumer_tag, **kwargs)

    def basic_cancel(self, consumer_tag: str) -> Any:
        receiver = self.receivers.pop(self._tag_to_queue.get(consumer_tag, ""), None)
        if receiver is not None:
            receiver.stop()
            self._leaving.append(receiver)
        return super().basic_cancel(consumer_tag)

    def _take(self, queue: str, count: int, wait: int | None = None) -> list[Received]:
        seconds, explicit = self.addresses.hidden(queue), self.addresses.visibility is not None
        wait = self.wait if wait is None else wait
        found = receive(self.client, queue, self.addresses.url(queue), count, wait, seconds, explicit)
        for received in found:
            self.custody.take(received.held)
        return found

    def _on_arrival(self, receiver: Receiver, found: list[Received]) -> None:
        """Called in the thread of a receiver."""
        if receiver.stopped.is_set():
            for received in found:
                self.custody.release(received.held)
            return
        self._arrived.extend((receiver.queue, received) for received in found)
        receiver.asked = 0
        self.bell.ring()

    def ask(self) -> None:
        """Lets the receivers that do nothing ask for as many messages as there is room for."""
        idle = [receiver for receiver in self.receivers.values() if not receiver.asked]
        if not idle or self._arrived or time.monotonic() < self._ask_after or not self._may_ask():
            return
        room = self.qos.can_consume_max_estimate()
        left = sum(one.most for one in idle) if room is None else room
        left -= sum(receiver.asked for receiver in self.receivers.values())
        for number, receiver in enumerate(idle):
            count = min(receiver.most, max(math.ceil(left / (len(idle) - number)), 1))
            receiver.ask(count)
            left -= count

    def _may_ask(self) -> bool:
        asked = self.border.pre_consume
        return self.qos.can_consume() and (asked is None or asked())

    def deliver(self) -> bool:
        """Delivers what has arrived; what is no Signature goes to the dead queue. Returns whether there was any."""
        arrived: list[Delivery] = []
        some = bool(self._arrived)
        while self._arrived:
            queue, received = self._arrived.popleft()
            if queue not in self.receivers:
                self.custody.release(received.held)
                continue
            delivery = self._decoded(received)
            if delivery is not None and not self._is_settled(delivery):
                arrived.append(delivery)
        runs = [base.deliveries(one.received.body) for one in arrived]
        if arrived:
            self.border.received([one.signature for one in arrived], runs)
        self._undelivered.extend(arrived)
        parked = self._parked
        # A worker that runs tasks where they are delivered may give the rest back meanwhile.
        while self._undelivered:
            delivery = self._undelivered.popleft()
            self.connection._deliver(delivery, delivery.received.queue)
        if arrived and self._parked - parked == len(arrived):
            self._stand_back()
        return some

    def parked(self) -> None:
        """Told of each unknown task that goes back to its queue."""
        self._parked += 1

    def _stand_back(self) -> None:
        """Asks for nothing for a moment.

        SQS hides messages for whole seconds and calls wait for whole seconds: whoever gives a task back
        would be the first to ask when it can be seen again, each time.
        """
        pause = random.uniform(*STAND_BACK)
        self._ask_after = time.monotonic() + pause
        wake = threading.Timer(pause, self.bell.ring)
        wake.daemon = True
        wake.start()

    def _decoded(self, received: Received) -> Delivery | None:
        try:
            return Delivery(payloads.decode(received.body, self.border.max_body_size), received)
        except errors.DecodeError as exc:
            if self.bury(received, f"Could not unmarshal into a task signature: {exc}"):
                self.custody.delete(received.held)
            else:
                self.custody.forget(received.held)
        return None

    def _is_settled(self, delivery: Delivery) -> bool:
        """Whether a message that was handed out before is dealt with, so that its task need not run now.

        SQS counts how often it has handed a message out, and not why it came back.
        """
        signature, received = delivery
        if received.count < 2:
            return False
        running = self.border.running(signature.uuid)
        ours = running.received if isinstance(running, Message) and running.channel is self else None
        if isinstance(running, Message) and ours is not None and ours.id == received.id:
            # It was visible for a while although its task goes on.
            running.adopt(received)
            return True
        state, run = self.border.progress_of(signature)
        if state == FAILURE and signature.stop_task_deletion_on_error:
            return False
        fate = fate_of(signature, received.body, state, run)
        if fate is Fate.ENDED:
            Message(delivery, self)._settle()
        elif fate is Fate.LOST:
            reason = "its worker was lost, or had it for longer than the queue's visibility timeout"
            Message(delivery, self).lost(reason)
        return fate is not Fate.WAITING

    def give_back_undelivered(self) -> None:
        while self._undelivered:
            self.custody.release(self._undelivered.pop().received.held)
        while self._arrived:
            self.custody.release(self._arrived.pop()[1].held)

    def keep(self, messages: Iterable[base.TaskPayload]) -> None:
        self.qos.kept.update(message.delivery_tag for message in messages)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        if not self.is_task_queue(queue):
            return super()._get(queue, timeout)
        # What is consumed comes from the receivers.
        raise virtual.base.Empty

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        if not self.is_task_queue(queue):
            return super().basic_get(queue, no_ack=no_ack, **kwargs)
        for received in self._take(queue, 1, wait=0):
            delivery = self._decoded(received)
            if delivery is not None:
                message = Message(delivery, channel=self)
                self.qos.append(message, message.delivery_tag)
                if no_ack:
                    message.ack()
                return message
        return None

    def pending_tasks(self, queue: str) -> list[Signature]:
        raise errors.MachineryError(NOT_LISTED)

    def delayed_tasks(self) -> list[Signature]:
        raise errors.MachineryError(NOT_LISTED)

    def close(self) -> None:
        if self.closed:
            return
        for consumer_tag in list(self._consumers):
            self.basic_cancel(consumer_tag)
        self.give_back_undelivered()
        if self._mover is not None:
            self._mover.stopped.set()
            self._leaving.append(self._mover)
        # What an open call still brings must go back at once, too.
        deadline = time.monotonic() + self.wait + 1
        for thread in self._leaving:
            thread.join(max(deadline - time.monotonic(), 0.0))
        super().close()
        self.custody.retire()
