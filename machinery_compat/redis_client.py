"""Redis connections from Machinery's URLs, and the scripts of this package."""

from __future__ import annotations

import functools
import re
import ssl
from collections.abc import Mapping
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis

from machinery_compat import errors, urls

__all__ = ["client_for", "connection_params", "lua"]

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


def connection_params(url: str, options: Mapping[str, Any] | None = None, tls: Any = None) -> dict[str, Any]:
    """The arguments of a redis-py connection pool for a Machinery URL.

    Args:
        url: any form of Machinery's ``redis://``, ``rediss://`` and ``redis+socket://``.
        options: further arguments of redis-py's connection (timeouts in seconds, client_name…).
        tls: Celery's ``broker_use_ssl``/``redis_backend_use_ssl``: True or a dict of ``ssl_*`` options.

    Raises:
        ConfigError: the URL is not one of these, or names several servers.
    """
    address = _address(url)
    query = url.partition("?")[2]
    params: dict[str, Any] = {k: v for k, v in (options or {}).items() if v is not None}
    params.update(db=address.db, username=address.username or None, password=address.password or None)
    if address.unix_socket:
        params.update(connection_class=redis.UnixDomainSocketConnection, path=address.unix_socket)
        for name in ("socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"):
            params.pop(name, None)
        return params
    if len(address.hosts) != 1:
        raise errors.ConfigError(
            f"{urls.redact(url)} names several Redis servers; clusters and sentinels are not supported yet"
        )
    host, port = address.hosts[0]
    params.update(host=host, port=port)
    if address.tls or tls:
        params.update(connection_class=redis.SSLConnection, **_tls_options(tls, query))
    return params


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
    url: str, options: Mapping[str, Any] | None = None, tls: Any = None, kind: type[redis.Redis] = redis.Redis
) -> redis.Redis:
    """A client, of a class that the caller chooses, with its own pool of connections."""
    return kind(connection_pool=redis.ConnectionPool(**connection_params(url, options, tls)))


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
