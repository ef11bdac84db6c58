"""What must go on while a Redis consumer's main loop is busy: leases, recovery, delayed tasks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import redis

from machinery_compat import errors
from machinery_compat.redis_client import lua
from machinery_compat.transport import base

__all__ = ["Caretaker", "Keys"]

logger = logging.getLogger("machinery_compat.transport")

#: How many due tasks one call of the script moves at most.
MOVE_LIMIT = 100
#: Pause after a failure, in seconds.
ERROR_PAUSE = 1.0


class Keys:
    """The keys of one consumer beside a queue; all share the queue's hash slot.

    ``{queue}:inflight:<consumer>``  list: claimed and not acknowledged, newest last
    ``{queue}:consumers``            sorted set: consumer -> end of its lease, Unix ms
    """

    __slots__ = ("consumers", "inflight", "inflight_prefix", "queue")

    def __init__(self, queue: str, consumer: str) -> None:
        self.queue = queue
        self.inflight_prefix = f"{{{queue}}}:inflight:"
        self.inflight = f"{self.inflight_prefix}{consumer}"
        self.consumers = f"{{{queue}}}:consumers"


class Caretaker(threading.Thread):
    """Renews this consumer's leases, relieves dead consumers and moves delayed tasks.

    Its own thread with its own connection, so that a long task in the worker's main process
    (the solo pool) never costs the lease.

    Args:
        connect: makes a Redis client.
        consumer: the name of this consumer.
        lease: how long a lease lasts, in seconds.
        delayed_key: the sorted set of delayed tasks.
        poll_period: the longest time between two looks at the delayed tasks, in seconds.
        default_queue: where a delayed task without a RoutingKey goes.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        consumer: str,
        *,
        lease: float,
        delayed_key: str,
        poll_period: float,
        default_queue: str,
    ) -> None:
        super().__init__(name=f"machinery-caretaker-{consumer[:8]}", daemon=True)
        self.consumer = consumer
        self.lease = lease
        self.delayed_key = delayed_key
        self.poll_period = poll_period
        self.default_queue = default_queue
        self._client = connect()
        self._queues: dict[str, Keys] = {}
        self._stopping = threading.Event()
        self._renew = self._client.register_script(lua("renew"))
        self._recover = self._client.register_script(lua("recover"))
        self._move_due = self._client.register_script(lua("move_due"))
        self._take_delayed = self._client.register_script(lua("take_delayed"))

    def watch(self, keys: Keys) -> None:
        """Takes care of a queue from now on; the lease is there when this returns."""
        self._renew(keys=[keys.consumers], args=[self.consumer, int(self.lease * 1000)])
        self._queues[keys.queue] = keys

    def leave(self, keys: Keys) -> None:
        """Gives back what the consumer still holds of a queue, and its lease."""
        self._queues.pop(keys.queue, None)
        self._recover(keys=[keys.queue, keys.consumers], args=[keys.inflight_prefix, self.consumer])

    def stop(self) -> None:
        """Ends the thread and its connection."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout=5)
        self._client.close()

    def run(self) -> None:
        next_lease = 0.0
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                if time.monotonic() >= next_lease:
                    next_lease = time.monotonic() + self.lease / 3
                    self._tend()
                pause = self._move()
            except redis.RedisError as exc:
                if self._stopping.is_set():
                    return
                logger.warning("leases and delayed tasks wait for Redis: %s; trying again", exc)
                pause = ERROR_PAUSE

    def _tend(self) -> None:
        for keys in list(self._queues.values()):
            self._renew(keys=[keys.consumers], args=[self.consumer, int(self.lease * 1000)])
            gone, count = self._recover(keys=[keys.queue, keys.consumers], args=[keys.inflight_prefix, ""])
            if count:
                logger.warning(
                    "queue %s: put back %d messages of %d consumers that went away without giving them back",
                    keys.queue,
                    count,
                    gone,
                )

    def _move(self) -> float:
        """Moves what is due; returns the seconds until the next look."""
        now = time.time_ns()
        due, upcoming, odd = self._move_due(keys=[self.delayed_key], args=[now, MOVE_LIMIT, self.default_queue])
        for body in odd:
            self._move_odd(body)
        if due == MOVE_LIMIT:
            return 0.0
        if not upcoming:
            return self.poll_period
        return min(max((float(upcoming) - time.time_ns()) / 1e9, 0.001), self.poll_period)

    def _move_odd(self, body: bytes) -> None:
        """Moves a due member that the script could not read: Go spells it otherwise, or it is none."""
        try:
            target = base.decode(body).routing_key or self.default_queue
            self._take_delayed(keys=[self.delayed_key, target], args=[body, body])
        except errors.DecodeError as exc:
            reason = f"Could not unmarshal a delayed task into a task signature: {exc}"
            dead = base.dead_queue(self.default_queue)
            entry = base.dead_letter(body, reason, self.default_queue)
            if self._take_delayed(keys=[self.delayed_key, dead], args=[body, entry]):
                base.log_buried(body, reason, dead)
