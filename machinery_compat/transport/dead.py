"""The messages that nobody could run: what is kept in ``<queue>:dead``, and the way back from there.

An entry is a JSON object, see :func:`machinery_compat.transport.payloads.dead_letter`. Entries are
numbered from 1, the oldest first. A channel that keeps them implements :class:`DeadLetters`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from machinery_compat import errors
from machinery_compat.transport import payloads
from machinery_compat.wire import Signature

__all__ = ["DeadEntry", "DeadLetters", "Requeued"]

#: The reason of an entry that this package has not written.
UNKNOWN = "not known: this entry was not written by machinery_compat"


@dataclass(frozen=True)
class DeadEntry:
    """A message that is kept because nobody could run it.

    Attributes:
        number: its place, from 1.
        queue: where it came from.
        reason: why it is kept.
        body: the message, byte for byte as it was taken, with one trailing blank for each redelivery.
        time: when it was put here (RFC 3339, UTC); None when that is not known.
        entry: the bytes that are kept.
    """

    number: int
    queue: str
    reason: str
    body: bytes
    time: str | None = None
    entry: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, number: int, entry: bytes, queue: str) -> DeadEntry:
        """Reads what is kept; what is no entry of this package is a message without a reason."""
        try:
            document = json.loads(entry)
            hexadecimal = document.get("body_hex")
            body = document["body"].encode() if hexadecimal is None else bytes.fromhex(hexadecimal)
            time = document.get("time")
            return cls(
                number,
                str(document.get("queue") or queue),
                str(document["reason"]),
                body,
                time if isinstance(time, str) else None,
                entry,
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return cls(number, queue, UNKNOWN, entry, None, entry)

    @property
    def signature(self) -> Signature | None:
        """The Signature in the message; None when it holds none."""
        try:
            return payloads.decode(self.body)
        except errors.DecodeError:
            return None

    @property
    def deliveries(self) -> int:
        """How often it had been put back into its queue."""
        return len(self.body) - len(self.body.rstrip(b" "))

    @property
    def fresh(self) -> bytes:
        """The message without the count of its redeliveries."""
        return self.body.rstrip(b" ")


@dataclass(frozen=True)
class Requeued:
    """What became of a request to put entries back.

    Attributes:
        moved: the entries that are in their queue again.
        unreadable: those that no worker could read, and which were left where they are.
        gone: those that somebody else had taken meanwhile.
    """

    moved: list[DeadEntry] = field(default_factory=list)
    unreadable: list[DeadEntry] = field(default_factory=list)
    gone: list[DeadEntry] = field(default_factory=list)


class DeadLetters:
    """What a channel does with dead messages; mixed into the channels that keep them."""

    def dead_entries(self, queue: str) -> Iterator[DeadEntry]:
        """The dead messages of a queue, the oldest first."""
        raise NotImplementedError

    def requeue_dead(self, queue: str, numbers: Collection[int] | None = None, force: bool = False) -> Requeued:
        """Puts dead messages back into their queue, with a fresh count of redeliveries and the state PENDING.

        Args:
            queue: the queue.
            numbers: which ones; None means all.
            force: also what is no Signature, which the next worker will only bury again (and Go's may stop at).

        Raises:
            MachineryError: there is no such number.
        """
        raise NotImplementedError

    def purge_dead(self, queue: str, numbers: Collection[int] | None = None) -> int:
        """Deletes dead messages.

        Args:
            queue: the queue.
            numbers: which ones; None means all.

        Returns:
            how many.

        Raises:
            MachineryError: there is no such number.
        """
        raise NotImplementedError


def chosen(
    entries: Iterable[DeadEntry], numbers: Collection[int] | None, queue: str, name: str = ""
) -> list[DeadEntry]:
    """The entries of some numbers, in their order.

    Args:
        entries: all entries.
        numbers: which ones; None means all.
        queue: the queue that they come from.
        name: where they are, if not in ``<queue>:dead``.

    Raises:
        MachineryError: there is no such number.
    """
    if numbers is None:
        return list(entries)
    wanted, count, found = set(numbers), 0, []
    for entry in entries:
        count = entry.number
        if count in wanted:
            found.append(entry)
    missing = sorted(wanted - {entry.number for entry in found})
    if missing:
        held = f"it holds 1 to {count}" if count else "it is empty"
        raise errors.MachineryError(
            f"{name or payloads.dead_queue(queue)} has no number {', '.join(map(str, missing))}: {held}; list it again"
        )
    return found
