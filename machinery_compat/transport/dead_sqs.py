"""Dead messages on SQS: the queue ``<queue>-dead`` (of a FIFO queue: ``<name>-fifo-dead``), made when it is needed.

An entry is the message as it was; why it is kept is in its message attributes, since SQS has no room
for both in the body. A queue can only be read by receiving from it: what is looked at is given back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from machinery_compat import errors
from machinery_compat.transport import base, border, dead, payloads, sqs_client
from machinery_compat.transport.sqs_client import Unavailable, asking
from machinery_compat.transport.sqs_receiver import Received, receive
from machinery_compat.wire import now_text

if TYPE_CHECKING:
    from machinery_compat.transport.sqs_queues import Queues

__all__ = ["SQSDeadLetters"]

#: Seconds for which nobody else sees a dead message that is being looked at.
LOOK_TIME = 60
#: Longest reason that is kept, in characters.
REASON = 2_000
#: How often nothing must come before a queue is taken for empty; SQS asks only some of its servers each time.
EMPTY_LOOKS = 2


class SQSDeadLetters(dead.DeadLetters):
    """Mixed into the SQS channel."""

    border: border.Border
    client: Any

    if TYPE_CHECKING:
        addresses: Queues
        connection: Any
        max_message_size: int

    def bury(self, received: Received, reason: str) -> bool:
        """Keeps a copy of a message that nobody can run, with the reason; False when that cannot be done now."""
        name = sqs_client.dead_queue(received.queue)
        payloads.log_buried(received.body, reason, name)
        attributes = {
            "reason": _clean(reason)[:REASON] or "unknown",
            "queue": received.queue,
            "time": now_text(),
        }
        told: dict[str, Any] = {key: {"DataType": "String", "StringValue": value} for key, value in attributes.items()}
        size = len(received.body) + sum(len(key) + len(value.encode()) + 6 for key, value in attributes.items())
        if size > self.max_message_size:
            # The log has said why.
            told = {}
        try:
            url = self.addresses.url(self.addresses.own(name))
            with asking(url):
                self.client.send_message(
                    QueueUrl=url, MessageBody=received.body.decode("utf-8"), MessageAttributes=told
                )
        except (Unavailable, errors.MachineryError) as exc:
            base.logger.error("a message cannot be kept in %s, and stays in %s: %s", name, received.queue, exc)
            return False
        return True

    def dead_entries(self, queue: str) -> Iterator[dead.DeadEntry]:
        taken = self._taken(queue)
        try:
            yield from taken
        finally:
            self._give_back(taken.values())

    def requeue_dead(self, queue: str, numbers: Collection[int] | None = None, force: bool = False) -> dead.Requeued:
        outcome = dead.Requeued()
        taken = self._taken(queue)
        try:
            for entry in dead.chosen(taken, numbers, queue, sqs_client.dead_queue(queue)):
                signature = entry.signature
                if signature is None and not force:
                    outcome.unreadable.append(entry)
                    continue
                url = self.addresses.url(queue)
                options: dict[str, Any] = {"QueueUrl": url, "MessageBody": entry.fresh.decode("utf-8")}
                if sqs_client.is_fifo(queue):
                    # Within five minutes SQS would drop what has the first sending's id.
                    group = signature.broker_message_group_id if signature is not None else ""
                    options.update(MessageGroupId=group or "requeued", MessageDeduplicationId=uuid4().hex)
                if signature is not None:
                    self.border.before_publish(signature, self.connection.base_url)
                # Sent before it is deleted: a crash between the two leaves both, never neither.
                with asking(url):
                    self.client.send_message(**options)
                self._delete(taken.pop(entry))
                outcome.moved.append(entry)
        finally:
            self._give_back(taken.values())
        return outcome

    def purge_dead(self, queue: str, numbers: Collection[int] | None = None) -> int:
        taken = self._taken(queue)
        try:
            wanted = dead.chosen(taken, numbers, queue, sqs_client.dead_queue(queue))
            for entry in wanted:
                self._delete(taken.pop(entry))
        finally:
            self._give_back(taken.values())
        return len(wanted)

    def _taken(self, queue: str) -> dict[dead.DeadEntry, Received]:
        """The dead messages of a queue, the oldest first; nobody else sees them for a minute."""
        name = sqs_client.dead_queue(queue)
        if not self.addresses.exists(name):
            return {}
        found: dict[str, Received] = {}
        empty = 0
        while empty < EMPTY_LOOKS:
            page = receive(self.client, name, self.addresses.url(name), 10, 1 if not found else 0, LOOK_TIME)
            new = [one for one in page if one.id not in found]
            found.update((one.id, one) for one in new)
            empty = 0 if new else empty + 1
        ordered = sorted(found.values(), key=lambda one: (one.sent, one.id))
        return {_entry(number, one, queue): one for number, one in enumerate(ordered, 1)}

    def _give_back(self, taken: Collection[Received]) -> None:
        for received in taken:
            with asking(received.held.url):
                self.client.change_message_visibility(
                    QueueUrl=received.held.url, ReceiptHandle=received.held.handle, VisibilityTimeout=0
                )

    def _delete(self, received: Received) -> None:
        with asking(received.held.url):
            self.client.delete_message(QueueUrl=received.held.url, ReceiptHandle=received.held.handle)


def _entry(number: int, received: Received, queue: str) -> dead.DeadEntry:
    told = received.attributes
    reason = told.get("reason", dead.UNKNOWN)
    return dead.DeadEntry(
        number, told.get("queue", queue), reason, received.body, told.get("time"), f"{received.id}".encode()
    )


def _clean(text: str) -> str:
    """A text without what SQS refuses in one."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)
