"""One lock for Go and Python: whoever takes it, the other sees it held."""

from __future__ import annotations

import threading
import time

import pytest
from redis import Redis

from machinery_compat import redis_client
from machinery_compat.errors import LockError
from machinery_compat.locks import lock_for
from machinery_compat.locks.base import RetryingLock
from tests.conftest import GoClientFactory, Names
from tests.support.golang import GoClient
from tests.support.services import RedisServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.go, pytest.mark.redis]

SECOND = 10**9
FAILURE = "redis lock: failed to acquire lock"


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    """Database 0, which is that of every lock in v1, written so that v1 can read it."""
    return redis_server.url(0).removesuffix("/0")


@pytest.fixture(params=["v2-redigo", "v1-redis"])
def go(request: pytest.FixtureRequest, url: str, redis_db: str, names: Names, go_client: GoClientFactory) -> GoClient:
    return go_client(flavor=request.param, broker=redis_db, backend=redis_db, queue=names.queue, lock=url)


@pytest.fixture
def python(url: str) -> RetryingLock:
    return lock_for(url)


@pytest.fixture
def redis(url: str) -> Redis:
    return redis_client.client_for(url)


def refused_by_go(go: GoClient, key: str, until: int) -> bool:
    answer = go.request(op="lock_with_retries", key=key, until=until)
    assert answer.get("error", FAILURE) == FAILURE
    return "error" in answer


def test_what_go_has_taken_is_held_for_python(go: GoClient, python: RetryingLock, names: Names) -> None:
    until = time.time_ns() + 1_500_000_000
    go.must(op="lock_with_retries", key=names.queue, until=until)
    with pytest.raises(LockError, match=f"^{FAILURE}$"):
        python.lock_with_retries(names.queue, until)
    wait_for(lambda: time.time_ns() > until)
    python.lock_with_retries(names.queue, time.time_ns() + SECOND)


def test_what_python_has_taken_is_held_for_go(go: GoClient, python: RetryingLock, names: Names) -> None:
    until = time.time_ns() + 1_500_000_000
    python.lock_with_retries(names.queue, until)
    assert refused_by_go(go, names.queue, until)
    wait_for(lambda: time.time_ns() > until)
    assert not refused_by_go(go, names.queue, time.time_ns() + SECOND)


def test_both_write_the_same(go: GoClient, python: RetryingLock, redis: Redis, names: Names) -> None:
    until = time.time_ns() + 5 * SECOND
    go.must(op="lock", key=names.queue, until=until)
    python.lock(names.exchange, until)
    assert redis.get(names.queue) == redis.get(names.exchange)
    assert abs(redis.pttl(names.queue) - redis.pttl(names.exchange)) < 1000


@pytest.mark.parametrize("value", [1, "text", 0])
def test_both_judge_a_value_without_expiry_alike(
    go: GoClient, python: RetryingLock, redis: Redis, names: Names, value: object
) -> None:
    until = time.time_ns() + 5 * SECOND
    redis.mset({names.queue: str(value), names.exchange: str(value)})
    refused = "error" in go.request(op="lock", key=names.queue, until=until)
    assert refused == (value != 1)
    if refused:
        with pytest.raises(LockError):
            python.lock(names.exchange, until)
    else:
        python.lock(names.exchange, until)
    assert redis.get(names.queue) == redis.get(names.exchange)


def test_one_of_both_gets_it(go: GoClient, python: RetryingLock, names: Names) -> None:
    for number in range(100):
        key, until = f"{names.queue}-{number}", time.time_ns() + 30 * SECOND
        start, got = threading.Barrier(2), []

        def by_go(key: str = key, until: int = until, start: threading.Barrier = start) -> None:
            start.wait()
            if not refused_by_go(go, key, until):
                got.append("go")  # noqa: B023 - the thread ends within its turn of the loop

        thread = threading.Thread(target=by_go)
        thread.start()
        start.wait()
        try:
            python.lock_with_retries(key, until)
            got.append("python")
        except LockError:
            pass
        thread.join()
        assert len(got) == 1
