"""Connections to a Redis Cluster: a client for commands, and connections that follow one slot.

A cluster that is changing answers with words that redis-py has many classes for, not all of them
of a lost connection. Here they all are: the command is to be tried again, elsewhere maybe.

The process that keeps leases imports this file by its path, so it imports nothing else of this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis.cluster import ClusterNode, ClusterPipeline
from redis.exceptions import AskError, ClusterDownError, ClusterError, MasterDownError, TryAgainError

__all__ = ["ClusterClient", "SlotConnection", "TLSSlotConnection", "client_of", "pool_of"]

#: What a cluster says while a slot has no server, or another one than the client thinks.
MOVING: Final = (AskError, ClusterDownError, ClusterError, MasterDownError, TryAgainError, redis.ReadOnlyError)


@contextmanager
def _as_lost_connection() -> Iterator[None]:
    try:
        yield
    except redis.ConnectionError:
        raise
    except (*MOVING, redis.exceptions.RedisClusterException) as exc:
        if str(exc).startswith("CROSSSLOT") or "same slot" in str(exc):
            raise
        raise redis.ConnectionError(f"the cluster cannot be reached: {exc}") from exc


class _Pipeline(ClusterPipeline):  # type: ignore[misc]
    def execute(self, raise_on_error: bool = True) -> Any:
        with _as_lost_connection():
            return super().execute(raise_on_error)


class ClusterClient(redis.RedisCluster):  # type: ignore[misc]
    """redis-py's client of a cluster, whose troubles are lost connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with _as_lost_connection():
            super().__init__(*args, **kwargs)

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        with _as_lost_connection():
            return super().execute_command(*args, **kwargs)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Any:
        """Commands for several slots at once; not atomic."""
        return _Pipeline(
            nodes_manager=self.nodes_manager,
            commands_parser=self.commands_parser,
            startup_nodes=self.nodes_manager.startup_nodes,
            result_callbacks=self.result_callbacks,
            cluster_response_callbacks=self.cluster_response_callbacks,
            retry=self.retry,
            lock=self._lock,
        )

    def server_of(self, key: str) -> tuple[str, int]:
        """Host and port of the server that has a key."""
        with _as_lost_connection():
            node = self.get_node_from_key(key)
        return node.host, node.port

    def look_again(self) -> None:
        """Asks the cluster which server has which slots."""
        with _as_lost_connection():
            self.nodes_manager.initialize()


class SlotConnection(redis.Connection):  # type: ignore[misc]
    """A connection to whoever has a key when it connects.

    Args:
        cluster: knows the servers.
        key: one of the slot's keys.
    """

    def __init__(self, *, cluster: ClusterClient, key: str, **kwargs: Any) -> None:
        self._cluster, self._key = cluster, key
        super().__init__(**kwargs)

    def connect(self) -> None:
        if self._sock is None:
            self.host, self.port = self._cluster.server_of(self._key)
        try:
            super().connect()
        except (redis.ConnectionError, redis.TimeoutError):
            self._cluster.look_again()
            raise

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except redis.ResponseError as exc:
            if not isinstance(exc, MOVING) and not str(exc).startswith("UNBLOCKED"):
                raise
            self.disconnect()
            self._cluster.look_again()
            raise redis.ConnectionError(f"the slot of {self._key} has another server: {exc}") from exc


class TLSSlotConnection(SlotConnection, redis.SSLConnection):  # type: ignore[misc]
    """The same over TLS."""


def client_of(params: Mapping[str, Any]) -> ClusterClient:
    """A client.

    Args:
        params: the arguments of a connection, with ``nodes``, the ``(host, port)`` pairs of some of the servers.
    """
    options = {name: value for name, value in params.items() if name not in ("nodes", "db", "connection_class")}
    return ClusterClient(startup_nodes=[ClusterNode(host, port) for host, port in params["nodes"]], **options)


def pool_of(params: Mapping[str, Any], cluster: ClusterClient, key: str) -> redis.ConnectionPool:
    """A pool of connections to the server of a key."""
    options = {name: value for name, value in params.items() if name not in ("nodes", "db", "ssl")}
    return redis.ConnectionPool(cluster=cluster, key=key, **options)
