"""Connections that are made again with Machinery's pauses, for workers and for senders.

Kombu's own pauses grow by a fixed step. Celery's worker and beat come back through
``Connection.ensure_connection``, a sender through ``Connection.ensure`` and ``default_channel``:
these are the methods overridden here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from itertools import chain
from typing import TYPE_CHECKING, Any

from kombu import Connection as KombuConnection
from kombu.connection import ConnectionPool as KombuConnectionPool
from kombu.connection import PooledConnection as KombuPooledConnection
from kombu.exceptions import BatchPublishError, OperationalError
from kombu.utils.functional import retry_over_time

from machinery_compat import errors, urls
from machinery_compat.transport.base import FAILOVER_PREFIX
from machinery_compat.wire import Signature

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "LONGEST_PAUSE",
    "ConnectionPool",
    "PersistentConnection",
    "PooledConnection",
    "Unavailable",
    "Unconfirmed",
    "pauses",
]

#: The longest pause between two attempts, in seconds.
LONGEST_PAUSE = 30.0


class Unavailable(errors.BrokerError, OperationalError):  # type: ignore[misc]
    """The broker cannot be reached, or takes no messages now."""


class Unconfirmed(BatchPublishError):  # type: ignore[misc]
    """Some messages of a batch are not known to be at the broker.

    Attributes:
        signatures: the tasks in them, in order.
    """

    def __init__(self, signatures: list[Signature]) -> None:
        super().__init__(f"the broker has not confirmed {len(signatures)} messages")
        self.signatures = signatures


def pauses() -> Iterator[int]:
    """The seconds between attempts to reach a broker: 1, 1, 2, 3, 5…, as Go's retry.Closure has them."""
    now, following = 1, 1
    while True:
        yield now
        now, following = following, now + following


class PersistentConnection(KombuConnection):  # type: ignore[misc]
    """A connection that waits Machinery's pauses before it tries again.

    With several URLs the pause comes after each round through all of them.
    """

    def info(self) -> Any:
        """What Kombu shows of a connection, the transport under the name that tools know.

        ``celery inspect stats`` shows it too, without the password; here the URLs hold it as well.
        """
        shown = {**super().info(), "transport": self.transport.driver_type}
        shown["hostname"] = urls.redact(shown["hostname"] or "")
        alternates = [urls.redact(url.removeprefix(FAILOVER_PREFIX)) for url in shown.get("alternates") or ()]
        options = {name: value for name, value in (self.transport_options or {}).items() if name != "sentinel_kwargs"}
        return {**shown, "alternates": alternates, "transport_options": options}

    @property
    def default_channel(self) -> Any:
        if not self.connected:
            options = self.transport_options or {}
            self.ensure_connection(
                errback=options.get("errback"),
                max_retries=options.get("max_retries"),
                interval_max=options.get("interval_max", LONGEST_PAUSE),
                callback=options.get("callback"),
                timeout=options.get("connect_retries_timeout", self.connect_timeout),
            )
        return super().default_channel

    def ensure_connection(
        self,
        errback: Callable[[Exception, float], Any] | None = None,
        max_retries: int | None = None,
        interval_start: float = 1,
        interval_step: float = 1,
        interval_max: float = LONGEST_PAUSE,
        callback: Callable[[], Any] | None = None,
        reraise_as_library_errors: bool = True,
        timeout: float | None = None,
    ) -> Self:
        """Connects, again and again.

        Args:
            errback: called after each failure with the error and the pause in seconds.
            max_retries: attempts after the first one; None for no limit.
            interval_start: no effect, the pauses are Machinery's.
            interval_step: no effect.
            interval_max: the longest pause, in seconds.
            callback: called about once a second while waiting.
            reraise_as_library_errors: raise Unavailable in place of what the driver raises.
            timeout: seconds after which no new attempt begins.

        Raises:
            Unavailable: there is no connection.
        """
        if self.connected:
            return self
        waits = pauses()

        def on_error(exc: Exception, _: Any, tried: int) -> float:
            pause = min(next(waits), interval_max) if self.completes_cycle(tried) else 0
            try:
                if errback is not None:
                    errback(exc, pause)
            finally:
                self.maybe_switch_next()
            return pause

        try:
            retry_over_time(
                self._connect_once,
                self.recoverable_connection_errors,
                errback=on_error,
                max_retries=max_retries,
                interval_max=interval_max,
                callback=callback,
                timeout=timeout,
            )
        except self.recoverable_connection_errors as exc:
            if not reraise_as_library_errors:
                raise
            raise Unavailable(f"the broker {self.as_uri()} cannot be reached: {_text(exc)}") from exc
        return self

    def _connect_once(self) -> None:
        super().ensure_connection(max_retries=0, reraise_as_library_errors=False)

    def ensure(
        self,
        obj: Any,
        fun: Callable[..., Any],
        errback: Callable[[Exception, float], Any] | None = None,
        max_retries: int | None = None,
        interval_start: float = 1,
        interval_step: float = 1,
        interval_max: float = LONGEST_PAUSE,
        on_revive: Callable[[Any], Any] | None = None,
        retry_errors: tuple[type[BaseException], ...] | None = None,
    ) -> Callable[..., Any]:
        """Makes a function that tries again when the broker is lost, as often as *max_retries* says.

        The arguments are those of :meth:`kombu.Connection.ensure`; the pauses are Machinery's. A
        connection that was there and has gone is made again at once.
        """
        lost = self.recoverable_connection_errors
        catch = (*lost, *self.recoverable_channel_errors, *(retry_errors or ()))

        def attempt(*args: Any, **kwargs: Any) -> Any:
            if not self.connected:
                self._connect_once()
                channel = self.default_channel
                obj.revive(channel)
                if on_revive is not None:
                    on_revive(channel)
            return fun(*args, **kwargs)

        @wraps(fun)
        def ensured(*args: Any, **kwargs: Any) -> Any:
            waits = chain((0,), pauses()) if self.connected else pauses()

            def on_error(exc: Exception, _: Any, tried: int) -> float:
                pause = min(next(waits), interval_max) if self.completes_cycle(tried) else 0
                try:
                    if errback is not None:
                        errback(exc, pause)
                finally:
                    if isinstance(exc, lost) and not isinstance(exc, errors.BackendError):
                        # First, since going to the next one says goodbye, and a dead server never answers.
                        self.collect()
                        self.maybe_switch_next()
                return pause

            try:
                return retry_over_time(
                    partial(attempt, *args, **kwargs),
                    catch,
                    errback=on_error,
                    max_retries=max_retries,
                    interval_max=interval_max,
                )
            except errors.BackendError:
                raise
            except (*lost, *self.recoverable_channel_errors) as exc:
                raise Unavailable(f"the broker {self.as_uri()} has not taken the message: {_text(exc)}") from exc

        return ensured


def _text(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


class PooledConnection(PersistentConnection, KombuPooledConnection):  # type: ignore[misc]
    """A connection of a pool, which is where senders take theirs from."""

    def clone(self, **kwargs: Any) -> Any:
        return self._pool.connection.clone(**kwargs)


class ConnectionPool(KombuConnectionPool):  # type: ignore[misc]
    """A pool of such connections."""

    def new(self) -> PooledConnection:
        return PooledConnection(self, **dict(self.connection._info(resolve=False)))
