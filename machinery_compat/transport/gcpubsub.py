"""Machinery's Google Pub/Sub broker as a Kombu transport.

A task is one message, the Signature's JSON without attributes, sent to the topic that its RoutingKey names.
The URL's subscription is where the tasks of the default queue come from; another queue's comes from the
subscription of its own name. Delayed tasks wait in ``<default queue>-delayed``, see gcpubsub_delays.py; what
nobody can run is kept in ``<queue>-dead``. Both are topics with a subscription of the same name, made when
they are needed. Pub/Sub carries tasks only here: no remote control, no events, no replies.

Transport options:

``lease_time``          seconds until others get a silent worker's messages (60), 600 at most
``wait_time``           seconds that one look for messages waits (3)
``subscriptions``       queue -> its subscription, where that has another name
``redelivery_limit``    how often a message is put back because its worker died (5)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from time import monotonic, time_ns
from typing import Any

from kombu.transport import virtual

from machinery_compat import errors, urls
from machinery_compat.gcpubsub_client import CHANNEL_ERRORS, CONNECTION_ERRORS, LARGEST, Clients
from machinery_compat.transport import base, border, payloads
from machinery_compat.transport.gcpubsub_dead import PubSubDeadLetters
from machinery_compat.transport.gcpubsub_delays import Delays, delayed_name
from machinery_compat.transport.gcpubsub_inbox import Arrived, Inbox, Puller
from machinery_compat.transport.gcpubsub_keeper import Keeper
from machinery_compat.transport.gcpubsub_message import HoldingQoS, TaskMessage
from machinery_compat.transport.redelivery import Fate, fate_of
from machinery_compat.wire import Signature

__all__ = ["Channel", "TaskMessage", "Transport"]

#: A subscription's deadline where it cannot be asked, in seconds: the shortest there is.
SHORTEST_DEADLINE = 10
#: Seconds until a message that cannot be kept elsewhere comes again.
UNBURIED = 600
TASKS_ONLY = "Google Pub/Sub carries tasks only: it has no remote control, no events and no replies"
NO_COUNT = (
    "Google Pub/Sub neither counts nor lists what waits in a subscription; gcloud pubsub subscriptions pull shows some"
    " of it, and gcloud pubsub subscriptions seek {} --time=... skips it"
)


class Channel(PubSubDeadLetters, base.TaskChannel, virtual.Channel):  # type: ignore[misc]
    """A Pub/Sub channel whose messages are Signatures."""

    QoS = HoldingQoS
    Message = TaskMessage
    do_restore = False

    lease_time = 60.0
    wait_time = 3.0
    subscriptions: Mapping[str, str] = {}

    from_transport_options = (*virtual.Channel.from_transport_options, "lease_time", "wait_time", "subscriptions")

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.border = border.border_of(connection.client.transport_options)
        self.url = str(connection.client.hostname).removeprefix(base.FAILOVER_PREFIX)
        project, self._subscription = urls.parse_gcppubsub_url(self.url)
        settings = self.border.gcp_pubsub
        self.clients = Clients(project, settings.client if settings else None)
        longest = settings.max_extension.total_seconds() if settings and settings.max_extension else None
        self.keeper = Keeper(self.clients, self.lease_time, longest)
        self.kombu_queues: set[str] = set()
        self.pullers: dict[str, Puller] = {}
        self._keeps = False
        self._can_delay = False
        self._delays: Delays | None = None
        self._undelivered: deque[Arrived] = deque()

    @property
    def inbox(self) -> Inbox:
        inbox: Inbox = self.connection.inbox
        return inbox

    # -- publishing

    def exchange_declare(self, exchange: str | None = None, type: str = "direct", **kwargs: Any) -> Any:
        if type == "fanout":
            raise errors.BrokerError(TASKS_ONLY)
        return super().exchange_declare(exchange, type, **kwargs)

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **kwargs: Any) -> Any:
        if not isinstance(message, Signature):
            if self.typeof(exchange).type == "topic":
                # Events, which nobody can be waiting for.
                return None
            raise errors.BrokerError(TASKS_ONLY)
        if not message.routing_key:
            message.routing_key = self.border.queue_of(exchange, routing_key)
        self.border.publishing(message)
        body = self.encoded(message)
        if len(body) > LARGEST:
            raise errors.EncodeError(
                f"task {message.name}[{message.uuid}] has {len(body)} bytes and Pub/Sub takes {LARGEST} at most;"
                " send a reference to the data"
            )
        topic = self._topic_for(message)
        self.border.before_publish(message, self.url)
        self.clients.get().publish(topic, body)
        return None

    def _topic_for(self, signature: Signature) -> str:
        if signature.eta_ns is None or signature.eta_ns <= time_ns():
            return str(signature.routing_key)
        name = delayed_name(self.border.default_queue)
        if not self._can_delay:
            # A topic without a subscription would keep nothing.
            self.clients.get().make_pair(name)
            self._can_delay = True
        return name

    # -- consuming

    def _new_queue(self, queue: str, auto_delete: bool = False, **kwargs: Any) -> None:
        self.note_queue(queue, auto_delete, kwargs.get("arguments"))

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        if queue in self.kombu_queues:
            raise errors.BrokerError(TASKS_ONLY)
        self.require_application()
        if queue not in self.pullers:
            self.pullers[queue] = self._puller(queue)
            if self._delays is None:
                self._delays = Delays(self.clients, self.border.default_queue, self.bury_body, self.wait_time)
                self._delays.start()

        def acknowledging(message: TaskMessage) -> None:
            callback(message)
            self.keeper.settle(message.arrived.held)

        chosen = acknowledging if no_ack else callback
        return super().basic_consume(queue, no_ack, chosen, consumer_tag, **kwargs)

    def subscription_of(self, queue: str) -> str:
        """The subscription from which a queue's tasks come."""
        if queue in self.subscriptions:
            return self.subscriptions[queue]
        return self._subscription if queue == self.border.default_queue else queue

    def _puller(self, queue: str) -> Puller:
        if not self._keeps:
            self.keeper.start()
            self._keeps = True
        name = self.subscription_of(queue)
        client = self.clients.get()
        client.require_topic(queue)
        found = client.require_subscription(name, queue)
        return Puller(self, queue, name, found.deadline if found else SHORTEST_DEADLINE, self.wait_time)

    def basic_cancel(self, consumer_tag: str) -> Any:
        puller = self.pullers.pop(self._tag_to_queue.get(consumer_tag, ""), None)
        if puller is not None:
            puller.stop()
        return super().basic_cancel(consumer_tag)

    def ask_for_more(self) -> None:
        """Lets messages be taken, as many as may be delivered."""
        idle = [puller for puller in self.pullers.values() if puller.idle]
        if not idle or not self.qos.can_consume():
            return
        asked = self.border.pre_consume
        if asked is not None and not asked():
            return
        room = self.qos.can_consume_max_estimate() or 100
        for puller in idle:
            puller.ask(max(room // len(self.pullers), 1))

    def deliver(self, batch: Iterable[Arrived]) -> None:
        """Delivers messages; what is no Signature is kept as a dead one."""
        fresh: list[Arrived] = []
        for arrived in batch:
            try:
                arrived.signature = payloads.decode(arrived.body, self.border.max_body_size)
            except errors.DecodeError as exc:
                self.bury(arrived, f"Could not unmarshal into a task signature: {exc}")
                continue
            if arrived.attempt == 1 or not self._is_settled(arrived, arrived.signature):
                fresh.append(arrived)
        self._undelivered.extend(fresh)
        self.border.received(
            [one.signature for one in fresh if one.signature], [base.deliveries(one.body) for one in fresh]
        )
        # A worker that runs tasks where they are delivered may give the rest back meanwhile.
        while self._undelivered:
            arrived = self._undelivered.popleft()
            if arrived.queue in self.connection._callbacks:
                self.connection._deliver(arrived, arrived.queue)
            else:
                self.keeper.give_back(arrived.held)

    def _is_settled(self, arrived: Arrived, signature: Signature) -> bool:
        """Whether a message is dealt with, so that its task need not run now.

        Pub/Sub does not tell whether it has delivered it before; what the task has become does.
        """
        running = self.border.running(signature.uuid)
        if isinstance(running, TaskMessage) and running.arrived.held.message_id == arrived.held.message_id:
            if running.acknowledged:
                self.keeper.settle(arrived.held)
            else:
                running.adopt(arrived)
            return True
        fate = fate_of(signature, arrived.body, *self.border.progress_of(signature))
        if fate is Fate.ENDED:
            self.keeper.settle(arrived.held)
        elif fate is Fate.LOST:
            TaskMessage(arrived, channel=self).lost("its worker was lost")
        return fate is not Fate.WAITING

    def give_back_undelivered(self) -> None:
        undelivered, self._undelivered = self._undelivered, deque()
        self.give_back(undelivered)

    def give_back(self, messages: Iterable[Arrived]) -> None:
        """Gives messages to other workers at once."""
        for arrived in messages:
            self.keeper.give_back(arrived.held)

    def bury(self, arrived: Arrived, reason: str) -> None:
        """Keeps a message that nobody can run; where that cannot be done it comes again later."""
        if self.bury_body(arrived.body, reason, arrived.queue):
            self.keeper.settle(arrived.held)
        else:
            self.keeper.give_back(arrived.held, UNBURIED)

    def keep(self, messages: Iterable[base.TaskPayload]) -> None:
        self.qos.kept.update(message.delivery_tag for message in messages)

    # -- the rest of a queue's life

    def _size(self, queue: str) -> int:
        """Nobody knows; Kombu asks with each declaration."""
        return 0

    def _purge(self, queue: str) -> int:
        raise errors.BrokerError(NO_COUNT.format(self.subscription_of(queue)))

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        raise errors.BrokerError("a subscription is not deleted from here: gcloud pubsub subscriptions delete")

    def _get(self, queue: str, timeout: float | None = None) -> Arrived:
        puller = self._puller(queue)
        puller.stop()
        for arrived in puller.pull(1, 0):
            try:
                arrived.signature = payloads.decode(arrived.body, self.border.max_body_size)
            except errors.DecodeError as exc:
                self.bury(arrived, f"Could not unmarshal into a task signature: {exc}")
                break
            return arrived
        raise virtual.base.Empty

    def pending_tasks(self, queue: str) -> list[Signature]:
        raise errors.BrokerError(NO_COUNT.format(self.subscription_of(queue)) + " (Go: Not implemented)")

    def delayed_tasks(self) -> list[Signature]:
        raise errors.BrokerError(NO_COUNT.format(delayed_name(self.border.default_queue)) + " (Go: Not implemented)")

    def close(self) -> None:
        if not self.closed:
            pullers, delays = list(self.pullers.values()), self._delays
            if delays is not None:
                delays.stop()
            for consumer_tag in list(self._consumers):
                self.basic_cancel(consumer_tag)
            for puller in pullers:
                # What it is given now would be kept from others for as long as a deadline lasts.
                puller.join(self.wait_time)
            self.give_back_undelivered()
            if delays is not None:
                delays.join(self.wait_time)
        super().close()
        if self._keeps:
            self._keeps = False
            self.keeper.retire(self.qos.still_held(), self.wait_time)


class Transport(virtual.Transport):  # type: ignore[misc]
    """Kombu transport for Machinery's Pub/Sub URLs."""

    Channel = Channel

    can_parse_url = True
    #: Not Kombu's name, for which Celery expects remote control.
    driver_type = "machinery-gcpubsub"
    driver_name = "google-cloud-pubsub"
    connection_errors = (*virtual.Transport.connection_errors, *CONNECTION_ERRORS)
    channel_errors = (*virtual.Transport.channel_errors, *CHANNEL_ERRORS)
    implements = virtual.Transport.implements.extend(asynchronous=True, exchange_type=frozenset(["direct"]))

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self._inbox: Inbox | None = None
        self._loop: Any = None

    @property
    def inbox(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox()
        return self._inbox

    def driver_version(self) -> str:
        return version("google-cloud-pubsub")

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        return uri.removeprefix(base.FAILOVER_PREFIX)

    def establish_connection(self) -> Any:
        connection = super().establish_connection()
        channel = self._avail_channels[-1]
        channel.clients.get().require_topic(channel.border.default_queue)
        return connection

    def close_connection(self, connection: Any) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.on_tick.discard(self.on_poll_start)
            loop.remove_reader(self.inbox.fileno())
        super().close_connection(connection)
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None

    # -- in Celery's event loop

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self._loop = loop
        loop.add_reader(self.inbox.fileno(), self.on_readable)
        loop.on_tick.add(self.on_poll_start)

    def on_poll_start(self) -> None:
        """Called before each look of the event loop."""
        for channel in self.channels:
            channel.ask_for_more()

    def on_readable(self) -> bool:
        """Delivers what has come; whether that was anything."""
        came = False
        while (taken := self.inbox.take()) is not None:
            puller, batch = taken
            try:
                if puller.stopped:
                    puller.channel.give_back(batch)
                elif batch:
                    came = True
                    puller.channel.deliver(batch)
            finally:
                puller.delivered()
        return came

    # -- without one

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        end = None if timeout is None else monotonic() + timeout
        while True:
            self.on_poll_start()
            self.inbox.wait(None if end is None else max(end - monotonic(), 0.001))
            if self.on_readable():
                return
            if end is not None and monotonic() >= end:
                raise TimeoutError
