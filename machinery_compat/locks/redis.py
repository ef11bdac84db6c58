"""Machinery's Redis lock, shared with Go processes."""

from __future__ import annotations

import time
from typing import Any, Final

import redis
from redis.backoff import ExponentialBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from machinery_compat import errors, redis_sentinel, urls
from machinery_compat.locks.base import RETRIES, RetryingLock
from machinery_compat.redis_client import lua

__all__ = ["RedisLock", "client_of"]

#: What go-redis, which Go's lock uses, allows for a connection and for an answer, in seconds.
CONNECT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 3.0
#: How often it repeats a command over a broken connection, and its shortest and longest pause in seconds. (redis-py
#: pauses for seconds, in which the time of a lock may be over.)
REPEATS: Final = 3
REPEAT_PAUSE: Final = (0.008, 0.512)
#: Milliseconds that a lock expires before its time, so that it is gone when the next tick comes. (In Go both happen in
#: the same millisecond. A Go process that finds the lock over, and then gone, sends nothing and keeps the others from
#: it: three Go processes lost 3 of 150 ticks of "@every 1s".)
EARLY: Final = 5
_NS_PER_MS: Final = 1_000_000


class RedisLock(RetryingLock):
    """A lock of all processes, Go's and Python's, that use the same Redis; mirrors Go's ``locks/redis``.

    The key holds the time until which the lock is held. Go takes the lock in several steps, this class in one, and who
    finds it held sees to it that it expires in time.

    Args:
        client: a client of the server; any of redis-py's.
        retries: tries after the first. (Go's lock takes none for a configuration that cannot be used.)
        pause: seconds between two tries. (Go makes none.)
    """

    failure = "redis lock: failed to acquire lock"

    def __init__(self, client: redis.Redis, retries: int = RETRIES, pause: float = 0.0) -> None:
        super().__init__(retries, pause)
        self.client = client
        self._take = client.register_script(lua("lock"))

    def lock(self, key: str, value: int) -> None:
        now = time.time_ns()
        left = value + 1 - now
        if left <= 0:
            raise errors.LockError(f"{self.failure}: its time is already over")
        try:
            taken = self._take(keys=[key], args=[value, now, max(left // _NS_PER_MS - EARLY, 1), EARLY])
        except redis.RedisError as error:
            raise errors.LockError(f"{self.failure}: {error}") from error
        if not taken:
            raise errors.LockError(self.failure)


def client_of(url: str, master_name: str = "", sentinel_password: str = "", cluster: bool = False) -> Any:
    """The client that Go's lock makes of a URL: of one server, of sentinels, or of a cluster.

    Args:
        url: as in :func:`machinery_compat.urls.parse_lock_url`.
        master_name: the servers are sentinels of this master.
        sentinel_password: what the sentinels ask for.
        cluster: one server is a node of a cluster, as several always are.

    Raises:
        ConfigError: the URL cannot be used.
        redis.RedisError: none of the cluster's nodes answers.
    """
    address = urls.parse_lock_url(url)
    hosts = [(host or "localhost", port) for host, port in address.hosts]
    options: dict[str, Any] = {
        "password": address.password or None,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
    }
    if master_name:
        options.update(
            sentinels=hosts,
            master_name=master_name,
            sentinel_options={"password": sentinel_password or None},
            connection_class=redis_sentinel.MasterConnection,
            retry=_repeating(),
        )
        return redis.Redis(connection_pool=redis_sentinel.pool_of(options))
    if cluster or len(hosts) > 1:
        return redis.RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in hosts], **options)
    options["retry"] = _repeating()
    host, port = hosts[0]
    return redis.Redis(host=host, port=port, **options)


def _repeating() -> Retry:
    shortest, longest = REPEAT_PAUSE
    return Retry(ExponentialBackoff(cap=longest, base=shortest), REPEATS)
