"""Machinery's broker on a Redis Cluster.

A task's queue has one slot, and all keys beside it are in that slot; but for the queue and the
delayed tasks, and for the queue and its dead messages. What moves between these goes in two steps:
first it is where it goes, then it is no longer where it was. A worker that dies in between leaves it
in both, so that a task may be run twice, and none is lost.

What is Kombu's own (remote control, replies, events) has a prefix that puts it in one slot, so
Kombu needs to know nothing of clusters.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

import redis

from machinery_compat import errors, redis_cluster
from machinery_compat.redis_client import lua
from machinery_compat.transport import caretaker, dead, payloads
from machinery_compat.transport import redis as single
from machinery_compat.transport.claims import Claimed
from machinery_compat.wire import Signature

__all__ = ["Channel"]

#: Before each key of Kombu's own.
PREFIX = "{machinery_compat}"
#: How long a worker has to push the delayed tasks that it has taken, in seconds; then others do.
MOVING = 30.0


class Caretaker(caretaker.Caretaker):
    """The caretaker, whose moves between slots take two steps."""

    def _bury(self, keys: caretaker.Keys, body: bytes, reason: str) -> bool:
        entry = payloads.dead_letter(body, reason, keys.queue)
        self._client.rpush(payloads.dead_queue(keys.queue), entry)
        return bool(self._client.lrem(keys.inflight, 1, body))

    def _move(self) -> float:
        # Taken means due again later, should this worker die before they are in their queues.
        until = time.time_ns() + int(MOVING * 1e9)
        taken, upcoming = self._client.eval(
            lua("take_due"), 1, self.delayed_key, time.time_ns(), caretaker.MOVE_LIMIT, until
        )
        for body in taken:
            self._push(body)
            self._client.zrem(self.delayed_key, body)
        return self._pause(len(taken), upcoming)

    def _push(self, body: bytes) -> None:
        queue = self.border.default_queue
        try:
            signature = payloads.decode(body)
        except errors.DecodeError as exc:
            reason, name = payloads.unreadable_delayed(exc), payloads.dead_queue(queue)
            self._client.rpush(name, payloads.dead_letter(body, reason, queue))
            payloads.log_buried(body, reason, name)
            return
        single.push(self._client.execute_command, signature.routing_key or queue, body, signature.priority)


class Channel(single.Channel):
    """A channel to a cluster."""

    Caretaker = Caretaker
    #: The messages of a batch go to servers of their own, each with its state before it.
    supports_batch_publish = False
    global_keyprefix: str

    def _get_client(self) -> Any:
        prefix: str = self.global_keyprefix
        self.global_keyprefix = prefix if caretaker.HASH_TAG.search(prefix) else f"{PREFIX}{prefix}"
        return super()._get_client()

    def _create_commands(self) -> redis.Redis:
        return redis_cluster.client_of(self._connparams())

    @cached_property
    def _pools(self) -> dict[str, redis.ConnectionPool]:
        return {}

    def pool_for(self, queue: str) -> redis.ConnectionPool:
        if queue not in self._pools:
            self._pools[queue] = redis_cluster.pool_of(self._connparams(), self.commands, queue)
        return self._pools[queue]

    def client_for(self, queue: str) -> redis.Redis:
        return redis.Redis(connection_pool=self.pool_for(queue))

    def _get_pool(self, asynchronous: bool = False) -> redis.ConnectionPool:
        params = self._connparams(asynchronous)
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=params["db"])
        return redis_cluster.pool_of(params, self.commands, self.global_keyprefix)

    def _disconnect_pools(self) -> None:
        super()._disconnect_pools()
        for pool in self.__dict__.pop("_pools", {}).values():
            pool.disconnect()
        commands, self._commands = self._commands, None
        if commands is not None:
            commands.close()

    def _start_claim(self, queue: str) -> None:
        keys = caretaker.Keys(queue)
        if self.commands.keyslot(queue) != self.commands.keyslot(keys.inflight):
            raise errors.ConfigError(f"the queue {queue!r} cannot be on a cluster: a '}}' in its name stands alone")
        super()._start_claim(queue)

    def _publish(self, message: Signature, body: bytes) -> None:
        self._send(lambda name, *args: self.commands.execute_command(*single.command_of(name, args)), message, body)

    def park(self, claimed: Claimed, seconds: float) -> None:
        due, what = self._parked(claimed, seconds)
        self.commands.zadd(self.delayed_tasks_key, {what: due})
        if not self.commands.lrem(claimed.keys.inflight, 1, claimed.body):
            self.commands.zrem(self.delayed_tasks_key, what)

    def _move(self, claimed: Claimed, target: str, at: str, what: bytes) -> None:
        if target == claimed.keys.queue:
            super()._move(claimed, target, at, what)
            return
        self.commands.rpush(target, what)
        if not self.commands.lrem(claimed.keys.inflight, 1, claimed.body):
            self.commands.lrem(target, -1, what)

    def _requeue(self, queue: str, entry: dead.DeadEntry, state: list[Any]) -> bool:
        name = payloads.dead_queue(queue)
        if self.commands.lpos(name, entry.entry) is None:
            return False
        self.commands.rpush(queue, entry.fresh)
        return bool(self.commands.lrem(name, 1, entry.entry))

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        if self.is_task_queue(queue):
            self.commands.delete(queue)
        super()._delete(queue, *args, **kwargs)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        if self.is_task_queue(queue):
            return bool(self.commands.exists(queue))
        return bool(super()._has_queue(queue, **kwargs))
