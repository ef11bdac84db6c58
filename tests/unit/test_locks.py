"""Locks: how often they are tried, the one within a process, and which one a URL means."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from machinery_compat import Config, Server
from machinery_compat.config import RedisConfig
from machinery_compat.errors import ConfigError, LockError
from machinery_compat.locks import EagerLock, Lock, RetryingLock, lock_for

SECOND = 10**9


class Counting(RetryingLock):
    """Fails as often as it is told."""

    failure = "counting lock: failed"

    def __init__(self, failures: int, retries: int = 3, pause: float = 0) -> None:
        super().__init__(retries, pause)
        self.failures = failures
        self.tries = 0

    def lock(self, key: str, value: int) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise LockError(self.failure) from OSError("why")


def test_a_lock_is_tried_four_times() -> None:
    lock = Counting(failures=3)
    lock.lock_with_retries("key", 1)
    assert lock.tries == 4

    lock = Counting(failures=4)
    with pytest.raises(LockError, match="counting lock") as caught:
        lock.lock_with_retries("key", 1)
    assert lock.tries == 4
    assert isinstance(caught.value.__cause__, OSError)


def test_a_lock_pauses_between_its_tries_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(LockError):
        Counting(failures=9, retries=2, pause=0.1).lock_with_retries("key", 1)
    assert pauses == [0.1, 0.1]


@pytest.mark.parametrize(("retries", "pause"), [(-1, 0), (0, -0.1)])
def test_a_lock_cannot_be_tried_less_than_once(retries: int, pause: float) -> None:
    with pytest.raises(ConfigError):
        EagerLock(retries, pause)


def test_an_eager_lock_is_held_until_its_time_is_over() -> None:
    lock = EagerLock(retries=0)
    lock.lock("one", time.time_ns() + SECOND // 10)
    lock.lock("two", time.time_ns() + 60 * SECOND)
    with pytest.raises(LockError, match=r"^eager lock: failed to acquire lock$"):
        lock.lock("two", time.time_ns() + 60 * SECOND)
    time.sleep(0.11)
    lock.lock("one", time.time_ns() + 60 * SECOND)
    with pytest.raises(LockError):
        lock.lock_with_retries("one", time.time_ns() + 60 * SECOND)


def test_one_of_many_threads_gets_an_eager_lock() -> None:
    lock, got = EagerLock(retries=0), []
    until = time.time_ns() + SECOND

    def attempt() -> None:
        try:
            lock.lock("key", until)
        except LockError:
            return
        got.append(True)

    threads = [threading.Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [True]


@pytest.mark.parametrize("url", ["", "eager", "eager://", "rediss://localhost", "memcache://localhost"])
def test_what_is_no_redis_url_means_the_eager_lock(url: str) -> None:
    lock = lock_for(url)
    assert isinstance(lock, EagerLock)
    assert isinstance(lock, Lock)
    assert (lock.retries, lock.pause) == (3, 5.0)
    assert lock_for(url, pause=0, retries=1).pause == 0


def test_an_eager_lock_needs_no_redis_client() -> None:
    program = "import sys; sys.modules['redis'] = None; from machinery_compat.locks import lock_for; lock_for('')"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_redis_url_means_the_shared_lock() -> None:
    lock = lock_for("redis://a:b@example.test:6380", retries=7, pause=0.5)
    connection = lock.client.connection_pool.connection_kwargs  # type: ignore[attr-defined]
    assert (connection["host"], connection["port"], connection["password"]) == ("example.test", 6380, "a:b")
    assert (lock.retries, lock.pause) == (7, 0.5)
    assert (lock_for("redis://example.test").retries, lock_for("redis://example.test").pause) == (3, 0.0)


def test_a_redis_url_with_a_database_is_refused() -> None:
    with pytest.raises(ConfigError, match="database 0"):
        lock_for("redis://example.test/3")


def test_the_servers_of_a_master_are_sentinels() -> None:
    config = Config(redis=RedisConfig(master_name="chief", sentinel_password="secret"))  # noqa: S106 - an example
    lock = lock_for("redis://pass@one.test:26379,two.test:26379", config)
    pool = lock.client.connection_pool  # type: ignore[attr-defined]
    assert pool.service_name == "chief"
    sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["password"]) for one in sentinels] == [("one.test", "secret"), ("two.test", "secret")]
    assert pool.connection_kwargs["password"] == "pass"  # noqa: S105 - an example


def test_a_servers_lock_is_that_of_its_configuration_unless_it_is_given_one() -> None:
    server = Server(Config(broker="eager", result_backend="eager", lock="redis://example.test"))
    assert server.lock is server.lock
    assert type(server.lock).__name__ == "RedisLock"
    own = EagerLock()
    assert Server(Config(broker="eager", result_backend="eager"), lock=own).lock is own
    server.lock = own
    assert server.lock is own
