"""What a store of Machinery's documents must do, and what follows from that for groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machinery_compat import errors
from machinery_compat.wire import FAILURE, PENDING, RECEIVED, RETRY, STARTED, SUCCESS, GroupMeta, TaskState

__all__ = ["STATES", "Store"]

STATES = frozenset({PENDING, RECEIVED, STARTED, RETRY, SUCCESS, FAILURE})


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

    def put_state(self, state: TaskState, server: str = "", command: Any = None) -> None:
        """Writes a state document over whatever is there."""
        raise NotImplementedError

    def update_states(self, states: Sequence[TaskState], only_over: str = "", run: int | None = None) -> Sequence[bool]:
        """Writes states, each keeping its task's name and time of creation.

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

    def trigger_chord(self, uuid: str) -> bool:
        """Marks a group's chord as triggered; True for the one caller that did."""
        raise NotImplementedError

    def purge(self, uuid: str) -> None:
        """Deletes the document of a task or a group."""
        raise NotImplementedError

    # -- Machinery's group checks

    def group_completed(self, uuid: str, count: int) -> bool:
        """Whether as many members of a group as it has have ended; mirrors Go's GroupCompleted.

        Raises:
            BackendError: the group or a member's state is missing or has expired.
        """
        return sum(state.state in (SUCCESS, FAILURE) for state in self.group_task_states(uuid)) == count

    def group_task_states(self, uuid: str) -> list[TaskState]:
        """The states of a group's members in the group's order; mirrors Go's GroupTaskStates.

        Raises:
            BackendError: the group or a member's state is missing or has expired.
        """
        meta = self.group_meta(uuid)
        if meta is None:
            raise self.group_missing(uuid)
        uuids = meta.task_uuids or []
        states = self.task_states(uuids) if uuids else []
        missing = [member for member, state in zip(uuids, states, strict=True) if state is None]
        if missing:
            raise self.member_missing(uuid, missing[0])
        return [state for state in states if state is not None]

    def group_missing(self, uuid: str) -> errors.BackendError:
        """The error for a group without a document."""
        return errors.BackendError(f"group {uuid} is not in the result backend, or has expired")

    def member_missing(self, uuid: str, member: str) -> errors.BackendError:
        """The error for a member of a group without a state."""
        return errors.BackendError(f"group {uuid}: the state of {member} is missing or has expired")
