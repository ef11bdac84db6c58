"""The lock that keeps several processes from sending the same periodic task; Go's ``locks``."""

from __future__ import annotations

from typing import Any

from machinery_compat import drivers, urls
from machinery_compat.config import Config
from machinery_compat.locks.base import Lock, RetryingLock
from machinery_compat.locks.eager import EagerLock

__all__ = ["EagerLock", "Lock", "RetryingLock", "lock_for"]


def lock_for(
    url: str, config: Config | None = None, *, retries: int | None = None, pause: float | None = None
) -> RetryingLock:
    """The lock that a URL means; mirrors Go's ``LockFactory``.

    ``redis://`` URLs mean a lock on Redis, everything else, also ``""``, one within this process.

    Args:
        url: the URL, as ``Config.lock`` holds it.
        config: tells of sentinels and clusters.
        retries: tries after the first (default: 3, as Go).
        pause: seconds between two tries (default, as Go: 0 on Redis, 5 within a process).

    Raises:
        ConfigError: the URL cannot be used, or its driver is not installed.
    """
    given = {"retries": retries, "pause": pause}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if urls.lock_kind(url) == "eager":
        return EagerLock(**chosen)
    # Only here, so that an eager lock needs no Redis client.
    taker = drivers.load("machinery_compat.locks.redis:RedisLock", "redis")
    from machinery_compat.locks import redis

    settings = (config or Config()).redis_settings
    client = redis.client_of(url, settings.master_name, settings.sentinel_password, settings.cluster_enabled)
    lock: RetryingLock = taker(client, **chosen)
    return lock
