"""Memcached servers from Machinery's URLs, each key on the server on which Go looks for it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from pymemcache.client.base import PooledClient
from pymemcache.exceptions import MemcacheServerError, MemcacheUnexpectedCloseError

from machinery_compat import errors, urls

__all__ = ["CONNECTION_ERRORS", "MAX_KEY", "Memcached", "TooLargeForServer", "check_key"]

#: Bytes of a key, for memcached and for Go's client.
MAX_KEY = 250
#: Seconds until a connection counts as failed, and until an answer does.
CONNECT_TIMEOUT, TIMEOUT = 5.0, 5.0
#: What ``result_backend_transport_options`` may set.
OPTIONS = frozenset({"connect_timeout", "timeout", "no_delay", "socket_keepalive", "max_pool_size", "tls_context"})
#: What a connection that is gone raises; the same call on another one may do.
STALE = (ConnectionError, MemcacheUnexpectedCloseError)
#: What may be over in a moment.
CONNECTION_ERRORS = (OSError, MemcacheUnexpectedCloseError)
_TOO_LARGE = b"object too large"

Server = str | tuple[str, int]


class TooLargeForServer(Exception):
    """The server refused an item because of its size."""


class Memcached:
    """The servers of a ``memcache://h1:p1,h2:p2`` URL.

    Of several servers the one of a key is found as Go's gomemcache does: CRC-32 of the key modulo
    the number of servers, in the order in which the URL names them. A path is a unix socket.

    Connections are made at the first use, in each process its own, and are shared by its threads.

    Args:
        url: the URL.
        options: further arguments of pymemcache's client, see ``OPTIONS``; times in seconds.

    Raises:
        ConfigError: the URL or an option cannot be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.servers = urls.memcache_addresses(url)
        unknown = sorted(set(options or ()) - OPTIONS)
        if unknown:
            raise errors.ConfigError(
                f"unknown options of the Memcache result backend: {', '.join(unknown)}; "
                f"there are {', '.join(sorted(OPTIONS))}"
            )
        self._options = {"connect_timeout": CONNECT_TIMEOUT, "timeout": TIMEOUT, **(options or {})}
        #: The process and its pools, one a server.
        self._pools: tuple[int, list[PooledClient]] = (0, [])

    # -- single keys

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        """A value, or None, and the mark that :meth:`store` compares."""
        raw = check_key(key)
        value, mark = self._call(self._server_of(raw), "gets", raw)
        return value, mark

    def store(self, key: str, value: bytes, expire: int, mark: Any) -> bool:
        """Writes a value over the one that was read with this mark, or where none was; False if another is there now.

        Raises:
            TooLargeForServer: the server takes no items of this size.
        """
        raw = check_key(key)
        if mark is None:
            return bool(self._call(self._server_of(raw), "add", raw, value, expire, False))
        # None tells that the key is gone.
        return bool(self._call(self._server_of(raw), "cas", raw, value, mark, expire, False))

    def delete(self, key: str) -> None:
        raw = check_key(key)
        self._call(self._server_of(raw), "delete", raw, False)

    # -- many keys, one round trip a server

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys."""
        return [value for value, _ in self._read(keys, "get_many", lambda value: (value, None))]

    def gets_many(self, keys: Sequence[str]) -> list[tuple[bytes | None, Any]]:
        """As :meth:`gets`, for several keys."""
        return self._read(keys, "gets_many", lambda pair: pair)

    def set_many(self, values: Mapping[str, bytes], expire: int) -> None:
        """Writes values over whatever is there.

        Raises:
            TooLargeForServer: the server takes no items of such a size; of the others some may be written.
        """
        shares: dict[int, dict[bytes, bytes]] = {}
        for key, value in values.items():
            raw = check_key(key)
            shares.setdefault(self._server_of(raw), {})[raw] = value
        for server, share in shares.items():
            self._call(server, "set_many", share, expire, False)

    def _read(self, keys: Sequence[str], method: str, pair: Any) -> list[tuple[bytes | None, Any]]:
        shares: dict[int, list[bytes]] = {}
        raws = [check_key(key) for key in keys]
        for raw in raws:
            shares.setdefault(self._server_of(raw), []).append(raw)
        found: dict[bytes, Any] = {}
        for server, share in shares.items():
            found.update(self._call(server, method, share))
        return [pair(found[raw]) if raw in found else (None, None) for raw in raws]

    # -- connections

    def _server_of(self, key: bytes) -> int:
        return zlib.crc32(key) % len(self.servers)

    def _pool(self, server: int) -> PooledClient:
        # Without a lock, which a fork could copy while it is held; a pool made twice does no harm.
        process, pools = self._pools
        if process != os.getpid():
            # Those of the parent of a forked process stay the parent's.
            pools = [self._connect(address) for address in self.servers]
            self._pools = (os.getpid(), pools)
        return pools[server]

    def _connect(self, address: Server) -> PooledClient:
        return PooledClient(address, default_noreply=False, allow_unicode_keys=True, **self._options)

    def _call(self, server: int, method: str, *args: Any) -> Any:
        pool = self._pool(server)
        # A connection that has waited in the pool may be gone; then the next one is tried, and a new one at last.
        for _ in range(len(pool.client_pool.free)):
            try:
                return self._once(pool, method, args)
            except STALE:
                continue
        return self._once(pool, method, args)

    @staticmethod
    def _once(pool: PooledClient, method: str, args: tuple[Any, ...]) -> Any:
        try:
            return getattr(pool, method)(*args)
        except MemcacheServerError as exc:
            if exc.args and isinstance(exc.args[0], bytes) and _TOO_LARGE in exc.args[0]:
                raise TooLargeForServer from exc
            raise

    def close(self) -> None:
        """Closes this process's connections; the next use makes new ones."""
        (process, pools), self._pools = self._pools, (0, [])
        if process == os.getpid():
            for pool in pools:
                pool.close()


def check_key(key: str) -> bytes:
    """A key as memcached takes it.

    Raises:
        BackendError: it takes none of this form.
    """
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raw = b""
    if not 0 < len(raw) <= MAX_KEY or any(byte <= 32 or byte == 127 for byte in raw):
        raise errors.BackendError(
            f"{key!r} cannot be a key of memcached: it must have 1 to {MAX_KEY} bytes, "
            "no blanks and no control characters"
        )
    return raw
