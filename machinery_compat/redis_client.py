"""Redis connections from Machinery's URLs, and the scripts of this package."""

from __future__ import annotations

import functools
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import redis

from machinery_compat import redis_cluster, redis_sentinel, urls

if TYPE_CHECKING:
    from machinery_compat.config import RedisConfig

__all__ = ["Servers", "client_for", "connection_params", "lua", "pool_of", "same_server"]

#: What a URL's query may set, as Celery's Redis URLs do.
QUERY_OPTIONS = frozenset(
    {
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_check_hostname",
        "ssl_ca_path",
    }
)
_CERT_REQS = {
    "CERT_REQUIRED": "required",
    "CERT_OPTIONAL": "optional",
    "CERT_NONE": "none",
    ssl.CERT_REQUIRED: "required",
    ssl.CERT_OPTIONAL: "optional",
    ssl.CERT_NONE: "none",
}


@dataclass(frozen=True)
class Servers:
    """What the servers of a Redis URL are, which the URL does not say; go-redis has the same rules.

    Attributes:
        master_name: the servers are sentinels of this master; ``""`` for none.
        sentinel_options: arguments of redis-py's connection to them, beside those for the master.
        cluster: one server is a node of a cluster, as several always are where they are no sentinels.
        answer_timeout: seconds that an answer may take where another server may take over; None for any time.
    """

    master_name: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    cluster: bool = False
    answer_timeout: float | None = None

    @classmethod
    def of(cls, config: RedisConfig, options: Mapping[str, Any] | None = None) -> Servers:
        """Those of a configuration, on top of which go the options that Kombu and Celery have for it.

        Args:
            config: Machinery's configuration of Redis.
            options: ``master_name`` and ``sentinel_kwargs``, as in Kombu, and ``cluster_enabled``.
        """
        options = options or {}
        password = {"password": config.sentinel_password} if config.sentinel_password else {}
        return cls(
            master_name=options.get("master_name") or config.master_name,
            sentinel_options={**password, **(options.get("sentinel_kwargs") or {})},
            cluster=bool(options.get("cluster_enabled", config.cluster_enabled)),
            answer_timeout=config.read_timeout or None,
        )

    def are_sentinels(self, address: urls.RedisAddress) -> bool:
        return bool(self.master_name) and not address.unix_socket

    def are_cluster_at(self, url: str) -> bool:
        """Whether the servers of a URL are a cluster."""
        return self.are_cluster(_address(url))

    def are_cluster(self, address: urls.RedisAddress) -> bool:
        many = self.cluster or len(address.hosts) > 1
        return many and not self.master_name and not address.unix_socket


def connection_params(
    url: str, options: Mapping[str, Any] | None = None, tls: Any = None, servers: Servers | None = None
) -> dict[str, Any]:
    """The arguments of a redis-py connection pool for a Machinery URL.

    In the place of a host and a port it has the ``(host, port)`` pairs of a cluster as ``nodes``, for
    :mod:`machinery_compat.redis_cluster`, and those of sentinels as ``sentinels``, with ``master_name``
    and ``sentinel_options``, for :mod:`machinery_compat.redis_sentinel`.

    Args:
        url: any form of Machinery's ``redis://``, ``rediss://`` and ``redis+socket://``.
        options: further arguments of redis-py's connection (timeouts in seconds, client_name…).
        tls: Celery's ``broker_use_ssl``/``redis_backend_use_ssl``: True or a dict of ``ssl_*`` options.
        servers: what they are.

    Raises:
        ConfigError: the URL is not one of these.
    """
    servers = servers or Servers()
    address = _address(url)
    query = url.partition("?")[2]
    params: dict[str, Any] = {k: v for k, v in (options or {}).items() if v is not None}
    params.update(db=address.db, username=address.username or None, password=address.password or None)
    if address.unix_socket:
        params.update(connection_class=redis.UnixDomainSocketConnection, path=address.unix_socket)
        for name in ("socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"):
            params.pop(name, None)
        return params
    secure = _tls_options(tls, query) if address.tls or tls else {}
    if servers.are_sentinels(address):
        if servers.answer_timeout:
            # A master that has gone without a word would be waited for while another one serves.
            params["socket_timeout"] = min(params.get("socket_timeout", servers.answer_timeout), servers.answer_timeout)
        params.update(
            sentinels=[(host or "localhost", port) for host, port in address.hosts],
            master_name=servers.master_name,
            sentinel_options={**servers.sentinel_options, **({"ssl": True, **secure} if secure else {})},
            connection_class=redis_sentinel.TLSMasterConnection if secure else redis_sentinel.MasterConnection,
            **secure,
        )
        return params
    if servers.are_cluster(address):
        # As in Go, whatever the URL says: a cluster has one database.
        params.update(
            db=0,
            nodes=[(host or "localhost", port) for host, port in address.hosts],
            connection_class=redis_cluster.TLSSlotConnection if secure else redis_cluster.SlotConnection,
            **({"ssl": True, **secure} if secure else {}),
        )
        if servers.answer_timeout:
            params["socket_timeout"] = min(params.get("socket_timeout", servers.answer_timeout), servers.answer_timeout)
        return params
    host, port = address.hosts[0]
    params.update(host=host, port=port)
    if secure:
        params.update(connection_class=redis.SSLConnection, **secure)
    return params


def pool_of(params: Mapping[str, Any]) -> redis.ConnectionPool:
    """A pool of connections with the arguments of :func:`connection_params`."""
    if "sentinels" in params:
        return redis_sentinel.pool_of(params)
    return redis.ConnectionPool(**params)


def _address(url: str) -> urls.RedisAddress:
    return urls.parse_redis_url(urls.uncut(url).partition("?")[0])


def _tls_options(tls: Any, query: str) -> dict[str, Any]:
    found: dict[str, Any] = {name: value for name, value in parse_qsl(query) if name in QUERY_OPTIONS}
    if isinstance(tls, Mapping):
        found.update(tls)
    requirement = found.get("ssl_cert_reqs", "required")
    found["ssl_cert_reqs"] = _CERT_REQS.get(requirement, requirement)
    if "ssl_check_hostname" not in found and found["ssl_cert_reqs"] == "none":
        found["ssl_check_hostname"] = False
    return found


def client_for(
    url: str,
    options: Mapping[str, Any] | None = None,
    tls: Any = None,
    servers: Servers | None = None,
    kind: type[redis.Redis] = redis.Redis,
) -> redis.Redis:
    """A client, of a class that the caller chooses, with its own pool of connections; of a cluster that of clusters."""
    params = connection_params(url, options, tls, servers)
    if "nodes" in params:
        return redis_cluster.client_of(params)
    return kind(connection_pool=pool_of(params))


def same_server(one: str, other: str) -> bool:
    """Whether two URLs lead to the same database of the same server."""
    if not all(urlsplit(url).scheme.startswith(("redis", "socket")) for url in (one, other)):
        return False
    return _address(one) == _address(other)


@functools.cache
def lua(name: str) -> str:
    """The text of one of the scripts in ``machinery_compat/lua``; a line ``--% name`` stands for another one."""
    text = (resources.files("machinery_compat") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
    return re.sub(r"^--% (\w+)$", lambda found: lua(found[1]), text, flags=re.MULTILINE)
