"""Machinery's eager result backend: the documents in the memory of this process, for unit tests."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from machinery_compat import errors
from machinery_compat.backends.base import Backend
from machinery_compat.wire import GroupMeta, TaskState

__all__ = ["EagerBackend"]


class EagerBackend(Backend):
    """Results in memory: JSON as in any other store, shared by the threads of an application.

    They never expire and end with the process.
    """

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        # The application's and not the backend's, of which an application may make several.
        self._documents: dict[str, bytes] = app.machinery.documents
        self._lock: AbstractContextManager[Any] = app.machinery.documents_lock

    def as_uri(self, include_password: bool = False) -> str:
        return "eager"

    # -- tasks

    def task_states(self, uuids: Sequence[str]) -> list[TaskState | None]:
        found = [(uuid, self._documents.get(uuid)) for uuid in uuids]
        return [None if data is None else self.decode_state(uuid, data) for uuid, data in found]

    def put_state(self, state: TaskState, server: str = "", command: Any = None) -> None:
        self._documents[state.task_uuid] = state.encode()

    def update_states(self, states: Sequence[TaskState], only_over: str = "") -> None:
        with self._lock:
            for state in states:
                old = self.task_state(state.task_uuid)
                if only_over and (old is None or old.state != only_over):
                    continue
                if old is not None:
                    state.task_name, state.created_at = old.task_name, old.created_at
                self.put_state(state)

    # -- groups

    def group_meta(self, uuid: str) -> GroupMeta | None:
        data = self._documents.get(uuid)
        return None if data is None else self.decode_group(uuid, data)

    def put_group(self, meta: GroupMeta) -> None:
        self._documents[meta.group_uuid] = meta.encode()

    def group_lock(self) -> AbstractContextManager[Any]:
        return self._lock

    def add_member(self, uuid: str, member: str, described: str) -> None:
        with self.group_lock():
            self.grow(uuid, member, described)

    def purge(self, uuid: str) -> None:
        self._documents.pop(uuid, None)

    # -- Go's texts

    def group_missing(self, uuid: str) -> errors.BackendError:
        return errors.BackendError(f"Group not found: {uuid}")

    def member_missing(self, uuid: str, member: str) -> errors.BackendError:
        return errors.BackendError(f"Task not found: {member}")
