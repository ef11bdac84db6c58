"""Connections to the master that Redis Sentinel names, made anew when another one takes over.

redis-py asks the sentinels for each new connection, and takes the word of a server that has become
a replica for a lost connection. This module does so for all words with which a server says that it
cannot be the master now, and gives up a sentinel that does not answer in time.

The process that keeps leases imports this file by its path, so it imports nothing else of this package.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool, SentinelManagedConnection

__all__ = ["MasterConnection", "TLSMasterConnection", "pool_of"]

#: What go-redis allows a sentinel for a connection and for an answer, in seconds.
CONNECT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 3.0
#: Seconds between two questions for the master, at least.
ASK_PERIOD: Final = 1.0
#: The answers, also out of a script, of a server that is no master any more, or has just ceased to be it.
NO_MASTER: Final = re.compile(r"(?:^|[ -])(?:READONLY|MASTERDOWN|UNBLOCKED) ")


class Sentinels(Sentinel):  # type: ignore[misc]
    """The sentinels, with a short word for what is wrong with them."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = super().discover_master(service_name)
        except MasterNotFoundError as exc:
            asked = [one.connection_pool.connection_kwargs for one in self.sentinels]
            where = ", ".join(f"{one['host']}:{one['port']}" for one in asked)
            why = "not all of them answer" if " : " in str(exc) else "they know of none, or it is down"
            raise MasterNotFoundError(f"no master {service_name!r} at the sentinels {where}: {why}") from exc
        return found


class MasterConnection(SentinelManagedConnection):  # type: ignore[misc]
    """A connection to whoever is the master when it connects."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except redis.ResponseError as exc:
            if not isinstance(exc, redis.exceptions.MasterDownError) and not NO_MASTER.search(str(exc)):
                raise
            # With the next command the sentinels are asked again.
            self.disconnect()
            raise redis.ConnectionError(f"the master takes no commands now: {exc}") from exc


class TLSMasterConnection(MasterConnection, redis.SSLConnection):  # type: ignore[misc]
    """The same over TLS."""


class MasterPool(SentinelConnectionPool):  # type: ignore[misc]
    """Connections to a master, which asks the sentinels now and then who that is.

    A master that is deposed while it is well goes on for some ten seconds as if nothing had happened,
    and all that it takes in that time is lost.
    """

    _asked = 0.0

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        self._ask()
        return super().get_connection(*args, **kwargs)

    def has_left(self, connection: Any) -> bool:
        """Whether a connection leads to another server than the present master."""
        self._ask()
        at = (connection.host, connection.port)
        return connection._sock is not None and self.master_address not in (None, at)

    def _ask(self) -> None:
        now = time.monotonic()
        if now < self._asked + ASK_PERIOD or self.master_address is None:
            return
        self._asked = now
        with suppress(redis.ConnectionError, redis.TimeoutError):
            # The idle connections are closed if it is another one; those in use when they are given back.
            self.get_master_address()


def pool_of(params: Mapping[str, Any]) -> MasterPool:
    """A pool of connections to a master.

    Args:
        params: the arguments of a connection, with ``sentinels``, ``master_name`` and ``sentinel_options``.
    """
    options = dict(params)
    sentinels = Sentinels(
        [tuple(one) for one in options.pop("sentinels")],
        sentinel_kwargs={
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": ANSWER_TIMEOUT,
            # The next one is asked at once.
            "retry": Retry(NoBackoff(), 0),
            **options.pop("sentinel_options"),
        },
    )
    return MasterPool(options.pop("master_name"), sentinels, **options)
