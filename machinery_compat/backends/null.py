"""Machinery's null result backend: for applications that never look at a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machinery_compat import errors
from machinery_compat.backends.base import Backend
from machinery_compat.wire import GroupMeta, TaskState

__all__ = ["NullBackend"]


class NullBackend(Backend):
    """Drops what is written.

    Go waits for ever for a result that is not kept. Here that wait is refused at once, and one
    with a timeout ends with it.

    The callback of a Machinery chord is sent after *each* member and gets no results, as in Go;
    Celery's own chords are refused.
    """

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        self._groups: set[str] = set()

    def as_uri(self, include_password: bool = False) -> str:
        return "null"

    def check_waitable(self, uuid: str) -> None:
        raise errors.BackendError(f"Task not found: {uuid} (the result backend 'null' keeps no results to wait for)")

    def ensure_chords_allowed(self) -> None:
        raise NotImplementedError("a chord needs a result backend that keeps results, which 'null' does not")

    # -- tasks

    def task_states(self, uuids: Sequence[str]) -> list[TaskState | None]:
        return [None] * len(uuids)

    def put_state(self, state: TaskState, server: str = "", command: Any = None) -> None:
        pass

    def update_states(self, states: Sequence[TaskState], only_over: str = "", run: int | None = None) -> Sequence[bool]:
        return [True] * len(states)

    # -- groups

    def group_meta(self, uuid: str) -> GroupMeta | None:
        return None

    def put_group(self, meta: GroupMeta) -> None:
        self._groups.add(meta.group_uuid)

    def group_completed(self, uuid: str, count: int) -> bool:
        if uuid not in self._groups:
            raise errors.BackendError(f"Group not found: {uuid}")
        return True

    def group_task_states(self, uuid: str) -> list[TaskState]:
        return []

    def trigger_chord(self, uuid: str) -> bool:
        return True

    def purge(self, uuid: str) -> None:
        self._groups.discard(uuid)
