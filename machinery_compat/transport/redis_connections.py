"""How the Redis transport connects: Machinery's URLs, sentinels, and what Kombu wants to know of its sockets."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import quote

import redis
from kombu.transport import redis as kombu_redis

from machinery_compat import redis_client, redis_sentinel
from machinery_compat.redis_errors import BrokerClient
from machinery_compat.transport import base, border

__all__ = ["ConnectingChannel"]


class ConnectingChannel(kombu_redis.Channel):  # type: ignore[misc]
    """Kombu's Redis channel with connections of Machinery's making."""

    border: border.Border
    _commands: redis.Redis | None = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Kombu's own parameters with the address read as Machinery reads it."""
        client = self.connection.client
        options = {
            "max_connections": self.max_connections,
            "socket_timeout": self.socket_timeout,
            "socket_connect_timeout": self.socket_connect_timeout,
            "socket_keepalive": self.socket_keepalive,
            "socket_keepalive_options": self.socket_keepalive_options,
            "health_check_interval": self.health_check_interval,
            "client_name": self.client_name,
        }
        params = redis_client.connection_params(self.url, options, client.ssl, self.servers)
        connection_class = params.get("connection_class", redis.Connection)
        if asynchronous:
            connection_class = self._watched(connection_class)
        params["connection_class"] = connection_class
        return params

    def _get_pool(self, asynchronous: bool = False) -> redis.ConnectionPool:
        params = self._connparams(asynchronous)
        self.keyprefix_fanout: str = self.keyprefix_fanout.format(db=params["db"])
        pool = redis_client.pool_of(params)
        # Kombu closes the connections to the sentinels together with the pool.
        manager = "_async_sentinel_manager" if asynchronous else "_sentinel_manager"
        setattr(self, manager, getattr(pool, "sentinel_manager", None))
        return pool

    @cached_property
    def servers(self) -> redis_client.Servers:
        """What the servers of the URL are."""
        return redis_client.Servers.of(self.border.redis, self.connection.client.transport_options)

    @cached_property
    def url(self) -> str:
        """The server's URL, put together again where Kombu has taken it apart to go to the next one."""
        client = self.connection.client
        if "://" in client.hostname:
            return str(client.hostname.removeprefix(base.FAILOVER_PREFIX))
        user, password = quote(client.userid or "", safe=""), quote(client.password or "", safe="")
        # A word alone before the @ is a password, Machinery says.
        credentials = f"{user}:{password}@" if client.password is not None else f"{user}@" if user else ""
        database = str(client.virtual_host or "").strip("/")
        return f"{self.connection.scheme}://{credentials}{client.hostname}:{client.port or 6379}/{database}"

    def _get_client(self) -> Any:
        known = super()._get_client()
        return BrokerClient if known is redis.Redis else known

    def _watched(self, connection_class: type) -> type:
        channel = self

        class Connection(connection_class):  # type: ignore[misc]
            """Tells the event loop when its socket goes away."""

            def disconnect(self, *args: Any, **kwargs: Any) -> None:
                super().disconnect(*args, **kwargs)
                if channel._registered:
                    channel._on_connection_disconnect(self)

        return Connection

    @property
    def commands(self) -> redis.Redis:
        """The client for everything that does not block."""
        if self._commands is None:
            self._commands = self._create_commands()
        return self._commands

    def _create_commands(self) -> redis.Redis:
        """Makes a client for tasks, which are kept apart from what is Kombu's where Redis is a cluster."""
        return self._create_client()

    def pool_for(self, queue: str) -> redis.ConnectionPool:
        """The pool whose connections lead to the server of a queue."""
        return self.pool

    def client_for(self, queue: str) -> redis.Redis:
        """A client of the server of a queue, for commands that concern one server."""
        return self.commands

    def has_left(self, connection: redis.Connection) -> bool:
        """Whether another server has become the master since a connection was made."""
        pool = self.pool
        return isinstance(pool, redis_sentinel.MasterPool) and pool.has_left(connection)
