"""What a Redis server refuses, as errors of this package that name the cause and what to do.

redis-py gives the text of the server, in a pipeline with the command and a piece of its payload.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu.exceptions import OperationalError
from redis.client import Pipeline as RedisPipeline

from machinery_compat import errors

__all__ = ["ADVICE", "BrokerClient", "RefusedByBroker", "RefusedByStore", "StoreClient", "refusal"]

#: The code with which a server refuses what was right, and what the operator does about it.
ADVICE = {
    "OOM": "it is at its maxmemory and may evict nothing; raise maxmemory, or delete what is not needed",
    "MISCONF": "it cannot write its data to its disk and so takes no more; make room there, or see its log",
    "READONLY": "it is a replica, which takes no writes; the URL must lead to the primary",
    "NOREPLICAS": "too few of its replicas are there (min-replicas-to-write); bring them back",
    "MASTERDOWN": "it is a replica that has lost its primary; bring the primary back",
    "NOPERM": "its user may not do that; see its ACL",
}
_CODE = re.compile(rf"\b({'|'.join(ADVICE)})\b")
#: redis-py takes the code away where it has a class for it.
_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (redis.exceptions.OutOfMemoryError, "OOM"),
    (redis.exceptions.ReadOnlyError, "READONLY"),
    (redis.exceptions.NoPermissionError, "NOPERM"),
    (redis.exceptions.MasterDownError, "MASTERDOWN"),
)


class RefusedByBroker(errors.BrokerError, OperationalError, redis.ResponseError):  # type: ignore[misc]
    """The Redis server that is the broker takes no messages now. Kombu and redis-py know it as theirs, too."""


class RefusedByStore(errors.BackendError):
    """The Redis server that keeps the results takes none now."""


def refusal(exc: BaseException) -> str | None:
    """The code of what a server refuses for a reason of its own; None for any other error."""
    for kind, code in _CLASSES:
        if isinstance(exc, kind):
            return code
    # A reader that waits learns of a failover so.
    if isinstance(exc, redis.ResponseError) and str(exc).startswith("UNBLOCKED"):
        return "READONLY"
    found = _CODE.search(str(exc)) if isinstance(exc, redis.ResponseError) else None
    return found[1] if found else None


@contextmanager
def named(kind: type[errors.MachineryError], pool: Any) -> Iterator[None]:
    """Raises what a server refuses as an error of this package."""
    try:
        yield
    except redis.ResponseError as exc:
        code = None if isinstance(exc, errors.MachineryError) else refusal(exc)
        if code is None:
            raise
        what = "broker" if issubclass(kind, errors.BrokerError) else "result backend"
        raise kind(f"the {what} (Redis at {_address(pool)}) refuses it with {code}: {ADVICE[code]}") from exc


def _address(pool: Any) -> str:
    master = getattr(pool, "master_address", None)
    if master:
        return f"{master[0]}:{master[1]}"
    options = pool.connection_kwargs
    return str(options["path"]) if "path" in options else f"{options.get('host')}:{options.get('port')}"


class _Pipeline(RedisPipeline):  # type: ignore[misc]
    refused: type[errors.MachineryError]

    def execute(self, raise_on_error: bool = True) -> Any:
        with named(self.refused, self.connection_pool):
            return super().execute(raise_on_error)


class _Client(redis.Redis):  # type: ignore[misc]
    #: What a refusal becomes.
    refused: type[errors.MachineryError]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        with named(self.refused, self.connection_pool):
            return super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        made = _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.refused = self.refused
        return made


class BrokerClient(_Client):
    """A client of the broker."""

    refused = RefusedByBroker


class StoreClient(_Client):
    """A client of the result backend."""

    refused = RefusedByStore
