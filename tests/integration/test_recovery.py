"""How consumers on Redis relieve each other: order, counts, and who is given up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from machinery_compat import new_signature
from machinery_compat.transport.base import redelivered
from machinery_compat.transport.border import Border
from machinery_compat.transport.caretaker import Caretaker, Keys
from tests.conftest import Names
from tests.support.services import RedisServer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.redis

#: Seconds.
SHORT, LONG = 0.15, 1.0
#: Of a command that a frozen server does not answer, in seconds.
TIMEOUT = 0.5
BODIES = [new_signature("task", n).encode() for n in range(6)]


class Told(Border):
    """Remembers what is given up; fails for as many times as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.told: list[tuple[bytes, str]] = []
        self.failures = failures

    def given_up(self, body: bytes, reason: str) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the backend is down")
        self.told.append((body, reason))


class Fleet:
    """A queue and its consumers, whose workers are left away."""

    def __init__(self, url: str, queue: str, stack: ExitStack) -> None:
        self.url = url
        self.queue = queue
        self.stack = stack
        self.redis = stack.enter_context(closing(Redis.from_url(url)))

    def consumer(self, lease: float = LONG, slots: int = 1, border: Border | None = None) -> Caretaker:
        """A consumer of the queue that renews nothing until its thread is started."""
        caretaker = Caretaker(
            lambda: Redis.from_url(self.url, socket_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)),
            border or Told(),
            lease=lease,
            slots=lambda: slots,
            keeper=None,
            delayed_key="delayed_tasks",
            poll_period=0.02,
        )
        self.stack.callback(caretaker.stop)
        caretaker.watch(self.queue)
        return caretaker

    def claim(self, consumer: Caretaker, *bodies: bytes) -> Keys:
        keys = consumer.keys_of(self.queue)
        self.redis.rpush(keys.inflight, *bodies)
        return keys

    def waiting(self) -> list[bytes]:
        return list(self.redis.lrange(self.queue, 0, -1))

    def keys(self) -> set[str]:
        return {key.decode() for key in self.redis.keys("*")}

    def gone(self, keys: Keys) -> Callable[[], bool]:
        """Whether a consumer has been relieved."""
        return lambda: self.redis.zscore(keys.consumers, keys.consumer) is None


@pytest.fixture
def fleet(redis_db: str, names: Names) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(redis_db, names.queue, stack)


def test_what_can_have_been_running_is_counted_and_the_order_stays(fleet: Fleet) -> None:
    dead = fleet.claim(fleet.consumer(SHORT, slots=2), *BODIES[:5])
    fleet.redis.rpush(fleet.queue, BODIES[5])

    alive = fleet.consumer()
    alive.start()
    wait_for(fleet.gone(dead))

    assert fleet.waiting() == [redelivered(BODIES[0]), redelivered(BODIES[1]), *BODIES[2:]]
    alive.retire()
    assert fleet.keys() == {fleet.queue}


def test_several_are_relieved_and_the_living_keep_what_they_have(fleet: Fleet) -> None:
    first = fleet.claim(fleet.consumer(SHORT), BODIES[0], BODIES[1])
    second = fleet.claim(fleet.consumer(SHORT), BODIES[2])
    alive = fleet.consumer()
    held = fleet.claim(alive, BODIES[3])

    alive.start()
    wait_for(lambda: fleet.gone(first)() and fleet.gone(second)())

    assert sorted(fleet.waiting()) == sorted([redelivered(BODIES[0]), BODIES[1], redelivered(BODIES[2])])
    assert fleet.waiting().index(redelivered(BODIES[0])) < fleet.waiting().index(BODIES[1])
    assert fleet.redis.lrange(held.inflight, 0, -1) == [BODIES[3]]


def test_what_was_put_back_too_often_is_given_up(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    poison = redelivered(BODIES[0], 5)
    garbage = b"\xff" + b" " * 7
    dead = fleet.claim(fleet.consumer(SHORT, slots=4), poison, redelivered(BODIES[1], 4), garbage, BODIES[2])
    border = Told(failures=1)

    alive = fleet.consumer(border=border)
    alive.start()
    wait_for(fleet.gone(dead))
    wait_for(lambda: fleet.redis.llen(f"{fleet.queue}:dead") == 2)

    assert fleet.waiting() == [redelivered(BODIES[1], 5), redelivered(BODIES[2])]
    reason = "given up after {} runs, each of which ended with its worker process; the last: the worker went away"
    assert sorted((body, text.startswith(reason.format(runs))) for (body, text), runs in zip_runs(border)) == sorted(
        [(poison, True), (garbage, True)]
    )
    entries = [json.loads(entry) for entry in fleet.redis.lrange(f"{fleet.queue}:dead", 0, -1)]
    assert {entry.get("body") for entry in entries} == {poison.decode(), None}
    assert {entry.get("body_hex") for entry in entries} == {None, garbage.hex()}
    # The backend was down the first time: nothing was buried before the task had failed.
    assert "the backend is down" in caplog.text
    assert fleet.redis.llen(alive.keys_of(fleet.queue).inflight) == 0


def zip_runs(border: Told) -> Iterator[tuple[tuple[bytes, str], int]]:
    for body, text in border.told:
        yield (body, text), 6 if body.startswith(b"{") else 8


def test_what_nobody_can_be_told_of_is_not_lost_with_the_one_who_knows(fleet: Fleet) -> None:
    poison = redelivered(BODIES[0], 5)
    dead = fleet.claim(fleet.consumer(SHORT), poison)
    alive = fleet.consumer(border=Told(failures=10**6))
    alive.start()
    wait_for(fleet.gone(dead))

    alive.retire()

    assert fleet.waiting() == [poison]


def test_who_leaves_gives_back_in_order_and_uncounted(fleet: Fleet) -> None:
    consumer = fleet.consumer(slots=3)
    fleet.claim(consumer, *BODIES[:3])
    fleet.redis.rpush(fleet.queue, BODIES[3])

    assert consumer.retire()

    assert fleet.waiting() == BODIES[:4]
    assert fleet.keys() == {fleet.queue}


def test_who_has_lost_its_lease_goes_on_under_another_name(fleet: Fleet) -> None:
    frozen = fleet.consumer(SHORT)
    before = fleet.claim(frozen, BODIES[0])
    assert frozen.holds(before)
    alive = fleet.consumer()
    alive.start()
    wait_for(fleet.gone(before))
    assert not frozen.is_fresh(before)

    assert not frozen.holds(before)

    after = frozen.keys_of(fleet.queue)
    assert after.inflight != before.inflight
    assert frozen.holds(after)
    assert frozen.is_fresh(after)
    assert not frozen.holds(before)
    assert fleet.redis.zscore(after.consumers, after.consumer) is not None


def test_a_lease_that_is_late_but_there_is_renewed(fleet: Fleet) -> None:
    slow = fleet.consumer(SHORT)
    keys = slow.keys_of(fleet.queue)
    wait_for(lambda: not slow.is_fresh(keys))

    assert slow.holds(keys)

    assert slow.is_fresh(keys)
    assert slow.keys_of(fleet.queue) is keys


def test_who_retires_keeps_what_still_runs_until_it_ends(fleet: Fleet) -> None:
    retiring = fleet.consumer()
    retiring.start()
    keys = fleet.claim(retiring, *BODIES[:4])

    assert not retiring.retire(kept=[(keys, BODIES[1])], settled=[(keys, BODIES[3])])

    assert fleet.waiting() == [BODIES[0], BODIES[2]]
    assert fleet.redis.lrange(keys.inflight, 0, -1) == [BODIES[1]]
    end = fleet.redis.zscore(keys.consumers, keys.consumer)
    wait_for(lambda: fleet.redis.zscore(keys.consumers, keys.consumer) > end)
    assert retiring.is_alive()
    retiring.settle(keys, BODIES[1])
    assert fleet.keys() == {fleet.queue}
    wait_for(lambda: not retiring.is_alive())


def test_who_retires_without_redis_goes_on_when_it_is_back(names: Names) -> None:
    with RedisServer() as server, ExitStack() as stack:
        fleet = Fleet(server.url(), names.queue, stack)
        retiring = fleet.consumer(LONG * 20)
        retiring.start()
        keys = fleet.claim(retiring, *BODIES[:3])
        server.pause()

        assert not retiring.retire(settled=[(keys, BODIES[0])])

        server.resume()
        wait_for(lambda: not retiring.is_alive())
        assert fleet.waiting() == BODIES[1:3]
        assert fleet.keys() == {fleet.queue}


def test_who_retires_without_redis_waits_no_longer_than_its_lease(names: Names) -> None:
    with RedisServer() as server, ExitStack() as stack:
        fleet = Fleet(server.url(), names.queue, stack)
        retiring = fleet.consumer(LONG)
        retiring.start()
        server.kill()

        assert not retiring.retire()

        wait_for(lambda: not retiring.is_alive())
