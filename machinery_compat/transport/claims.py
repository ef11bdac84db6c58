"""How the Redis transport takes messages: blocking claims, and what becomes of each message."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import redis
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.eventio import ERR, READ

from machinery_compat.redis_client import lua
from machinery_compat.redis_errors import ADVICE, refusal
from machinery_compat.transport import base
from machinery_compat.transport.keeping import KeepingQoS
from machinery_compat.wire import Signature

if TYPE_CHECKING:
    from machinery_compat.transport.caretaker import Keys
    from machinery_compat.transport.redis import Channel

__all__ = ["Claim", "ClaimQoS", "Claimed", "ClaimingPoller", "TaskMessage"]

#: The largest number of messages that one call claims after the first.
BATCH = 50
#: Seconds until a server that hands out nothing is asked again.
REFUSED_PAUSE = 1.0
#: How much longer than it should a wait may last, in seconds at most. A server that is gone without a word never
#: ends it, while another one has taken over.
OVERDUE = 10.0


class Claimed(NamedTuple):
    """A message that this consumer has taken: what it says, its bytes, and where it lies."""

    signature: Signature | None
    body: bytes
    keys: Keys


class TaskMessage(base.TaskPayload, virtual.Message):  # type: ignore[misc]
    """A Kombu message made of a Signature (or, on Kombu's own queues, of Kombu's envelope)."""

    claimed: Claimed | None = None

    def __init__(self, payload: Claimed | Mapping[str, Any], channel: Any = None, **kwargs: Any) -> None:
        if not isinstance(payload, Claimed):
            super().__init__(payload, channel=channel, **kwargs)
            return
        self.claimed = payload
        assert payload.signature is not None
        self.signature = payload.signature
        self.raw_body = payload.body
        fields = self.celery_fields(payload.signature, payload.body)
        queue = payload.keys.queue
        fields["properties"]["delivery_info"] = {
            "exchange": "",
            "routing_key": queue,
            "redelivered": base.was_run(payload.body),
        }
        virtual.base.base.Message.__init__(
            self,
            channel=channel,
            delivery_tag=str(uuid4()),
            delivery_info=fields["properties"]["delivery_info"],
            **fields,
        )
        self._decoded_cache = fields["body"]

    def bury(self, reason: str) -> None:
        self._leave_flight("bury", reason)

    def hand_back(self) -> None:
        self._leave_flight("put_back", "tail")

    def is_ours(self) -> bool:
        channel = self.channel
        if self.claimed is None:
            return True
        return bool(channel.qos.holds(self.delivery_tag) and channel.holds(self.claimed.keys))

    def redeliver(self) -> None:
        self._leave_flight("put_back", "head", base.redelivered(self.raw_body))

    def park(self, seconds: float) -> None:
        self._leave_flight("park", seconds)

    def _leave_flight(self, how: str, *args: Any) -> None:
        assert self.claimed is not None
        getattr(self.channel, how)(self.claimed, *args)
        self.channel.qos.release(self.delivery_tag)
        self._state = "REQUEUED"


class ClaimQoS(KeepingQoS):
    """Acknowledges claimed messages, or puts them back."""

    channel: Channel

    def ack(self, delivery_tag: str) -> None:
        message = self._delivered.get(delivery_tag)
        if message is not None and message.claimed:
            self.channel.settle(message.claimed.keys, message.claimed.body)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        message = self._delivered.get(delivery_tag)
        if message is None:
            # Put back already, with all that its channel had.
            return
        if not message.claimed:
            super().reject(delivery_tag, requeue=requeue)
        elif requeue:
            if message.raw_body == message.claimed.body:
                self.channel.put_back(message.claimed)
            else:
                # As in Celery, so that a task that waits for others in this way lets them pass.
                self.channel.put_back(message.claimed, "tail", message.raw_body)
            self.release(delivery_tag)
        else:
            self.ack(delivery_tag)

    def release(self, delivery_tag: str) -> None:
        """Forgets a message that is no longer in flight."""
        message = self._delivered.get(delivery_tag)
        super().ack(delivery_tag)
        if message is not None and message.claimed:
            self.channel.released(message.claimed.keys, message.claimed.body)

    def holds(self, delivery_tag: str) -> bool:
        """Whether a message has been delivered and neither settled nor put back since."""
        return delivery_tag in self._delivered

    def take_kept(self) -> list[Claimed]:
        """The messages that stay claimed; the others are forgotten, for whoever gives them back."""
        self._flush()
        for tag in [tag for tag in self._delivered if tag not in self.kept]:
            del self._delivered[tag]
        return [message.claimed for message in self._delivered.values() if message.claimed]

    def restore_unacked(self) -> list[Any]:
        """Puts back what was delivered and not finished, so that its order stays."""
        self._flush()
        for tag in reversed([tag for tag in self._delivered if tag not in self.kept]):
            message = self._delivered.pop(tag)
            if message.claimed:
                self.channel.put_back(message.claimed)
        return []


class Claim:
    """One queue's blocking claim, on a connection of its own.

    A wait that only peeked would always lose to Go's BLPOP: BLMOVE is served in its turn.

    Args:
        channel: the channel that consumes.
        queue: the queue.
        timeout: how long one BLMOVE waits, in seconds.
    """

    def __init__(self, channel: Channel, queue: str, timeout: float) -> None:
        self.channel = channel
        self.queue = queue
        #: Those under which it waits, or has waited last.
        self.keys = channel.keys_of(queue)
        self.timeout = timeout
        self.fd: int | None = None
        self.waiting = False
        self._since = 0.0
        self._connection: redis.Connection | None = None
        self._pool: redis.ConnectionPool | None = None
        self._client_id = 0
        #: While the server refuses to hand anything out; in seconds of time.monotonic().
        self._paused_until: float | None = None
        self._more = channel.commands.register_script(lua("claim"))

    def start(self) -> int:
        """Waits for a message; returns the socket to watch."""
        if self._connection is None or self._connection._sock is None:
            self._connect()
        assert self._connection is not None
        self.keys = self.channel.keys_of(self.queue)
        self._connection.send_command("BLMOVE", self.keys.queue, self.keys.inflight, "LEFT", "RIGHT", self.timeout)
        self.waiting, self._since = True, time.monotonic()
        self.fd = self._connection._sock.fileno()
        return self.fd

    def check(self) -> None:
        """Gives up a wait that a server in its senses would have ended long ago, or that is no longer the master.

        Raises:
            ConnectionError: it is such a one.
        """
        if self._connection is not None and self.channel.has_left(self._connection):
            self.waiting = False
            raise redis.ConnectionError(f"queue {self.queue}: there is a new master")
        waited = time.monotonic() - self._since
        patience = min(OVERDUE, self.channel.servers.answer_timeout or OVERDUE)
        if not self.waiting or waited < self.timeout + patience:
            return
        assert self._connection is not None
        if self._connection.can_read(timeout=0):
            # It is this process that was stopped.
            return
        self.waiting = False
        raise redis.ConnectionError(f"queue {self.queue}: the server has not answered for {waited:.0f} s")

    def _connect(self) -> None:
        if self._connection is None:
            self._pool = self.channel.pool_for(self.queue)
            self._connection = self._pool.get_connection()
        self._connection.connect()
        # A reader blocked by the server can only be woken through another connection.
        self._connection.send_command("CLIENT", "ID")
        self._client_id = int(self._connection.read_response())

    def read(self) -> list[bytes]:
        """The message that arrived and those behind it; empty when the wait has run out."""
        assert self._connection is not None
        self.waiting = False
        first = self._connection.read_response()
        self._paused_until = None
        if first is None:
            return []
        room = self.channel.qos.can_consume_max_estimate()
        wanted = BATCH if room is None else min(BATCH, room - 1)
        if wanted <= 0 or not self.channel.holds(self.keys):
            return [first]
        try:
            return [first, *self._more(keys=[self.keys.queue, self.keys.inflight], args=[wanted])]
        except redis.ResponseError as exc:
            if not self.pause(exc):
                raise
            return [first]

    def pause(self, exc: redis.ResponseError) -> bool:
        """Claims nothing for a while, if the server refuses to hand anything out; it may be right again soon."""
        code = refusal(exc)
        if code is None:
            return False
        level = logging.WARNING if self._paused_until is None else logging.DEBUG
        base.logger.log(
            level, "queue %s: Redis hands out nothing (%s: %s); trying again", self.keys.queue, code, ADVICE[code]
        )
        self._paused_until = time.monotonic() + REFUSED_PAUSE
        return True

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()

    def is_paused(self) -> bool:
        return self._paused_until is not None and time.monotonic() < self._paused_until

    def stop(self) -> None:
        """Ends the wait; a message that still came is put back."""
        if self._connection is None:
            return
        try:
            if self.waiting:
                self.channel.client_for(self.queue).client_unblock(self._client_id)
                body = self._connection.read_response()
                if body is not None:
                    self.channel.put_back(Claimed(None, body, self.keys))
        except (redis.RedisError, OSError):
            # Nothing is lost: what was claimed lies in the in-flight list until it is given back.
            pass
        finally:
            self.waiting = False
            self._connection.disconnect()
            assert self._pool is not None
            self._pool.release(self._connection)
            self._connection = None


class ClaimingPoller(kombu_redis.MultiChannelPoller):  # type: ignore[misc]
    """Kombu's poller, which also watches the claims of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self._claims: dict[int, Claim] = {}

    def on_poll_start(self) -> None:
        super().on_poll_start()
        for channel in self._channels:
            claiming = channel.claims and channel.may_claim()
            if claiming or not channel.is_gathering():
                channel.flush_settled()
            for claim in channel.claims.values():
                claim.check()
            if claiming:
                for claim in channel.claims.values():
                    if not claim.waiting and not claim.is_paused():
                        self._watch(claim)

    def _watch(self, claim: Claim) -> None:
        before = claim.fd
        fd = claim.start()
        if before is not None and before != fd:
            self._claims.pop(before, None)
        if self._claims.get(fd) is not claim:
            self._claims[fd] = claim
            self.poller.register(fd, self.eventflags)

    def forget(self, claim: Claim) -> None:
        """Stops watching a claim, before its socket is closed."""
        fd, claim.fd = claim.fd, None
        if fd is not None and self._claims.pop(fd, None) is not None:
            # The event loop may have let go of it already.
            with contextlib.suppress(KeyError, ValueError, OSError):
                self._unregister_from_poll(fd)

    def on_readable(self, fileno: int) -> Any:
        claim = self._claims.get(fileno)
        if claim is None:
            return super().on_readable(fileno)
        try:
            bodies = claim.read() if claim.waiting else self._unexpected(claim)
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            self.forget(claim)
            raise
        except redis.ResponseError as exc:
            if not claim.pause(exc):
                raise
            # The address may lead to another server by then.
            self.forget(claim)
            claim.disconnect()
            bodies = []
        if not bodies:
            raise virtual.base.Empty
        claim.channel.deliver(claim, bodies)
        return True

    def _unexpected(self, claim: Claim) -> list[bytes]:
        # Nobody waits: the server has closed the idle connection.
        self.forget(claim)
        claim.stop()
        return []

    def handle_event(self, fileno: int, event: int) -> Any:
        if fileno in self._claims and event & (READ | ERR):
            return self.on_readable(fileno), self
        return super().handle_event(fileno, event)

    @property
    def fds(self) -> dict[int, Any]:
        return {**super().fds, **self._claims}

    def close(self) -> None:
        for claim in list(self._claims.values()):
            self.forget(claim)
        super().close()
