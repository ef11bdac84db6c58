"""The Redis lock: keys, values and expiries as Go's, and one holder at a time."""

from __future__ import annotations

import threading
import time

import pytest
from redis import Redis

from machinery_compat import redis_client
from machinery_compat.errors import LockError
from machinery_compat.locks import lock_for
from machinery_compat.locks.redis import RedisLock, client_of
from tests.support.processes import free_port
from tests.support.services import RedisServer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.redis

MS = 10**6
SECOND = 10**9
FAILURE = r"^redis lock: failed to acquire lock$"
KEY = "machinery_lock_programname@every 1s"


@pytest.fixture
def client(redis_db: str) -> Redis:
    return redis_client.client_for(redis_db)


@pytest.fixture
def lock(client: Redis) -> RedisLock:
    return RedisLock(client, retries=0)


def test_the_key_holds_the_time_and_expires_with_it(lock: RedisLock, client: Redis) -> None:
    until = time.time_ns() + 5 * SECOND
    lock.lock(KEY, until)
    assert client.get(KEY) == b"%d" % until
    assert 4000 < client.pttl(KEY) <= 5000


def test_a_lock_that_is_held_is_not_taken(lock: RedisLock, client: Redis) -> None:
    until = time.time_ns() + 5 * SECOND
    lock.lock(KEY, until)
    with pytest.raises(LockError, match=FAILURE) as caught:
        lock.lock_with_retries(KEY, until + SECOND)
    assert caught.value.__cause__ is None
    assert client.get(KEY) == b"%d" % until


def test_a_lock_is_free_when_its_time_is_over(lock: RedisLock) -> None:
    lock.lock(KEY, time.time_ns() + 100 * MS)
    time.sleep(0.11)
    lock.lock(KEY, time.time_ns() + SECOND)


@pytest.mark.parametrize("over", ["1", "-5", "999999999999999999", "1700000000000000000"])
def test_a_lock_that_did_not_expire_is_over_by_its_value(lock: RedisLock, client: Redis, over: str) -> None:
    client.set(KEY, over)
    until = time.time_ns() + 5 * SECOND
    lock.lock(KEY, until)
    assert client.get(KEY) == b"%d" % until
    assert 4000 < client.pttl(KEY) <= 5000


@pytest.mark.parametrize("held", ["0", "", "text", "1.5", "9999999999999999999", "10000000000000000000"])
def test_a_lock_with_another_value_is_held(lock: RedisLock, client: Redis, held: str) -> None:
    client.set(KEY, held)
    with pytest.raises(LockError):
        lock.lock(KEY, time.time_ns() + SECOND)
    assert client.get(KEY) == held.encode()


@pytest.mark.parametrize("expiry", [None, 30_000])
def test_a_lock_that_would_outlive_its_time_is_made_to_expire_just_before(
    lock: RedisLock, client: Redis, expiry: int | None
) -> None:
    until = time.time_ns() + 5 * SECOND
    client.set(KEY, until, px=expiry)
    with pytest.raises(LockError):
        lock.lock(KEY, until)
    assert client.get(KEY) == b"%d" % until
    left = (until - time.time_ns()) / MS
    assert left - 30 < client.pttl(KEY) < left


def test_a_lock_that_goes_before_its_time_is_left_alone(lock: RedisLock, client: Redis) -> None:
    until = time.time_ns() + 5 * SECOND
    client.set(KEY, until, px=1000)
    with pytest.raises(LockError):
        lock.lock(KEY, until)
    assert 0 < client.pttl(KEY) <= 1000


def test_nanoseconds_count(lock: RedisLock, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    client.set(KEY, now)
    with pytest.raises(LockError):
        lock.lock(KEY, now + SECOND)
    client.set(KEY, now - 1)
    lock.lock(KEY, now + SECOND)


def test_a_lock_whose_time_is_over_already_is_not_taken(lock: RedisLock, client: Redis) -> None:
    with pytest.raises(LockError, match="already over"):
        lock.lock(KEY, time.time_ns() - SECOND)
    assert client.get(KEY) is None


@pytest.mark.parametrize("left_behind", [False, True])
def test_one_of_many_gets_it(redis_db: str, client: Redis, left_behind: bool) -> None:
    until = time.time_ns() + 60 * SECOND
    for number in range(20):
        if left_behind:
            client.set(f"{KEY}{number}", 1)
        got: list[int] = []
        start = threading.Barrier(8)

        def attempt(key: str = f"{KEY}{number}", got: list[int] = got, start: threading.Barrier = start) -> None:
            mine = RedisLock(redis_client.client_for(redis_db))
            start.wait()
            try:
                mine.lock_with_retries(key, until)
            except LockError:
                return
            got.append(1)

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [1]


def test_a_server_that_is_away_is_told_from_a_lock_that_is_held() -> None:
    with RedisServer() as server:
        url = server.url(0)
        lock = lock_for(url, retries=1)
        lock.lock(KEY, time.time_ns() + SECOND)
    with pytest.raises(LockError, match=FAILURE) as caught:
        lock.lock_with_retries(KEY, time.time_ns() + 60 * SECOND)
    assert isinstance(caught.value.__cause__, Exception)


def test_a_password_is_used() -> None:
    with RedisServer(password="open:sesame") as server:  # noqa: S106 - an example
        url = f"redis://open:sesame@127.0.0.1:{server.port}"
        lock_for(url).lock(KEY, time.time_ns() + SECOND)
        with pytest.raises(LockError) as caught:
            lock_for(f"redis://wrong@127.0.0.1:{server.port}", retries=0).lock(KEY, time.time_ns() + SECOND)
        assert "sesame" not in str(caught.value)


def test_a_cluster_holds_a_lock() -> None:
    # By itself the server would take a port that may not exist.
    with RedisServer(options={"cluster-enabled": "yes", "cluster-port": str(free_port())}) as server:
        admin = Redis(port=server.port)
        admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        wait_for(lambda: admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok", 20, "no cluster")
        lock = RedisLock(client_of(f"redis://127.0.0.1:{server.port}", cluster=True), retries=0)
        until = time.time_ns() + 5 * SECOND
        lock.lock(KEY, until)
        with pytest.raises(LockError):
            lock.lock(KEY, until)
        assert admin.get(KEY) == b"%d" % until
