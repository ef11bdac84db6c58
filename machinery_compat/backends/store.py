"""What a store of Machinery's documents must do, and what follows from that for groups."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from kombu.utils import json as kombu_json

from machinery_compat import errors
from machinery_compat.wire import FAILURE, PENDING, RECEIVED, RETRY, STARTED, SUCCESS, GroupMeta, Signature, TaskState

__all__ = ["STATES", "Store", "Watched", "grown"]

STATES = frozenset({PENDING, RECEIVED, STARTED, RETRY, SUCCESS, FAILURE})


class Watched(NamedTuple):
    """A chord whose callback may have to be sent by the watchdog."""

    group_uuid: str
    #: The callback as its members carry it, without results.
    callback: bytes
    #: Whether a Python worker has begun to send it.
    began: bool
    #: Whether the watchdog has found it flagged and not sent before.
    suspected: bool


class Store:
    """TaskStates and GroupMetas under their UUIDs; a backend implements what raises here."""

    # -- documents

    def decode_state(self, uuid: str, data: bytes) -> TaskState:
        """The TaskState in a document.

        Raises:
            BackendError: there is none; whoever waits for the task would wait for ever.
        """
        try:
            document = TaskState.decode(data)
        except errors.DecodeError as exc:
            raise errors.BackendError(f"the document under {uuid} is no TaskState: {exc}") from exc
        if document.state not in STATES:
            raise errors.BackendError(f"the document under {uuid} is no TaskState: its State is {document.state!r}")
        return document

    def decode_group(self, uuid: str, data: bytes) -> GroupMeta:
        """The GroupMeta in a document.

        Raises:
            BackendError: there is none.
        """
        try:
            return GroupMeta.decode(data)
        except errors.DecodeError as exc:
            raise errors.BackendError(f"the document under {uuid} is no GroupMeta: {exc}") from exc

    def task_state(self, uuid: str) -> TaskState | None:
        """A task's state document, or None."""
        return self.task_states([uuid])[0]

    def task_states(self, uuids: Sequence[str]) -> list[TaskState | None]:
        """The state documents of several tasks, in their order; None where there is none."""
        raise NotImplementedError

    def check_waitable(self, uuid: str) -> None:
        """Refuses a wait without a timeout for what can never come.

        Raises:
            BackendError: this backend keeps no results.
        """

    def check_uuid(self, uuid: str) -> None:
        """Refuses the UUID of a task or group that this store cannot keep anything under.

        Raises:
            BackendError: it is one.
        """

    def put_state(self, state: TaskState, server: str = "", command: Any = None) -> None:
        """Writes a state document over whatever is there."""
        raise NotImplementedError

    def update_states(self, states: Sequence[TaskState], only_over: str = "", run: int | None = None) -> Sequence[bool]:
        """Writes states, each keeping its task's name and time of creation.

        RECEIVED is not written over a task's end, see :mod:`machinery_compat.backends.fence`.

        Args:
            states: the documents.
            only_over: write only where this is the present state.
            run: which run of the task writes them, 0 for the first: what a later one has written
                stays (see :mod:`machinery_compat.backends.fence`). None writes over any.

        Returns:
            whether each was written.
        """
        raise NotImplementedError

    def group_meta(self, uuid: str) -> GroupMeta | None:
        """A group's document, or None."""
        raise NotImplementedError

    def put_group(self, meta: GroupMeta) -> None:
        """Writes a group's document."""
        raise NotImplementedError

    def begin_group(self, meta: GroupMeta) -> None:
        """Writes the document of a group that is about to be sent, for the first time or, if it was frozen, again."""
        self.put_group(meta)

    def group_lock(self) -> AbstractContextManager[Any]:
        """While this lasts, nobody else changes the document of a group."""
        raise NotImplementedError

    def trigger_chord(self, uuid: str) -> bool:
        """Marks a group's chord as triggered; True for the one caller that did.

        Raises:
            BackendError: the group is missing.
        """
        with self.group_lock():
            meta = self.known_group(uuid)
            if meta.chord_triggered:
                return False
            meta.chord_triggered = True
            self.put_group(meta)
            return True

    def add_member(self, uuid: str, member: str, described: str) -> None:
        """Adds a task, whose state is there, to the end of a group.

        Args:
            uuid: the group.
            member: the task.
            described: its result in Celery's form, as JSON text.

        Raises:
            BackendError: the group is missing, or this store cannot change one safely.
        """
        raise errors.BackendError(f"{type(self).__name__} cannot add a task to a group that was sent")

    def purge(self, uuid: str) -> None:
        """Deletes the document of a task or a group."""
        raise NotImplementedError

    # -- chords that are watched; a store that cannot remember them leaves these as they are

    def watch_chord(self, uuid: str, callback: Signature, began: bool = False) -> None:
        """Remembers a chord until its callback has been sent.

        Args:
            uuid: the group.
            callback: the callback as the members carry it.
            began: whether this process sends it now.
        """

    def unwatch_chord(self, uuid: str) -> None:
        """Forgets a chord: its callback has been sent."""

    def suspect_chord(self, uuid: str) -> None:
        """Notes that a chord is flagged and its callback does not seem to have been sent."""

    def overdue_chords(self) -> list[Watched]:
        """The chords at which nobody has looked for some time; this caller alone gets them now."""
        return []

    # -- Machinery's group checks

    def group_completed(self, uuid: str, count: int) -> bool:
        """Whether all members of a group have ended; mirrors Go's GroupCompleted.

        Args:
            uuid: the group.
            count: GroupTaskCount, which may be less than what the group has grown to.

        Raises:
            BackendError: the group or a member's state is missing or has expired.
        """
        return all(state.state in (SUCCESS, FAILURE) for state in self.group_task_states(uuid))

    def group_task_states(self, uuid: str) -> list[TaskState]:
        """The states of a group's members in the group's order; mirrors Go's GroupTaskStates.

        Raises:
            BackendError: the group or a member's state is missing or has expired.
        """
        uuids = self.known_group(uuid).task_uuids or []
        states = self.task_states(uuids) if uuids else []
        missing = [member for member, state in zip(uuids, states, strict=True) if state is None]
        if missing:
            raise self.member_missing(uuid, missing[0])
        return [state for state in states if state is not None]

    def known_group(self, uuid: str) -> GroupMeta:
        """A group's document.

        Raises:
            BackendError: there is none.
        """
        meta = self.group_meta(uuid)
        if meta is None:
            raise self.group_missing(uuid)
        return meta

    def grow(self, uuid: str, member: str, described: str) -> None:
        """Puts one more member at the end of a group's document, under :meth:`group_lock`; see :meth:`add_member`."""
        self.put_group(grown(self.known_group(uuid), member, described))

    def group_missing(self, uuid: str) -> errors.BackendError:
        """The error for a group without a document."""
        return errors.BackendError(f"group {uuid} is not in the result backend, or has expired")

    def member_missing(self, uuid: str, member: str) -> errors.BackendError:
        """The error for a member of a group without a state."""
        return errors.BackendError(f"group {uuid}: the state of {member} is missing or has expired")


def grown(meta: GroupMeta, member: str, described: str) -> GroupMeta:
    """A group's document with one more member, see :meth:`Store.add_member`."""
    meta.task_uuids = [*(meta.task_uuids or ()), member]
    if meta.celery:
        (group, results) = kombu_json.loads(meta.celery)
        meta.celery = kombu_json.dumps([group, [*results, kombu_json.loads(described)]])
    return meta
