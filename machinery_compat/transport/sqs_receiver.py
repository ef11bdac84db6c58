"""The threads that wait for SQS messages, so that the event loop need not."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from machinery_compat import errors
from machinery_compat.transport.sqs_client import Unavailable, asking, is_fifo
from machinery_compat.transport.sqs_custody import BATCH, Held

__all__ = ["Received", "Receiver", "receive"]

logger = logging.getLogger("machinery_compat.transport")

#: What is asked for with each message.
ATTRIBUTES = ["SentTimestamp", "ApproximateReceiveCount", "MessageGroupId"]
#: Seconds until a queue that could not be asked is asked again: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0


class Received:
    """A message as SQS has handed it out.

    Attributes:
        queue: the name of its queue.
        held: what it is settled by.
        id: what SQS calls it, however often it is handed out.
        body: its text.
        count: how often it has been handed out, to anybody; 1 the first time.
        sent: when it was sent, in Unix ms.
        group: the FIFO group that it belongs to.
        attributes: its message attributes.
    """

    __slots__ = ("attributes", "body", "count", "group", "held", "id", "queue", "sent")

    def __init__(self, queue: str, held: Held, raw: dict[str, Any]) -> None:
        system = raw.get("Attributes", {})
        self.queue = queue
        self.held = held
        self.id = str(raw.get("MessageId", ""))
        self.body: bytes = raw["Body"].encode("utf-8")
        self.count = int(system.get("ApproximateReceiveCount", 1))
        self.sent = int(system.get("SentTimestamp", 0))
        self.group = str(system.get("MessageGroupId", ""))
        told = raw.get("MessageAttributes", {})
        self.attributes = {name: str(value.get("StringValue", "")) for name, value in told.items()}


def receive(
    client: Any, name: str, url: str, count: int, wait: int, hidden: int, explicit: bool = True
) -> list[Received]:
    """Takes messages out of a queue's sight.

    Args:
        client: the boto3 client.
        name: the queue.
        url: its URL.
        count: how many at most, 1 to 10.
        wait: for how many seconds the first is waited for.
        hidden: for how many seconds others do not see them.
        explicit: whether SQS is told that; else it is the queue's own time.

    Raises:
        Unavailable: SQS does not answer now.
        BrokerError: it refuses.
    """
    options = {"VisibilityTimeout": hidden} if explicit else {}
    with asking(url):
        answer = client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=count,
            WaitTimeSeconds=wait,
            AttributeNames=ATTRIBUTES,
            MessageAttributeNames=["All"],
            **options,
        )
    # The answer was on its way for a while.
    until = time.monotonic() + hidden - min(1.0, hidden / 10)
    messages = answer.get("Messages") or ()
    return [Received(name, Held(url, raw["ReceiptHandle"], hidden, until), raw) for raw in messages]


class Receiver(threading.Thread):
    """Receives messages of one queue, each time as many as it is asked for.

    Args:
        take: receives so many messages of a queue.
        name: the queue.
        arrived: called in this thread with what has come.
    """

    def __init__(
        self,
        take: Callable[[str, int], list[Received]],
        name: str,
        arrived: Callable[[Receiver, list[Received]], None],
    ) -> None:
        super().__init__(name=f"machinery-sqs-{name}", daemon=True)
        self.queue = name
        #: The most that one call may take. Messages of one FIFO group must follow each other.
        self.most = 1 if is_fifo(name) else BATCH
        #: How many it has been asked for and not answered yet.
        self.asked = 0
        self.stopped = threading.Event()
        self._take = take
        self._arrived = arrived
        self._requests: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._pause = 0.0

    def ask(self, count: int) -> None:
        """Asks for messages; called by the thread of the event loop, when nothing is asked for."""
        self.asked = count
        self._requests.put(count)

    def stop(self) -> None:
        """Ends when the present call has come back; what it brings is given back."""
        self.stopped.set()
        self._requests.put(0)

    def run(self) -> None:
        while not self.stopped.is_set():
            count = self._requests.get()
            if not count:
                return
            self._arrived(self, self._received(count))

    def _received(self, count: int) -> list[Received]:
        try:
            found = self._take(self.queue, count)
        except (Unavailable, errors.MachineryError) as exc:
            self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
            logger.error("queue %s: nothing can be received, trying again in %g s: %s", self.queue, self._pause, exc)
            self.stopped.wait(self._pause)
        except Exception:
            logger.exception("queue %s: nothing can be received", self.queue)
            self.stopped.wait(LONGEST_PAUSE)
        else:
            self._pause = 0.0
            return found
        return []
