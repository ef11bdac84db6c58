"""What must go on while a Redis consumer's main loop is busy: leases, recovery, delayed tasks."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from uuid import uuid4

import redis

from machinery_compat import errors
from machinery_compat.redis_client import lua
from machinery_compat.transport import base, border, payloads
from machinery_compat.transport.lease_keeper import RENEWALS, LeaseKeeper
from machinery_compat.transport.redelivery import given_up_reason

__all__ = ["Caretaker", "Keys"]

logger = logging.getLogger("machinery_compat.transport")

#: How many due tasks one call of the script moves at most.
MOVE_LIMIT = 100
#: Pause after a failure, in seconds.
ERROR_PAUSE = 1.0
#: Longest time between two looks for consumers that are gone, in seconds.
LOOK_PERIOD = 2.0
#: The part of a key that alone decides about its slot.
HASH_TAG = re.compile(r"^[^{]*\{[^}]+\}")
#: What is said of a consumer that has left without a word.
WENT_AWAY = "the worker went away without giving its messages back"


class Keys:
    """The keys of one consumer beside a queue; all share the queue's hash slot.

    ``{queue}:inflight:<consumer>``  list: claimed and not acknowledged, newest last
    ``{queue}:consumers``            sorted set: consumer -> end of its lease, Unix ms
    ``{queue}:concurrency``          hash: consumer -> how many of its messages run at once

    A consumer that loses its lease goes on under another name, so that nothing of what it held
    before is taken for what it holds now.
    """

    __slots__ = ("concurrency", "consumer", "consumers", "inflight", "inflight_prefix", "queue", "until")

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.consumer = uuid4().hex
        # A name may say its slot itself.
        tag = queue if HASH_TAG.search(queue) else f"{{{queue}}}"
        self.inflight_prefix = f"{tag}:inflight:"
        self.inflight = f"{self.inflight_prefix}{self.consumer}"
        self.consumers = f"{tag}:consumers"
        self.concurrency = f"{tag}:concurrency"
        #: Until when nobody can have taken the lease away, on this process's monotonic clock.
        self.until = 0.0


class Caretaker(threading.Thread):
    """Renews this consumer's leases, relieves dead consumers and moves delayed tasks.

    Its own thread with its own connection, so that a long task in the worker's main process
    (the solo pool) never costs the lease.

    Args:
        connect: makes a Redis client.
        border: the application's.
        lease: how long a lease lasts, in seconds.
        slots: tells how many messages of a queue may be running at once.
        keeper: the process that renews the leases too, where tasks run in this one.
        delayed_key: the sorted set of delayed tasks.
        poll_period: the longest time between two looks at the delayed tasks, in seconds.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        border: border.Border,
        *,
        lease: float,
        slots: Callable[[], int],
        keeper: LeaseKeeper | None,
        delayed_key: str,
        poll_period: float,
    ) -> None:
        super().__init__(name="machinery-caretaker", daemon=True)
        self.border = border
        self.lease = lease
        self.slots = slots
        self.keeper = keeper
        self.delayed_key = delayed_key
        self.poll_period = poll_period
        self._client = connect()
        self._queues: dict[str, Keys] = {}
        self._lock = threading.Lock()
        self._next_look = 0.0
        self._next_renewal = 0.0
        self._given_up: deque[tuple[Keys, bytes]] = deque()
        self._retired = False
        self._waits = False
        self._kept: list[tuple[Keys, bytes]] = []
        self._settled: deque[tuple[Keys, bytes]] = deque()
        self._given_back: set[str] = set()
        self._stopping = threading.Event()
        self._renew_script = self._client.register_script(lua("renew"))
        self._recover = self._client.register_script(lua("recover"))
        self._leave = self._client.register_script(lua("leave"))
        self._put_back = self._client.register_script(lua("put_back"))
        self._move_due = self._client.register_script(lua("move_due"))
        self._take_delayed = self._client.register_script(lua("take_delayed"))

    # -- leases

    def watch(self, queue: str) -> None:
        """Takes care of a queue from now on; the lease is there when this returns."""
        with self._lock:
            if queue not in self._queues:
                self._register(queue)
                self._tell_keeper()

    def keys_of(self, queue: str) -> Keys:
        """The keys under which messages of a queue are claimed now."""
        return self._queues[queue]

    def is_fresh(self, keys: Keys) -> bool:
        """Whether nobody can have taken this lease away."""
        return time.monotonic() < keys.until

    def holds(self, keys: Keys) -> bool:
        """Whether what was claimed under these keys is still this consumer's.

        Asks the server only when the lease should have been renewed and was not.

        Raises:
            RedisError: it cannot be asked.
        """
        if not self.is_fresh(keys):
            self._renew(keys)
        return self._queues.get(keys.queue) is keys

    def retire(self, kept: Iterable[tuple[Keys, bytes]] = (), settled: Iterable[tuple[Keys, bytes]] = ()) -> bool:
        """Gives back what this consumer holds and does not keep, and ends when that is done.

        While something is kept, or Redis cannot be reached, the thread goes on.

        Args:
            kept: messages whose tasks go on without the connection; :meth:`settle` tells their end.
            settled: messages that have been dealt with and lie in Redis still.

        Returns:
            whether all is done.
        """
        with self._lock:
            self._retired = True
            self._kept.extend(kept)
            self._settled.extend(settled)
        return self._finish()

    def settle(self, keys: Keys, body: bytes) -> None:
        """Forgets a message that was kept when this consumer retired."""
        with self._lock:
            self._settled.append((keys, body))
        self._finish()

    def _finish(self) -> bool:
        """Does what a consumer that has retired has still to do; returns whether that is all."""
        try:
            with self._lock:
                self._give_back()
                done = not self._queues
        except redis.RedisError as exc:
            if not self._waits:
                logger.warning("messages are given back when Redis can be reached: %s", exc)
            self._waits = True
            # Others may have been given them by then, and there is nothing else to tell.
            done = not self._kept and not self._settled and not any(map(self.is_fresh, self._queues.values()))
        if done:
            self.stop()
        return done

    def _give_back(self) -> None:
        while self._settled:
            keys, body = self._settled[0]
            self._client.lrem(keys.inflight, 1, body)
            if self._settled.popleft() in self._kept:
                self._kept.remove((keys, body))
        for queue, keys in list(self._queues.items()):
            kept = [body for held, body in self._kept if held is keys]
            if not kept or queue not in self._given_back:
                names = [queue, keys.consumers, keys.concurrency, keys.inflight]
                self._leave(keys=names, args=[keys.consumer, *kept])
                self._given_back.add(queue)
            if not kept:
                del self._queues[queue]
        self._tell_keeper()

    def stop(self) -> None:
        """Ends the thread, the process beside it and the connection."""
        self._stopping.set()
        if self.is_alive() and self is not threading.current_thread():
            self.join(timeout=5)
        if self.keeper is not None:
            self.keeper.stop()
        self._client.close()

    def _register(self, queue: str) -> None:
        keys = Keys(queue)
        self._extend(keys, "new")
        self._queues[queue] = keys

    def _extend(self, keys: Keys, new: str = "") -> bool:
        before = time.monotonic()
        args = [keys.consumer, int(self.lease * 1000), self.slots(), new]
        extended = bool(self._renew_script(keys=[keys.consumers, keys.concurrency], args=args))
        if extended:
            keys.until = before + self.lease
        return extended

    def _renew(self, keys: Keys) -> None:
        with self._lock:
            if self._queues.get(keys.queue) is not keys or self._extend(keys):
                return
            if self._retired:
                # What was kept has been given to others.
                del self._queues[keys.queue]
                return
            logger.warning(
                "queue %s: this worker was silent for longer than its lease of %g s, and others have been given its "
                "messages; it begins none of those and takes new ones",
                keys.queue,
                self.lease,
            )
            self._register(keys.queue)
            self._tell_keeper()

    def _tell_keeper(self) -> None:
        if self.keeper is not None:
            self.keeper.keep([(keys.consumers, keys.concurrency, keys.consumer) for keys in self._queues.values()])

    # -- the thread

    def run(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                pause = self._round()
            except redis.RedisError as exc:
                if self._stopping.is_set():
                    return
                logger.warning("leases and delayed tasks wait for Redis: %s; trying again", exc)
                # Nobody else could renew a lease either: all come first to that when it is back.
                self._next_renewal, self._next_look = 0.0, time.monotonic() + self.lease / RENEWALS
                pause = ERROR_PAUSE
            except Exception:
                logger.exception("leases and delayed tasks are looked at again in a moment")
                pause = ERROR_PAUSE

    def _round(self) -> float:
        """Does what there is to do; returns the seconds until the next time."""
        if self._retired and self._finish():
            return 0.0
        queues = list(self._queues.values())
        if time.monotonic() >= self._next_renewal:
            for keys in queues:
                self._renew(keys)
            with self._lock:
                self._tell_keeper()
            self._next_renewal = time.monotonic() + self.lease / RENEWALS
        if self._retired:
            return min(ERROR_PAUSE, self.lease / RENEWALS)
        if time.monotonic() >= self._next_look:
            for keys in queues:
                self._relieve(keys)
            self._next_look = time.monotonic() + min(self.lease / RENEWALS, LOOK_PERIOD)
        pause = self._move()
        self._fail_given_up()
        return max(min(pause, min(self._next_renewal, self._next_look) - time.monotonic()), 0.0)

    def _relieve(self, keys: Keys) -> None:
        """Puts back what consumers without a lease have left of a queue."""
        gone, count, out = self._recover(
            keys=[keys.queue, keys.consumers, keys.concurrency, keys.inflight],
            args=[keys.inflight_prefix, self.border.redelivery_limit],
        )
        self._given_up.extend((keys, body) for body in out)
        if count:
            logger.warning(
                "queue %s: put back %d messages of %d consumers that went away without giving them back",
                keys.queue,
                count,
                gone,
            )

    def _fail_given_up(self) -> None:
        """Fails the tasks that have cost too many workers their life, and buries their messages.

        Until both is done a message lies in the in-flight list of this consumer.
        """
        while self._given_up:
            keys, body = self._given_up[0]
            reason = given_up_reason(base.deliveries(body), WENT_AWAY)
            self.border.given_up(body, reason)
            if self._bury(keys, body, reason):
                payloads.log_buried(body, reason, payloads.dead_queue(keys.queue))
            self._given_up.popleft()

    def _bury(self, keys: Keys, body: bytes, reason: str) -> bool:
        """Moves a message to the dead ones; False when it was no longer in flight."""
        dead, entry = payloads.dead_queue(keys.queue), payloads.dead_letter(body, reason, keys.queue)
        return bool(self._put_back(keys=[keys.inflight, dead], args=[body, "tail", entry]))

    # -- delayed tasks

    def _move(self) -> float:
        """Moves what is due; returns the seconds until the next look."""
        queue = self.border.default_queue
        due, upcoming, odd = self._move_due(keys=[self.delayed_key], args=[time.time_ns(), MOVE_LIMIT, queue])
        for body in odd:
            self._move_odd(body)
        return self._pause(due, upcoming)

    def _pause(self, due: int, upcoming: bytes) -> float:
        """The seconds until the next look, of which the last one has found so many, and when the next is due."""
        if due == MOVE_LIMIT:
            return 0.0
        if not upcoming:
            return self.poll_period
        return min(max((float(upcoming) - time.time_ns()) / 1e9, 0.001), self.poll_period)

    def _move_odd(self, body: bytes) -> None:
        """Moves a due member that the script could not read: Go spells it otherwise, or it is none."""
        queue = self.border.default_queue
        try:
            target = payloads.decode(body).routing_key or queue
            self._take_delayed(keys=[self.delayed_key, target], args=[body, body])
        except errors.DecodeError as exc:
            reason = payloads.unreadable_delayed(exc)
            dead = payloads.dead_queue(queue)
            letter = payloads.dead_letter(body, reason, queue)
            if self._take_delayed(keys=[self.delayed_key, dead], args=[body, letter]):
                payloads.log_buried(body, reason, dead)
