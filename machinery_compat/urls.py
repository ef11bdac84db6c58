"""Machinery's URL rules, as pure functions: which broker, backend or lock a URL means, and what it says.

Mirrors Go Machinery v1's ``factories.go``. Nothing here connects anywhere, and no error text shows a password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import overload
from urllib.parse import unquote, urlsplit

from machinery_compat import errors

__all__ = [
    "BACKEND_SCHEMES",
    "RedisAddress",
    "backend_kind",
    "broker_kind",
    "check_amqp_url",
    "lock_kind",
    "memcache_addresses",
    "memcache_servers",
    "parse_gcppubsub_url",
    "parse_lock_url",
    "parse_redis_url",
    "redact",
    "uncut",
    "unsupported",
    "with_colon",
]

#: The port of a Redis URL that names none. (Go has no default: there the port is mandatory in practice.)
DEFAULT_REDIS_PORT = 6379
DEFAULT_MEMCACHE_PORT = 11211

_NO_REDIS = "No redis scheme found"
_BAD_SOCKET = (
    "Redis socket connection string should be in format redis+socket://password@/path/to/file.sock:/db, instead got {}"
)
_NO_PUBSUB = "No gcppubsub scheme found"
_BAD_PUBSUB = (
    "gcppubsub scheme should be in format gcppubsub://YOUR_GCP_PROJECT_ID/YOUR_PUBSUB_SUBSCRIPTION_NAME, instead got {}"
)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_SERVER = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^:\[\]/?#@]*))(?::(?P<port>[0-9]{0,5}))?")
_END_OF_SERVERS = re.compile(r"[/?#]")
_END_OF_PATH = re.compile(r"[?#]")
_NO_BROKER = "Factory failed with broker URL"
_ONLY_A_PASSWORD = re.compile(r"^((?:machinery\+)?redis(?:s|\+socket)?://)(?=[^:@/]+@)")

#: The schemes of result backends, as Celery cuts them from a URL.
BACKEND_SCHEMES = ("amqp", "amqps", "memcache", "redis", "rediss", "mongodb", "mongodb+srv", "https", "eager", "null")

_BROKERS = (
    ("amqp://", "amqp"),
    ("amqps://", "amqp"),
    ("redis://", "redis"),
    ("rediss://", "redis"),
    ("redis+socket://", "redis"),
    ("eager", "eager"),
    ("https://sqs", "sqs"),
    ("gcppubsub://", "gcpubsub"),
)
#: Kinds that need no driver; each other one is an extra of this package.
_NO_DRIVER = frozenset({"eager", "null"})
_ANY_SQS = (("http://", "sqs"), ("https://", "sqs"))
_BACKENDS = (
    ("amqp://", "amqp"),
    ("amqps://", "amqp"),
    ("memcache://", "memcache"),
    ("redis://", "redis"),
    ("rediss://", "redis"),
    ("redis+socket://", "redis"),
    ("mongodb://", "mongodb"),
    ("mongodb+srv://", "mongodb"),
    ("eager", "eager"),
    ("null", "null"),
    ("https://dynamodb", "dynamodb"),
)


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis URL leads.

    Attributes:
        hosts: (host, port) pairs, one for the single form; empty for a unix socket. IPv6 hosts are without brackets.
        username: the ACL user, ``""`` for none.
        password: ``""`` for none; never part of the repr.
        db: the number of the database.
        unix_socket: the path of the socket, or None.
        tls: whether the scheme was ``rediss``. (Go looks at its TLSConfig only.)
        is_list: the URL names a list of servers, or was read as one: sentinels, or nodes of a cluster.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    username: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    unix_socket: str | None = None
    tls: bool = False
    is_list: bool = False


def parse_redis_url(url: str, *, as_list: bool = False) -> RedisAddress:
    """Reads ``redis://``, ``rediss://``, their list form and ``redis+socket://``.

    Mirrors Go's ``ParseRedisURL``, ``ParseRedisSocketURL`` and, for lists, the addresses of ``NewGR``.
    User and password are percent-decoded in the single form only, as in Go. Query and fragment are ignored.

    Args:
        url: the URL, without Celery's ``machinery+`` prefix.
        as_list: read a URL of one server by the rules of the list form, as Go does in cluster mode.

    Raises:
        ConfigError: the URL is not one of these forms; the text is Go's where Go has one.
    """
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme == "redis+socket" and rest.startswith("//"):
        return _parse_socket(url, rest[2:])
    if not colon or scheme not in ("redis", "rediss"):
        raise errors.ConfigError(_NO_REDIS)
    body = rest[2:] if rest.startswith("//") else ""
    userinfo, _, servers = body.rpartition("@")
    if as_list or "," in userinfo or "," in _END_OF_PATH.split(servers, maxsplit=1)[0]:
        return _parse_list(url, body, tls=scheme == "rediss")
    return _parse_single(url, body, tls=scheme == "rediss")


def _parse_single(url: str, body: str, tls: bool) -> RedisAddress:
    authority = _END_OF_SERVERS.split(body, maxsplit=1)[0]
    path = _END_OF_PATH.split(body[len(authority) :], maxsplit=1)[0]
    if "@" in body[len(authority) :]:
        # Go would take the first half of such a password for the host, and show it in its error.
        raise errors.ConfigError(f"{redact(url)}: '/', '?', '#' in a password are %2F, %3F, %23; '@' after it is %40")
    userinfo, _, server = authority.rpartition("@")
    username, password = (_decoded(part, url) for part in _credentials(userinfo))
    db = _integer(_decoded(path[1:].partition("/")[0], url))
    return RedisAddress((_host_and_port(_decoded(server, url), url),), username, password, db, tls=tls)


def _parse_list(url: str, body: str, tls: bool) -> RedisAddress:
    """The list form: ``[user:pass@]h1:p,h2:p/DB``, nothing decoded; only the first server carries credentials."""
    first, *others = body.split(",")
    userinfo, _, first = first.rpartition("@")
    if any("@" in other for other in others):
        raise errors.ConfigError(
            f"{redact(url)}: only the first server of a list may carry user and password; "
            "a ',' in a password cannot be written in a list, and is %2C in the URL of one server"
        )
    *front, last = first, *others
    last, _, path = last.partition("/")
    username, password = _credentials(userinfo)
    hosts = tuple(_host_and_port(server, url) for server in (*front, last))
    db = _integer(_END_OF_PATH.split(path, maxsplit=1)[0].partition("/")[0])
    return RedisAddress(hosts, username, password, db, tls=tls, is_list=True)


def _parse_socket(url: str, body: str) -> RedisAddress:
    """``[[user:]pass@]/path/to.sock[:/DB]``: user info up to the first ``@``, path up to the first ``:``."""
    userinfo, at, rest = body.partition("@")
    if not at:
        userinfo, rest = "", body
    path, _, db = rest.partition(":")
    if not path:
        raise errors.ConfigError(_BAD_SOCKET.format(redact(url)))
    username, password = _credentials(userinfo)
    number = _integer(db.partition("/")[2])  # Go has no look at what stands between the ':' and the '/'
    return RedisAddress((), username, password, number, unix_socket=path)


def parse_lock_url(url: str) -> RedisAddress:
    """Reads the URL of a Redis lock, which Go reads by rules of its own.

    A list of servers, always in database 0; what stands before the ``@`` is a password as a whole, never a user.

    Raises:
        ConfigError: no ``redis://`` URL, or one that names a database other than 0.
    """
    if not url.startswith("redis://"):
        raise errors.ConfigError(_NO_REDIS)
    address = parse_redis_url(url, as_list=True)
    if address.db:
        raise errors.ConfigError(
            f"{redact(url)}: Machinery's lock is always in database 0, so leave the /{address.db} out"
        )
    first = url.removeprefix("redis://").partition(",")[0]
    return RedisAddress(address.hosts, password=first.rpartition("@")[0], is_list=True)


def parse_gcppubsub_url(url: str) -> tuple[str, str]:
    """The project and the subscription of a ``gcppubsub://PROJECT/SUBSCRIPTION`` URL; Go's ``ParseGCPPubSubURL``.

    Raises:
        ConfigError: another form; the text is Go's.
    """
    if not url.startswith("gcppubsub://"):
        raise errors.ConfigError(_NO_PUBSUB)
    parts = url.removeprefix("gcppubsub://").split("/")
    if len(parts) != 2 or not all(parts):
        raise errors.ConfigError(_BAD_PUBSUB.format(url))
    return parts[0], parts[1]


def check_amqp_url(url: str) -> None:
    """Checks the port of an ``amqp://`` or ``amqps://`` URL, which Kombu reads when it connects.

    Raises:
        ConfigError: it is none, perhaps since the password is not encoded.
    """
    try:
        valid = urlsplit(url).port != 0
    except ValueError:
        valid = False
    if not valid:
        raise errors.ConfigError(
            f"{redact(url)}: the port must be a number from 1 to 65535 ('/', '?', '#' in a password are %2F, %3F, %23)"
        )


def memcache_servers(url: str) -> list[str]:
    """The ``host:port`` texts of a ``memcache://h1:p,h2:p`` URL.

    Raises:
        ConfigError: another scheme.
    """
    if not url.startswith("memcache://"):
        raise errors.ConfigError(f"Factory failed with result backend: {redact(url)}")
    return url.removeprefix("memcache://").split(",")


def memcache_addresses(url: str) -> list[str | tuple[str, int]]:
    """The servers of a ``memcache://`` URL, each a (host, port) pair or the path of a unix socket.

    Raises:
        ConfigError: one of them is neither.
    """
    return [_memcache_address(text, url) for text in memcache_servers(url)]


def _memcache_address(text: str, url: str) -> str | tuple[str, int]:
    if text.startswith("/"):
        return text
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, str(DEFAULT_MEMCACHE_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in text or "@" in text or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise errors.ConfigError(
            f"{redact(url)}: a Memcache URL is memcache://host:port or memcache://host:port,host:port; "
            "memcached knows no users, passwords and databases"
        )
    return host, int(port)


def broker_kind(url: str, environ: Mapping[str, str] | None = None) -> str:
    """The broker that a URL means: ``amqp``, ``redis``, ``sqs``, ``gcpubsub`` or ``eager``; Go's ``BrokerFactory``.

    Args:
        url: one broker URL.
        environ: where to look for DISABLE_STRICT_SQS_CHECK (default: the process's environment). If it is there,
            with any value, every ``http://`` and ``https://`` URL means SQS.

    Raises:
        ConfigError: no broker has such URLs.
    """
    env = os.environ if environ is None else environ
    if "DISABLE_STRICT_SQS_CHECK" in env:
        return _kind(url, (*_BROKERS, *_ANY_SQS), _NO_BROKER)
    hint = ", SQS of others than Amazon with the variable DISABLE_STRICT_SQS_CHECK" if url.startswith("http") else ""
    return _kind(url, _BROKERS, _NO_BROKER, hint)


def backend_kind(url: str) -> str:
    """The result backend that a URL means; Go's ``BackendFactory``.

    One of ``amqp``, ``memcache``, ``redis``, ``mongodb``, ``eager``, ``null``, ``dynamodb``.

    Raises:
        ConfigError: no backend has such URLs. (Go's server ignores that error and runs without a backend.)
    """
    return _kind(url, _BACKENDS, "Factory failed with result backend")


def lock_kind(url: str) -> str:
    """The lock that a URL means, ``redis`` or ``eager``; Go's ``LockFactory``.

    Everything but ``redis://`` is the eager lock of one process, also ``rediss://`` and ``""``, as in Go.
    """
    return "redis" if url.startswith("redis://") else "eager"


def redact(url: str) -> str:
    """Scheme and servers of a URL, for logs: no user, no password, no path, no query; Go's ``RedactURL``.

    Unlike Go, a URL that cannot be parsed is cut too, and a word without a scheme (``eager``) stays.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url.rpartition("@")[2]
    return scheme + separator + _END_OF_SERVERS.split(rest.rpartition("@")[2], maxsplit=1)[0]


@overload
def with_colon(url: str) -> str: ...
@overload
def with_colon(url: list[str] | tuple[str, ...]) -> list[str]: ...
def with_colon(url: str | list[str] | tuple[str, ...]) -> str | list[str]:
    """Redis URLs in which a password without a user is written ``:password@``, as Celery and Kombu know it.

    Machinery also has ``password@``, which they take for a user, and show.
    """
    if not isinstance(url, str):
        return [with_colon(one) for one in url]
    return ";".join(_ONLY_A_PASSWORD.sub(r"\1:", one) for one in url.split(";"))


def uncut(url: str) -> str:
    """The URL as it was written: Kombu and Celery cut ``redis+socket://`` and ``mongodb+srv://`` at the plus sign."""
    for kind, cut in (("redis", "socket://"), ("mongodb", "srv://")):
        if url.startswith(cut):
            return f"{kind}+{url}"
    return url


def _kind(url: str, table: tuple[tuple[str, str], ...], failure: str, hint: str = "") -> str:
    for prefix, kind in table:
        if url.startswith(prefix):
            return kind
    raise errors.ConfigError(
        f"{failure}: {redact(url)} (supported: {_supported(table)}{hint}, "
        "where [NAME] is the extra with the driver: pip install 'machinery-compat[NAME]')"
    )


def _supported(table: tuple[tuple[str, str], ...]) -> str:
    """The prefixes of URLs, those of one driver together before its extra."""
    prefixes: dict[str, list[str]] = {}
    for prefix, kind in table:
        prefixes.setdefault(kind, []).append(prefix)
    return ", ".join(" ".join(found) + ("" if kind in _NO_DRIVER else f" [{kind}]") for kind, found in prefixes.items())


def _credentials(userinfo: str) -> tuple[str, str]:
    """User and password; a text without ``:`` is a password."""
    username, colon, password = userinfo.partition(":")
    return (username, password) if colon else ("", userinfo)


def _decoded(text: str, url: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise errors.ConfigError(f"{redact(url)}: invalid URL escape; a '%' must be written as %25")
    return unquote(text)


def _integer(text: str) -> int:
    return int(text) if _INTEGER.fullmatch(text) else 0


def _host_and_port(text: str, url: str) -> tuple[str, int]:
    match = _SERVER.fullmatch(text)
    if match is None or (match["port"] and not 1 <= int(match["port"]) <= 65535):
        raise errors.ConfigError(f"{redact(url)}: {text!r} is no host with a port from 1 to 65535")
    return match["ipv6"] or match["host"] or "", int(match["port"] or DEFAULT_REDIS_PORT)


def unsupported(what: str, url: str, kinds: list[str]) -> errors.ConfigError:
    """The error for a URL that Machinery knows and this version of the package does not serve yet."""
    return errors.ConfigError(
        f"Factory failed with {what}: {redact(url)} (this version of machinery_compat serves: {', '.join(kinds)})"
    )
