"""Sending tasks, groups and chords; mirrors the sending half of Go's Server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from typing import Any

from machinery_compat import sending
from machinery_compat.transport.base import SERIALIZER
from machinery_compat.transport.reconnect import Unconfirmed
from machinery_compat.wire import Chain, Chord, Group, GroupMeta, Signature, new_task_uuid, now_text, outgoing

__all__ = ["Dispatch"]

#: How many tasks of a group go to the broker at once.
GROUP_BATCH = 500


class Dispatch:
    """Sends what an application calls.

    Args:
        app: the Celery application.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    def send(self, signature: Signature) -> Signature:
        """Sends a Signature, its PENDING state first; mirrors Go's SendTask.

        Raises:
            EncodeError: it cannot be sent, or would hurt a Go worker.
            kombu.exceptions.OperationalError: the broker or the result backend cannot be reached.
        """
        outgoing.check(signature)
        return self._send(signature)

    def send_chain(self, chain: Chain) -> None:
        """Sends the first task of a chain, which carries the others; mirrors Go's SendChain."""
        self.send(chain.tasks[0])

    def send_group(self, group: Group, progress: Callable[[int, int], None] | None = None) -> None:
        """Sends a group: its document and all PENDING states first, then the tasks; mirrors Go's SendGroup.

        Args:
            group: the group.
            progress: called with the number of tasks sent and their total.

        Raises:
            EncodeError: a member cannot be sent; then none is.
            kombu.exceptions.OperationalError: the broker or the result backend cannot be reached.
        """
        for signature in group.tasks:
            outgoing.check(signature)
            _complete(signature)
        backend = self.app.backend
        document = GroupMeta(group_uuid=group.group_uuid, task_uuids=group.get_uuids(), created_at=now_text())
        with sending.naming(backend):
            backend.begin_group(document)
            backend.put_pending(group.tasks)
        with self.app.machinery.border.states_written(), self.app.producer_or_acquire() as producer:
            sent = count(1)

            def publish(signature: Signature, retry: bool = True, declare: bool = True) -> None:
                self._publish(producer, signature, retry, declare)
                if progress is not None:
                    progress(next(sent), len(group.tasks))

            firsts: dict[str, Signature] = {}
            for signature in group.tasks:
                firsts.setdefault(signature.routing_key, signature)
            rest = [signature for signature in group.tasks if firsts[signature.routing_key] is not signature]
            # The first one for each queue connects and declares, if need be more than once.
            for signature in firsts.values():
                publish(signature)
            batches = producer.supports_batch_publish
            for start in range(0, len(rest), GROUP_BATCH):
                try:
                    with producer.batch(max_size=GROUP_BATCH) if batches else nullcontext():
                        for signature in rest[start : start + GROUP_BATCH]:
                            publish(signature, retry=not batches, declare=not batches)
                except Unconfirmed as exc:
                    for signature in exc.signatures:
                        self._publish(producer, signature, retry=True)

    def send_chord(self, chord: Chord, progress: Callable[[int, int], None] | None = None) -> None:
        """Sends a chord's group; each member carries the callback; mirrors Go's SendChord."""
        for callback in (chord.callback, *(member.chord_callback for member in chord.group.tasks)):
            if callback is not None and callback.headers is None:
                callback.headers = {}
        self.app.backend.watch_chord(chord.group.group_uuid, chord.callback)
        self.send_group(chord.group, progress)

    def _send(self, signature: Signature) -> Signature:
        _complete(signature)
        with self.app.producer_or_acquire() as producer:
            self._publish(producer, signature, retry=self.app.conf.task_publish_retry)
        return signature

    def _publish(self, producer: Any, signature: Signature, retry: bool, declare: bool = True) -> None:
        queue = self.app.machinery.border.queue_for(signature.routing_key)
        producer.publish(
            signature,
            serializer=SERIALIZER,
            exchange=queue.exchange if queue else self.app.amqp.default_exchange,
            routing_key=queue.routing_key if queue else signature.routing_key,
            declare=[queue or self.app.amqp.default_exchange] if declare else (),
            delivery_mode=2,
            retry=retry,
            retry_policy=dict(self.app.conf.task_publish_retry_policy),
        )


def _complete(signature: Signature) -> None:
    """Fills what Go's SendTask fills."""
    signature.uuid = signature.uuid or new_task_uuid()
    if signature.headers is None:
        signature.headers = {}
