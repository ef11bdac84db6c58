"""Machinery's Redis result backend: the documents under their UUIDs, each write with an expiry."""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import redis

from machinery_compat import errors, redis_client, urls
from machinery_compat.backends.base import Backend
from machinery_compat.backends.store import Watched
from machinery_compat.redis_client import lua
from machinery_compat.redis_errors import RefusedByStore, StoreClient
from machinery_compat.wire import ZERO_TIME, GroupMeta, Signature, TaskState

__all__ = ["RedisBackend"]

#: The one lock of all groups, Go's and ours: key, life in ms, tries, pause in seconds.
MUTEX_KEY = "TriggerChordMutex"
MUTEX_LIFE = 8000
MUTEX_TRIES = 32
MUTEX_PAUSE = (0.05, 0.249)
#: The chords whose callback has not been sent: when to look at each, and the callbacks.
WATCH_TIMES = "{machinery_compat}:chord_times"
WATCHED = "{machinery_compat}:chords"
#: Seconds between the two looks that find a callback unsent, at most.
SUSPECT_FOR = 2.0
#: How many chords a process remembers as watched.
REMEMBERED = 10_000
#: How many writes go to the server at once.
PIPELINE = 1000


class RedisBackend(Backend):
    """Results on Redis. URL: any of Machinery's Redis URLs."""

    persistent = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        if not url:
            raise errors.ConfigError("the Redis result backend needs a URL, such as redis://localhost:6379")
        self.url: str = url
        self.connection_errors = (redis.ConnectionError, redis.TimeoutError, OSError)

    def as_uri(self, include_password: bool = False) -> str:
        return self.url if include_password else urls.redact(self.url)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, (*self.connection_errors, RefusedByStore))

    @cached_property
    def client(self) -> redis.Redis:
        """The client; its pool notices a fork by itself."""
        conf = self.app.conf
        options = {
            "socket_timeout": conf.redis_socket_timeout,
            "socket_connect_timeout": conf.redis_socket_connect_timeout,
            "socket_keepalive": conf.redis_socket_keepalive,
            "max_connections": conf.redis_max_connections,
            "health_check_interval": conf.get("redis_backend_health_check_interval"),
        }
        return redis_client.client_for(self.url, options, conf.redis_backend_use_ssl, self.servers, StoreClient)

    @cached_property
    def servers(self) -> redis_client.Servers:
        """What the servers of the URL are."""
        config = self.app.machinery.config.redis_settings
        return redis_client.Servers.of(config, self.app.conf.result_backend_transport_options)

    @cached_property
    def _store_script(self) -> Any:
        return self.client.register_script(lua("store_state"))

    @cached_property
    def _watch_script(self) -> Any:
        return self.client.register_script(lua("watch"))

    @cached_property
    def _overdue_script(self) -> Any:
        return self.client.register_script(lua("overdue"))

    @cached_property
    def _watched(self) -> dict[str, None]:
        """The chords that this process has asked to be watched, the oldest first."""
        return {}

    @cached_property
    def _completed_script(self) -> Any:
        return self.client.register_script(lua("group_completed"))

    # -- tasks

    def put_pending(self, signatures: Sequence[Signature]) -> None:
        for first in range(0, len(signatures), PIPELINE):
            with self.client.pipeline(transaction=False) as pipe:
                for signature in signatures[first : first + PIPELINE]:
                    pipe.execute_command(*self._set(signature.uuid, self.pending_state(signature).encode()))
                pipe.execute()

    def task_states(self, uuids: Sequence[str]) -> list[TaskState | None]:
        documents = self.client.mget(uuids)
        return [
            self.decode_state(uuid, data) if data is not None else None
            for uuid, data in zip(uuids, documents, strict=True)
        ]

    def put_state(self, state: TaskState, server: str = "", command: Any = None) -> None:
        if command is not None and self._same_server(server):
            command("execute_command", *self._set(state.task_uuid, state.encode()))
        else:
            self.client.execute_command(*self._set(state.task_uuid, state.encode()))

    def _set(self, key: str, value: bytes) -> tuple[Any, ...]:
        return ("SET", key, value, "EX", self.expiry) if self.expiry else ("SET", key, value)

    def _same_server(self, server: str) -> bool:
        known = self.__dict__.setdefault("_servers", {})
        if server not in known:
            known[server] = redis_client.same_server(self.url, server)
        return bool(known[server])

    def update_states(self, states: Sequence[TaskState], only_over: str = "", run: int | None = None) -> Sequence[bool]:
        if len(states) == 1:
            return [bool(self._store_script(keys=[states[0].task_uuid], args=self._pieces(states[0], only_over, run)))]
        if not states:
            return []
        pieces = [(state.task_uuid, *self._pieces(state, only_over, run)) for state in states]
        try:
            return self._run_scripts(pieces)
        except redis.exceptions.NoScriptError:
            # Asked for before each batch, as redis-py does, this would cost a round trip.
            self.client.script_load(self._store_script.script)
            return self._run_scripts(pieces)

    def _run_scripts(self, pieces: Sequence[tuple[Any, ...]]) -> list[bool]:
        with self.client.pipeline(transaction=False) as pipe:
            for one in pieces:
                pipe.evalsha(self._store_script.sha, 1, *one)
            return [bool(written) for written in pipe.execute()]

    def _pieces(self, state: TaskState, only_over: str, run: int | None) -> list[Any]:
        """The document without the texts that the script carries over from the old one."""
        # Both texts are empty in what the worker writes; the first of each kind is the member.
        head, rest = state.encode().split(b'"TaskName":"', 1)
        middle, tail = rest.rsplit(b'"CreatedAt":"' + ZERO_TIME.encode(), 1)
        texts = [head + b'"TaskName":"', middle + b'"CreatedAt":"', tail]
        return [*texts, self.expiry, only_over, "" if run is None else run]

    # -- groups

    def group_meta(self, uuid: str) -> GroupMeta | None:
        data = self.client.get(uuid)
        return None if data is None else self.decode_group(uuid, data)

    def put_group(self, meta: GroupMeta) -> None:
        self.client.execute_command(*self._set(meta.group_uuid, meta.encode()))

    def begin_group(self, meta: GroupMeta) -> None:
        self._watched.pop(meta.group_uuid, None)
        with self.client.pipeline(transaction=False) as pipe:
            # Of a group that is sent again all members were seen to have ended.
            pipe.delete(_frontier(meta.group_uuid))
            pipe.execute_command(*self._set(meta.group_uuid, meta.encode()))
            pipe.execute()

    def group_completed(self, uuid: str, count: int) -> bool:
        try:
            return bool(self._completed_script(keys=[uuid, _frontier(uuid)], args=[self.expiry]))
        except redis.ResponseError as exc:
            missing = str(exc).removeprefix("MISSING ")
            raise errors.BackendError(f"group {uuid}: the document of {missing} is missing or has expired") from exc

    def group_lock(self) -> AbstractContextManager[Any]:
        return Mutex(self.client)

    def add_member(self, uuid: str, member: str, described: str) -> None:
        with self.group_lock():
            self.grow(uuid, member, described)
            # Those whose end has been seen are gone from the frontier; its last entry is the empty one.
            self.client.linsert(_frontier(uuid), "BEFORE", "", member)

    # -- chords that are watched

    def watch_chord(self, uuid: str, callback: Signature, began: bool = False) -> None:
        if began or uuid not in self._watched:
            now = time.time()
            oldest = now - self.expiry if self.expiry else "-inf"
            due = now + self.watch_interval
            self._watch_script(
                keys=[WATCH_TIMES, WATCHED], args=[uuid, callback.encode(), due, "1" if began else "", oldest]
            )
            self._watched[uuid] = None
            while len(self._watched) > REMEMBERED:
                del self._watched[next(iter(self._watched))]

    def unwatch_chord(self, uuid: str) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            pipe.zrem(WATCH_TIMES, uuid)
            pipe.hdel(WATCHED, uuid, f"{uuid}:began", f"{uuid}:suspected")
            pipe.execute()

    def suspect_chord(self, uuid: str) -> None:
        self.client.hset(WATCHED, f"{uuid}:suspected", 1)
        self.client.zadd(WATCH_TIMES, {uuid: time.time() + min(SUSPECT_FOR, self.watch_interval)})

    def overdue_chords(self) -> list[Watched]:
        now = time.time()
        uuids = self._overdue_script(keys=[WATCH_TIMES], args=[now, now + self.watch_interval])
        found = []
        for uuid in map(bytes.decode, uuids):
            callback, began, suspected = self.client.hmget(WATCHED, uuid, f"{uuid}:began", f"{uuid}:suspected")
            if callback is None:
                self.unwatch_chord(uuid)
            else:
                found.append(Watched(uuid, callback, began is not None, suspected is not None))
        return found

    def purge(self, uuid: str) -> None:
        self.client.delete(uuid)


class Mutex(AbstractContextManager[None]):
    """Go's redsync mutex over ``ChordTriggered``: the same key, value and release."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.value = base64.b64encode(os.urandom(16))
        self.release = client.register_script(lua("release_mutex"))

    def __enter__(self) -> None:
        for _ in range(MUTEX_TRIES):
            if self.client.set(MUTEX_KEY, self.value, nx=True, px=MUTEX_LIFE):
                return
            time.sleep(random.uniform(*MUTEX_PAUSE))
        raise errors.LockError(f"{MUTEX_KEY} was taken by others for {MUTEX_TRIES} tries")

    def __exit__(self, *exc_info: object) -> None:
        self.release(keys=[MUTEX_KEY], args=[self.value])


def _frontier(uuid: str) -> str:
    """The key of the members of a group that were not yet seen to have ended."""
    return f"{uuid}:frontier"
