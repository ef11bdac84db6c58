"""Dead messages on AMQP: the durable queue ``<queue>:dead``.

A queue can only be read by taking from it. What is only looked at is given back, to its old place,
when the channel that took it is closed; until then nobody else sees it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Any

import amqp

from machinery_compat import errors
from machinery_compat.transport import border, dead, payloads
from machinery_compat.transport.amqp_message import amqp_message
from machinery_compat.wire import Signature

__all__ = ["AMQPDeadLetters"]


class AMQPDeadLetters(dead.DeadLetters):
    """Mixed into the AMQP channel."""

    border: border.Border
    connection: Any

    def dead_entries(self, queue: str) -> Iterator[dead.DeadEntry]:
        with closing(self._reader()) as channel:
            for entry, _ in self._taken(channel, queue):
                yield entry

    def requeue_dead(self, queue: str, numbers: Collection[int] | None = None, force: bool = False) -> dead.Requeued:
        outcome = dead.Requeued()
        with closing(self._reader()) as channel:
            tags = dict(self._taken(channel, queue))
            wanted = dead.chosen(tags, numbers, queue)
            if wanted:
                self._require_queue(queue)
            for entry in wanted:
                signature = entry.signature
                if signature is None and not force:
                    outcome.unreadable.append(entry)
                    continue
                if signature is not None:
                    self.border.before_publish(signature, "amqp://")
                # Confirmed before the entry is settled: a crash between the two leaves both, never neither.
                self._publish_confirmed(channel, signature, entry.fresh, queue)
                channel.basic_ack(tags[entry])
                outcome.moved.append(entry)
        return outcome

    def purge_dead(self, queue: str, numbers: Collection[int] | None = None) -> int:
        with closing(self._reader()) as channel:
            tags = dict(self._taken(channel, queue))
            wanted = dead.chosen(tags, numbers, queue)
            for entry in wanted:
                channel.basic_ack(tags[entry])
        return len(wanted)

    def _reader(self) -> Any:
        return self.connection.channel()

    def _taken(self, channel: Any, queue: str) -> Iterator[tuple[dead.DeadEntry, int]]:
        name = payloads.dead_queue(queue)
        try:
            count = channel.queue_declare(queue=name, passive=True).message_count
        except amqp.NotFound:
            return
        for number in range(1, count + 1):
            message = channel.basic_get(name)
            if message is None:
                return
            body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
            yield dead.DeadEntry.parse(number, body, queue), message.delivery_tag

    def _require_queue(self, queue: str) -> None:
        """The server drops what is sent to a queue that is not there, and confirms it."""
        with closing(self._reader()) as channel:
            try:
                channel.queue_declare(queue=queue, passive=True)
            except amqp.NotFound:
                raise errors.MachineryError(
                    f"there is no queue {queue} on this broker; start a worker of it first, then requeue"
                ) from None

    def _publish_confirmed(self, channel: Any, signature: Signature | None, body: bytes, queue: str) -> None:
        if signature is None:
            message = amqp.Message(body, content_type="application/json", delivery_mode=2)
        else:
            message = amqp_message(signature, body)
        channel.publish_confirmed(message, exchange="", routing_key=queue, mandatory=True)
