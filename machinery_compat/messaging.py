"""The application's way to the broker: Machinery's connection, its one exchange and its queues."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any
from uuid import uuid4

from celery.app.amqp import AMQP as CeleryAMQP
from celery.app.amqp import Queues as CeleryQueues
from celery.app.control import Control as CeleryControl
from celery.backends.rpc import RPCBackend
from kombu import Exchange, Queue
from kombu.pidbox import Mailbox as KombuMailbox
from kombu.pools import ProducerPool

from machinery_compat.transport import FAILOVER_PREFIX, transport_for
from machinery_compat.transport.base import SERIALIZER
from machinery_compat.transport.reconnect import ConnectionPool, PersistentConnection

__all__ = ["AMQP", "Connection", "Control", "Queues"]

PREFIX = "machinery+"


class Connection(PersistentConnection):
    """A connection whose transport is chosen by Machinery's URL rules."""

    def __init__(self, hostname: Any = "localhost", *args: Any, transport: Any = None, **kwargs: Any) -> None:
        if isinstance(hostname, str):
            hostname = [url for url in hostname.split(";") if url]
        found = [transport_for(url.removeprefix(PREFIX)) for url in hostname or ["localhost"]]
        if isinstance(transport, str) and ":" not in transport and not transport.startswith((PREFIX, FAILOVER_PREFIX)):
            # The setting broker_transport names one of Kombu's, which does not speak Machinery.
            transport = None
        addresses = [one.url for one in found]
        if len(addresses) > 1:
            # Going to the next one, Kombu looks at the scheme only, and knows another transport for it.
            addresses = [f"{FAILOVER_PREFIX}{url}" for url in addresses]
        super().__init__(
            addresses if len(addresses) > 1 else addresses[0],
            *args,
            transport=transport or found[0].transport,
            **kwargs,
        )

    def Pool(self, limit: int | None = None, **kwargs: Any) -> ConnectionPool:
        return ConnectionPool(self, limit, **kwargs)


class Mailbox(KombuMailbox):  # type: ignore[misc]
    """The mailbox of remote control; commands reach a worker by the exchange, whatever its queue's name."""

    app: Any = None

    def get_queue(self, hostname: str) -> Queue:
        """A worker's queue, on RabbitMQ with a name of its own for each connection.

        It is an exclusive one. The broker may keep that of a connection that is cut off for minutes,
        and a worker that came back before would be refused and end.
        """
        queue = super().get_queue(hostname)
        if self.app.amqp.is_amqp():
            queue.name = f"{queue.name}.{uuid4().hex[:8]}"
        return queue


class Control(CeleryControl):  # type: ignore[misc]
    """Celery's remote control with such a mailbox."""

    Mailbox = Mailbox

    def __init__(self, app: Any = None) -> None:
        super().__init__(app)
        self.mailbox.app = app


class DefaultQueue(Queue):  # type: ignore[misc]
    """The default queue, which gets what that of a Go worker gets.

    Where the exchange is not a direct one, Go binds it with the binding key, and yet sends what has
    no RoutingKey to the queue's name.
    """

    attrs = (*Queue.attrs, ("binding_key", None))

    def queue_bind(self, nowait: bool = False, channel: Any = None) -> Any:
        if self.binding_key:
            self.bind_to(self.exchange, self.binding_key, self.binding_arguments, channel=channel, nowait=nowait)
        return super().queue_bind(nowait=nowait, channel=channel)


class Queues(CeleryQueues):  # type: ignore[misc]
    """Queues that are declared with the arguments of Machinery's configuration."""

    declare_args: dict[str, Any] | None = None
    binding_args: dict[str, Any] | None = None

    def new_missing(self, name: str) -> Queue:
        queue = super().new_missing(name)
        queue.queue_arguments = {**(self.declare_args or {}), **(queue.queue_arguments or {})} or None
        queue.binding_arguments = self.binding_args
        return queue


class AMQP(CeleryAMQP):  # type: ignore[misc]
    """Celery's messaging with Machinery's connection, its one exchange and its queues."""

    Connection = Connection
    queues_cls = Queues
    _producer_pool: Any = None

    def Queues(self, queues: Any, *args: Any, **kwargs: Any) -> Queues:
        conf, settings = self.app.conf, self.app.machinery.config.amqp_settings
        if not queues and conf.task_default_queue:
            direct = conf.task_default_exchange_type == "direct"
            queues = (
                DefaultQueue(
                    conf.task_default_queue,
                    exchange=self.default_exchange,
                    binding_key=settings.binding_key if self.is_amqp() and not direct else None,
                    routing_key=self._default_routing_key(),
                    queue_arguments=settings.queue_declare_args,
                    binding_arguments=settings.queue_binding_args,
                ),
            )
        made: Queues = super().Queues(queues, *args, **kwargs)
        made.declare_args, made.binding_args = settings.queue_declare_args, settings.queue_binding_args
        return made

    def _broker(self) -> str:
        broker = self.app.conf.broker_write_url or "amqp://"
        first: str = broker if isinstance(broker, str) else broker[0]
        return first.removeprefix(PREFIX)

    def is_eager(self) -> bool:
        """Whether tasks run in the process that sends them."""
        return self._broker().startswith("eager")

    def is_amqp(self) -> bool:
        """Whether the broker is RabbitMQ."""
        return self._broker().startswith("amqp") or ("://" not in self._broker() and not self.is_eager())

    @property
    def producer_pool(self) -> Any:
        """Celery's pool of producers; one without a limit where a sender keeps its own while the task runs."""
        if self._producer_pool is None and self.is_eager():
            self._producer_pool = ProducerPool(self.app.connection_for_write().Pool(limit=0), limit=0)
        return super().producer_pool

    def _default_routing_key(self) -> str:
        """What Go fills in for an empty RoutingKey: the binding key on a direct exchange, else the queue."""
        conf = self.app.conf
        if conf.first("task_default_routing_key"):
            return str(conf.task_default_routing_key)
        if self.is_amqp() and conf.task_default_exchange_type == "direct":
            return str(self.app.machinery.config.amqp_settings.binding_key)
        return str(conf.task_default_queue)

    @property
    def create_task_message(self) -> Callable[..., Any]:
        """Celery's message, which the channel turns into a Signature: protocol 2, whatever ``task_protocol`` says."""
        return self.as_task_v2

    @cached_property
    def send_task_message(self) -> Callable[..., Any]:
        """Celery's sender, with the channel in the place of a serializer and of compression."""
        # The sender reads it here, and would compress what is no text yet.
        self.app.conf.task_compression = None
        send = self._create_task_sender()
        # A list on Redis needs no declaration; Kombu would copy the queue for each message to learn that.
        undeclared = not self.is_amqp()

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            options.update(serializer=SERIALIZER, compression=None)
            if undeclared:
                options.setdefault("declare", ())
            return send(producer, name, message, **options)

        return send_task_message

    def as_task_v2(self, *args: Any, **options: Any) -> Any:
        """Celery's message, where the texts that stand for the arguments are the user's or empty.

        The receiving worker makes its own; only those that the user has chosen travel.
        """
        chosen = {name: options[name] or "" for name in ("argsrepr", "kwargsrepr") if name in options}
        if not self.app.conf.task_send_sent_event:
            options.update(argsrepr=chosen.get("argsrepr", ""), kwargsrepr=chosen.get("kwargsrepr", ""))
        message = super().as_task_v2(*args, **options)
        message.headers.update(argsrepr=chosen.get("argsrepr", ""), kwargsrepr=chosen.get("kwargsrepr", ""))
        if not isinstance(self.app.backend, RPCBackend):
            # Who asks is of use to results by message only.
            message.properties["reply_to"] = ""
        return message

    def autoexchange(self, name: str) -> Exchange:
        """The exchange of a queue that nobody has declared: Machinery has one for all."""
        return self.default_exchange
