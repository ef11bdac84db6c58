"""Dead messages on Pub/Sub: the topic ``<queue>-dead`` with a subscription of that name.

A colon, as on other brokers, is not allowed in such names. A subscription can only be read by taking from it:
what is only looked at is given back when the iteration has ended, and until then nobody else sees it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from google.api_core import exceptions

from machinery_compat.gcpubsub_client import FAILURES, Clients, Received
from machinery_compat.transport import base, border, dead, payloads

__all__ = ["PubSubDeadLetters", "dead_name"]

#: The most entries that are taken at once.
BATCH = 100
#: Seconds that Pub/Sub is waited for when it has no more.
WAIT = 1.0
#: For how long entries are kept from others while they are looked at, in seconds.
LOOK = 120


def dead_name(queue: str) -> str:
    """The topic, and its subscription, of a queue's dead messages."""
    return f"{queue}-dead"


class PubSubDeadLetters(dead.DeadLetters):
    """Mixed into the Pub/Sub channel."""

    border: border.Border
    clients: Clients
    url: str

    def bury_body(self, body: bytes, reason: str, queue: str) -> bool:
        """Keeps a message that nobody can run, with the reason; whether that could be done."""
        name = dead_name(queue)
        try:
            client = self.clients.get()
            client.make_pair(name)
            client.publish(name, payloads.dead_letter(body, reason, queue))
        except FAILURES as exc:
            base.logger.error(
                "%s: stays in its subscription, since it cannot be kept in %s (%s); it began: %s",
                payloads.one_line(reason, payloads.REASON_SHOWN),
                name,
                exc,
                payloads.shown(body),
            )
            return False
        payloads.log_buried(body, reason, name)
        return True

    def dead_entries(self, queue: str) -> Iterator[dead.DeadEntry]:
        with self._taken(queue) as taken:
            yield from taken

    def requeue_dead(self, queue: str, numbers: Collection[int] | None = None, force: bool = False) -> dead.Requeued:
        outcome = dead.Requeued()
        client = self.clients.get()
        with self._taken(queue) as taken:
            for entry in dead.chosen(list(taken), numbers, queue):
                signature = entry.signature
                if signature is None and not force:
                    outcome.unreadable.append(entry)
                    continue
                if signature is not None:
                    self.border.before_publish(signature, self.url)
                # A crash between the two leaves both, never neither.
                client.publish(queue, entry.fresh)
                client.acknowledge(dead_name(queue), [taken.pop(entry)])
                outcome.moved.append(entry)
        return outcome

    def purge_dead(self, queue: str, numbers: Collection[int] | None = None) -> int:
        with self._taken(queue) as taken:
            wanted = dead.chosen(list(taken), numbers, queue)
            if wanted:
                self.clients.get().acknowledge(dead_name(queue), [taken.pop(entry) for entry in wanted])
        return len(wanted)

    @contextmanager
    def _taken(self, queue: str) -> Iterator[dict[dead.DeadEntry, str]]:
        """All entries by their place, each with its delivery; those that are left in it are given back."""
        client, name = self.clients.get(), dead_name(queue)
        found: dict[str, Received] = {}
        try:
            while page := client.pull(name, BATCH, WAIT):
                client.keep(name, [one.ack_id for one in page], LOOK)
                found.update((one.message_id, one) for one in page)
        except exceptions.NotFound:
            # Nobody has kept anything yet.
            found = {}
        ordered = sorted(found.values(), key=lambda one: one.published)
        taken = {dead.DeadEntry.parse(n, one.body, queue): one.ack_id for n, one in enumerate(ordered, 1)}
        try:
            yield taken
        finally:
            if taken:
                client.keep(name, list(taken.values()), 0)
