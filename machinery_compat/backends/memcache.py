"""Results on Memcached: the documents under their UUIDs, as Go keeps them there."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from machinery_compat import errors, memcache_client, urls
from machinery_compat.backends import fence
from machinery_compat.backends.base import Backend
from machinery_compat.backends.frontier import Frontier
from machinery_compat.backends.limits import TooLarge
from machinery_compat.backends.store import grown
from machinery_compat.wire import GroupMeta, Signature, TaskState

__all__ = ["MemcacheBackend"]

#: Seconds up to which memcached takes an expiry for a span; a greater one is a time since 1970, in 31 bits.
LONGEST_SPAN = 30 * 86_400
LAST_TIME = 2**31 - 1
#: How many documents are written or read at once.
BATCH = 1000
#: Seconds between two looks at a group that a Go worker has locked, and until it counts as dead.
LOCK_PAUSE, LOCK_LIFE = 0.005, 5.0
#: Seconds in which a Go worker that has read the group before it was marked will have written over the mark.
SETTLE = 0.01
#: A worker's own mark, which every JSON reader skips: this many blanks of four kinds.
MARK_LENGTH = 16


class MemcacheBackend(Frontier, Backend):
    """Results on Memcached. URL: ``memcache://host:port``, or several servers with commas between them."""

    persistent = False

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        # One for all threads: the client is.
        self.thread_safe = True
        if not url:
            raise errors.ConfigError("the Memcache result backend needs a URL, such as memcache://localhost:11211")
        self.url: str = url
        self.connection_errors = memcache_client.CONNECTION_ERRORS
        # A URL or an option that cannot be used is an error at once, not at the first task.
        self.client = memcache_client.Memcached(url, app.conf.result_backend_transport_options)

    def as_uri(self, include_password: bool = False) -> str:
        return self.url if include_password else urls.redact(self.url)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, self.connection_errors)

    @property
    def _expire(self) -> int:
        seconds = self.expiry
        return seconds if seconds <= LONGEST_SPAN else min(int(time.time()) + seconds, LAST_TIME)

    def _set(self, documents: dict[str, bytes]) -> None:
        try:
            self.client.set_many(documents, self._expire)
        except memcache_client.TooLargeForServer:
            raise _too_large(max(documents, key=lambda uuid: len(documents[uuid])), documents) from None

    def _replace(self, uuid: str, document: bytes, mark: Any) -> bool:
        """Writes over what was read with the mark; False if another document is there now."""
        try:
            return self.client.store(uuid, document, self._expire, mark)
        except memcache_client.TooLargeForServer:
            raise _too_large(uuid, {uuid: document}) from None

    # -- tasks

    def check_uuid(self, uuid: str) -> None:
        memcache_client.check_key(uuid)

    def put_pending(self, signatures: Sequence[Signature]) -> None:
        for first in range(0, len(signatures), BATCH):
            self._set({one.uuid: self.pending_state(one).encode() for one in signatures[first : first + BATCH]})

    def task_states(self, uuids: Sequence[str]) -> list[TaskState | None]:
        found: list[TaskState | None] = []
        for first in range(0, len(uuids), BATCH):
            share = uuids[first : first + BATCH]
            documents = self.client.get_many(share)
            found += [
                None if data is None else self.decode_state(uuid, data)
                for uuid, data in zip(share, documents, strict=True)
            ]
        return found

    def put_state(self, state: TaskState, server: str = "", command: Any = None) -> None:
        self._set({state.task_uuid: state.encode()})

    def update_states(self, states: Sequence[TaskState], only_over: str = "", run: int | None = None) -> Any:
        written = [False] * len(states)
        left = list(range(len(states)))
        while left:
            read = self.client.gets_many([states[index].task_uuid for index in left])
            again = []
            for index, (data, mark) in zip(left, read, strict=True):
                state = states[index]
                if not self._carry_over(state, data, only_over, run):
                    continue
                written[index] = self._replace(state.task_uuid, state.encode(), mark)
                if not written[index]:
                    again.append(index)
            left = again
        return written

    def _carry_over(self, state: TaskState, data: bytes | None, only_over: str, run: int | None) -> bool:
        """Takes name and time of creation from the present document; False if the state may not be written over it."""
        if data is None:
            return not only_over
        try:
            old = self.decode_state(state.task_uuid, data)
        except errors.BackendError:
            # Whatever it is, a reader could not use it.
            return not only_over
        if not fence.may_replace(old, state.state, only_over, run):
            return False
        state.task_name, state.created_at = old.task_name, old.created_at
        return True

    # -- groups

    def group_meta(self, uuid: str) -> GroupMeta | None:
        (data,) = self.client.get_many([uuid])
        return None if data is None else self.decode_group(uuid, data)

    def put_group(self, meta: GroupMeta) -> None:
        self._set({meta.group_uuid: meta.encode()})

    def trigger_chord(self, uuid: str) -> bool:
        """Marks a group's chord as triggered, in one step.

        Go reads the document, writes it locked, then triggered, then unlocked, and compares nothing.
        A lock of Go's is waited for, and a Go worker that read the group before the mark came and so
        wrote over it is left to send the callback.
        """
        own = bytes(random.choices(b" \t\n\r", k=MARK_LENGTH))
        deadline = time.monotonic() + LOCK_LIFE
        while True:
            data, mark = self.client.gets(uuid)
            if data is None:
                raise self.group_missing(uuid)
            if data.endswith(own):
                break  # it was written, and only the answer was lost
            meta = self.decode_group(uuid, data)
            if meta.chord_triggered:
                return False
            if meta.lock and time.monotonic() < deadline:
                time.sleep(LOCK_PAUSE)
                continue
            meta.chord_triggered, meta.lock = True, False
            if self._replace(uuid, meta.encode() + own, mark):
                break
        time.sleep(SETTLE)
        (data,) = self.client.get_many([uuid])
        return data is None or data.endswith(own)

    def add_member(self, uuid: str, member: str, described: str) -> None:
        while True:
            data, mark = self.client.gets(uuid)
            if data is None:
                raise self.group_missing(uuid)
            meta = grown(self.decode_group(uuid, data), member, described)
            # The mark of a chord that is triggered stays.
            if self._replace(uuid, meta.encode() + data[len(data.rstrip()) :], mark):
                return

    def purge(self, uuid: str) -> None:
        self.client.delete(uuid)


def _too_large(uuid: str, documents: dict[str, bytes]) -> TooLarge:
    return TooLarge(
        f"the document of {uuid} has {len(documents[uuid])} bytes, more than the memcached server takes "
        "(1 MiB, unless its option -I says otherwise); return a reference to the data instead"
    )
