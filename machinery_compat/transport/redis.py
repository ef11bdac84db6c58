"""Machinery's Redis broker as a Kombu transport.

Tasks lie on Redis as Go puts and takes them: one list a queue, one sorted set of delayed tasks.
A message is claimed with BLMOVE into a list of this consumer's own, guarded by a lease, and
leaves that list when it is acknowledged: a killed worker loses nothing. Go workers never see
these keys. Queues that Kombu makes for itself (remote control, replies, events) are Kombu's.

Transport options, beside those of Kombu's own Redis transport:

``lease_time``                 seconds until another worker takes over a silent one's messages (30)
``redelivery_limit``           how often a message is put back because its worker died (5)
``delayed_tasks_key``          the sorted set of delayed tasks (``delayed_tasks``)
``delayed_tasks_poll_period``  seconds between two looks at it at most (0.5)
``normal_tasks_poll_period``   seconds that one blocking claim lasts (1.0)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import time_ns
from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from machinery_compat import errors, redis_client, urls
from machinery_compat.redis_client import lua
from machinery_compat.transport import base, border, payloads
from machinery_compat.transport.caretaker import Caretaker, Keys
from machinery_compat.transport.claims import Claim, Claimed, ClaimingPoller, ClaimQoS, TaskMessage
from machinery_compat.transport.dead_redis import RedisDeadLetters
from machinery_compat.transport.event_loop import EventLoopTransport
from machinery_compat.transport.lease_keeper import RENEWALS, LeaseKeeper
from machinery_compat.transport.redis_connections import ConnectingChannel
from machinery_compat.wire import Signature

__all__ = ["Channel", "Transport"]


#: The seconds for which an acknowledgement may wait for others, while this worker has enough to do.
SETTLED_WITHIN = 0.01


class Channel(RedisDeadLetters, base.TaskChannel, ConnectingChannel):
    """A Redis channel whose task messages are Signatures."""

    QoS = ClaimQoS
    Message = TaskMessage
    Caretaker = Caretaker

    ack_emulation = False
    max_connections = 1000
    lease_time = 30.0
    delayed_tasks_key = "delayed_tasks"
    delayed_tasks_poll_period = 0.5
    normal_tasks_poll_period = 1.0

    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "lease_time",
        "delayed_tasks_key",
        "delayed_tasks_poll_period",
        "normal_tasks_poll_period",
    )

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self.border = border.border_of(connection.client.transport_options)
        self.claims: dict[str, Claim] = {}
        self.kombu_queues: set[str] = set()
        self._caretaker: Caretaker | None = None
        self._settled: deque[tuple[Keys, bytes]] = deque()
        self._flush_timer: Any = None
        self._undelivered: deque[Claimed] = deque()
        super().__init__(connection, **kwargs)
        self.QoS = ClaimQoS
        self.delayed_tasks_key = self.delayed_tasks_key or Channel.delayed_tasks_key

    # -- publishing

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **kwargs: Any) -> Any:
        if not isinstance(message, Signature):
            return super().basic_publish(message, exchange, routing_key, **kwargs)
        batch = kwargs.get("_publish_batch")
        if not message.routing_key:
            message.routing_key = self.border.queue_of(exchange, routing_key)
        self.border.publishing(message)
        body = self.encoded(message)
        if batch is not None:
            self._send(batch.add, message, body)
        else:
            self._publish(message, body)
        return None

    def _publish(self, message: Signature, body: bytes) -> None:
        with self.commands.pipeline(transaction=False) as pipe:
            self._send(lambda name, *args: pipe.execute_command(*command_of(name, args)), message, body)
            pipe.execute()

    def _send(self, command: border.Command, signature: Signature, body: bytes) -> None:
        # With a prefix for the broker's keys the state would get it too.
        self.border.before_publish(signature, self.url, None if self.global_keyprefix else command)
        due = signature.eta_ns
        if due is not None and due > time_ns():
            # The score goes out as text: a float would lose its last digits here already.
            command("execute_command", "ZADD", self.delayed_tasks_key, due, body)
        else:
            push(partial(command, "execute_command"), signature.routing_key, body, signature.priority)

    # -- consuming

    def _new_queue(self, queue: str, auto_delete: bool = False, **kwargs: Any) -> None:
        self.note_queue(queue, auto_delete, kwargs.get("arguments"))
        super()._new_queue(queue, auto_delete=auto_delete, **kwargs)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        # A task goes to the list that its RoutingKey names; Go knows no bindings on Redis.
        if not self.is_task_queue(queue) or self.typeof(exchange).type == "fanout":
            super()._queue_bind(exchange, routing_key, pattern, queue)

    def is_task_queue(self, queue: str) -> bool:
        return queue not in self.kombu_queues and queue not in self._fanout_queues

    @property
    def active_queues(self) -> list[str]:
        """The queues that are Kombu's to read: those that carry no tasks."""
        return [queue for queue in super().active_queues if queue not in self.claims]

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        if self.is_task_queue(queue) and queue not in self.claims:
            self.require_application()
            self._start_claim(queue)
        return super().basic_consume(queue, no_ack=no_ack, callback=callback, consumer_tag=consumer_tag, **kwargs)

    def _start_claim(self, queue: str) -> None:
        lease = self.lease_time
        if self._caretaker is None:
            self._caretaker = self.Caretaker(
                self._create_commands,
                self.border,
                lease=lease,
                slots=self.slots,
                keeper=LeaseKeeper(self._connparams(), lease, lua("renew")) if self.runs_tasks else None,
                delayed_key=self.delayed_tasks_key,
                poll_period=self.delayed_tasks_poll_period,
            )
            self._caretaker.start()
        self._caretaker.watch(queue)
        # A wait that goes on without this process, when it is frozen, must end before the lease does.
        self.claims[queue] = Claim(self, queue, timeout=min(self.normal_tasks_poll_period, lease / RENEWALS))

    def keys_of(self, queue: str) -> Keys:
        """The keys under which this channel claims messages of a queue now."""
        assert self._caretaker is not None
        return self._caretaker.keys_of(queue)

    def holds(self, keys: Keys) -> bool:
        """Whether what was claimed under these keys is still this channel's."""
        return self._caretaker is not None and self._caretaker.holds(keys)

    def _basic_cancel(self, consumer_tag: str) -> Any:
        claim = self.claims.pop(self._tag_to_queue.get(consumer_tag, ""), None)
        if claim is not None:
            self.connection.cycle.forget(claim)
            claim.stop()
        return super()._basic_cancel(consumer_tag)

    def may_claim(self) -> bool:
        caretaker = self._caretaker
        if caretaker is None or not self._has_room():
            return False
        if not all(caretaker.is_fresh(caretaker.keys_of(queue)) for queue in self.claims):
            # What were taken now would lie in a list that nobody guards.
            return False
        asked = self.border.pre_consume
        return asked is None or asked()

    def is_gathering(self) -> bool:
        """Whether what was settled waits for more, since a timer sees to it."""
        return self._flush_timer is not None

    def _has_room(self) -> bool:
        """Whether so many more may be held here that to claim them is worth its round trips.

        What waits behind the running tasks feeds the pool until then. A worker that holds no more
        than it runs claims each one.
        """
        room = self.qos.can_consume_max_estimate()
        return room is None or room >= max(1, (self.qos.prefetch_count - self.slots()) // 2)

    def deliver(self, claim: Claim, bodies: list[bytes]) -> None:
        """Delivers claimed messages in order; what is no Signature goes to the dead list."""
        keys = claim.keys
        if not self.holds(keys):
            for body in reversed(bodies):
                self.put_back(Claimed(None, body, keys))
            return
        arrived: list[tuple[Signature, bytes]] = []
        for body in bodies:
            try:
                arrived.append((payloads.decode(body, self.border.max_body_size), body))
            except errors.DecodeError as exc:
                self.bury(Claimed(None, body, keys), f"Could not unmarshal into a task signature: {exc}")
        self.border.received([signature for signature, _ in arrived], [base.deliveries(body) for _, body in arrived])
        self._undelivered.extend(Claimed(signature, body, keys) for signature, body in arrived)
        # A worker that runs tasks where they are delivered may give the rest back meanwhile.
        while self._undelivered:
            claimed = self._undelivered.popleft()
            self.connection._deliver(claimed, claimed.keys.queue)

    def give_back_undelivered(self) -> None:
        while self._undelivered:
            self.put_back(self._undelivered.pop())

    # -- settling

    def settle(self, keys: Keys, body: bytes) -> None:
        """Forgets a message that has been dealt with, soon, together with others."""
        if self.closed:
            self.released(keys, body)
        else:
            self._settled.append((keys, body))
            if not self.claims:
                # Nothing is consumed any more, so there may be no next round.
                self.flush_settled()
            elif self._flush_timer is None:
                self._flush_timer = self.connection.call_later(SETTLED_WITHIN, self.flush_settled)

    def released(self, keys: Keys, body: bytes) -> None:
        """Called when a message lies in flight no longer, which may be after the channel has been closed."""
        if self.closed and self._caretaker is not None:
            self._caretaker.settle(keys, body)

    def keep(self, messages: Iterable[base.TaskPayload]) -> None:
        self.qos.kept.update(message.delivery_tag for message in messages)

    def flush_settled(self) -> None:
        """Acknowledges in one round trip what was settled since the last time."""
        timer, self._flush_timer = self._flush_timer, None
        if timer is not None:
            timer.cancel()
        if not self._settled:
            return
        batch = [self._settled.popleft() for _ in range(len(self._settled))]
        try:
            with self.commands.pipeline(transaction=False) as pipe:
                for keys, body in batch:
                    pipe.lrem(keys.inflight, 1, body)
                pipe.execute()
        except redis.RedisError:
            self._settled.extendleft(reversed(batch))
            raise

    def put_back(self, claimed: Claimed, at: str = "head", what: bytes = b"") -> None:
        """Returns a claimed message, or ``what`` in its place, to the head or the tail of its queue."""
        self._move(claimed, claimed.keys.queue, at, what)

    def park(self, claimed: Claimed, seconds: float) -> None:
        """Lets a claimed message wait among the delayed tasks, which bring it to the queue's tail."""
        due, what = self._parked(claimed, seconds)
        keys = (claimed.keys.inflight, self.delayed_tasks_key)
        self.commands.eval(lua("park"), 2, *keys, claimed.body, due, what)

    @staticmethod
    def _parked(claimed: Claimed, seconds: float) -> tuple[int, bytes]:
        """When a message that waits is due, in Unix ns, and what waits."""
        signature = payloads.decode(claimed.body)
        signature.routing_key = claimed.keys.queue
        what = signature.encode() + base.marks(claimed.body)
        return time_ns() + int(seconds * 1e9), what

    def bury(self, claimed: Claimed, reason: str) -> None:
        """Keeps a message that nobody can run in ``<queue>:dead``, with the reason."""
        queue, body = claimed.keys.queue, claimed.body
        dead = payloads.dead_queue(queue)
        payloads.log_buried(body, reason, dead)
        self._move(claimed, dead, "tail", payloads.dead_letter(body, reason, queue))

    def _move(self, claimed: Claimed, target: str, at: str, what: bytes) -> None:
        self.commands.eval(lua("put_back"), 2, claimed.keys.inflight, target, claimed.body, at, what)

    # -- the rest of a queue's life

    def _size(self, queue: str) -> int:
        return int(self.commands.llen(queue)) if self.is_task_queue(queue) else int(super()._size(queue))

    def _purge(self, queue: str) -> int:
        if not self.is_task_queue(queue):
            return int(super()._purge(queue))
        size, _ = self.commands.pipeline().llen(queue).delete(queue).execute()
        return int(size)

    def _get(self, queue: str) -> Any:
        if not self.is_task_queue(queue):
            return super()._get(queue)
        if self._caretaker is None:
            self._start_claim(queue)
            del self.claims[queue]
        keys = self.keys_of(queue)
        body = self.commands.lmove(queue, keys.inflight, "LEFT", "RIGHT")
        if body is None:
            raise virtual.base.Empty
        try:
            return Claimed(payloads.decode(body, self.border.max_body_size), body, keys)
        except errors.DecodeError as exc:
            self.bury(Claimed(None, body, keys), f"Could not unmarshal into a task signature: {exc}")
            raise virtual.base.Empty from exc

    def pending_tasks(self, queue: str) -> list[Signature]:
        """The tasks in a queue, the next one first."""
        return payloads.decode_all(self.commands.lrange(queue, 0, -1), queue)

    def delayed_tasks(self) -> list[Signature]:
        """The tasks that are not due yet, the earliest first."""
        return payloads.decode_all(self.commands.zrange(self.delayed_tasks_key, 0, -1), self.delayed_tasks_key)

    def close(self) -> None:
        if not self.closed:
            for consumer_tag in list(self._consumers):
                if self._tag_to_queue.get(consumer_tag) in self.claims:
                    self._basic_cancel(consumer_tag)
            self._leave()
        super().close()

    def _leave(self) -> None:
        caretaker = self._caretaker
        if caretaker is None:
            return
        kept = self._qos.take_kept() if self._qos else []
        settled, self._settled = self._settled, deque()
        if caretaker.retire([(claimed.keys, claimed.body) for claimed in kept], settled):
            self._caretaker = None


def push(execute: Callable[..., Any], queue: str, body: bytes, priority: int) -> None:
    """Puts a message into a queue, in front of those with a lower priority."""
    if priority:
        execute("EVAL", lua("publish_priority"), 1, queue, body, priority)
    else:
        execute("RPUSH", queue, body)


def command_of(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A command of a batch as a client takes it."""
    return args if name == "execute_command" else (name, *args)


class Transport(EventLoopTransport, kombu_redis.Transport):  # type: ignore[misc]
    """Kombu transport for Machinery's Redis URLs."""

    Channel = Channel

    scheme = "redis"
    #: The URL is Machinery's and is read as Machinery reads it, not by Kombu.
    can_parse_url = True
    #: Nothing is tried again below a batch, and no URL can say otherwise: Kombu need not look into it.
    supports_batch_publish = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = ClaimingPoller()
        if self.is_cluster():
            from machinery_compat.transport.redis_cluster import Channel as ClusterChannel

            self.Channel = ClusterChannel
            self.supports_batch_publish = False

    def is_cluster(self) -> bool:
        """Whether the servers of the URL are a cluster."""
        url = str(self.client.hostname or "").removeprefix(base.FAILOVER_PREFIX)
        # What Kombu has taken apart is the URL of one server.
        url = url if "://" in url else "redis://one"
        options = self.client.transport_options or {}
        return redis_client.Servers.of(border.border_of(options).redis, options).are_cluster_at(url)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        uri = uri.removeprefix(base.FAILOVER_PREFIX)
        if include_password:
            return uri
        if uri.startswith("socket://"):
            return f"redis+socket://{redis_client.connection_params(uri)['path']}"
        return urls.redact(uri)


class TLSTransport(Transport):
    """The same over TLS, for ``rediss://``."""

    scheme = "rediss"
