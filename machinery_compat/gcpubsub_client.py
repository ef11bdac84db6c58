"""Google Pub/Sub as the transport needs it: a client for each thread, over HTTP, and what can go wrong.

HTTP and not gRPC: the processes of Celery's prefork pool are forked, and publish, and gRPC does not work in
a process that was forked from one that uses it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import google.auth
import requests
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherRestTransport
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberRestTransport

from machinery_compat import errors

__all__ = [
    "CHANNEL_ERRORS",
    "CONNECTION_ERRORS",
    "FAILED",
    "FAILURES",
    "LARGEST",
    "LONGEST_DEADLINE",
    "Client",
    "Clients",
    "Received",
    "Subscription",
]

logger = logging.getLogger("machinery_compat.transport")

#: Tells Google's own clients, and this one, of an emulator.
EMULATOR = "PUBSUB_EMULATOR_HOST"
#: The longest that a message can be kept from others at once, in seconds.
LONGEST_DEADLINE = 600
#: The largest message, in bytes.
LARGEST = 10_000_000
#: Seconds that a call may take.
TIMEOUT = 30.0
#: The most acknowledgements in one call.
BATCH = 1000

#: What may be gone when the call is made again.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    requests.exceptions.RequestException,
    exceptions.ServerError,
    exceptions.TooManyRequests,
    exceptions.RetryError,
    auth_exceptions.TransportError,
    auth_exceptions.RefreshError,
    ConnectionError,
)
CHANNEL_ERRORS: tuple[type[Exception], ...] = (exceptions.GoogleAPICallError,)
FAILED: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, *CHANNEL_ERRORS)
#: What a call raises, with the errors of this package.
FAILURES: tuple[type[Exception], ...] = (errors.MachineryError, *FAILED)


class Received(NamedTuple):
    """A message as it came.

    Attributes:
        ack_id: names this delivery of it.
        message_id: names the message.
        body: what it says.
        attempt: which delivery this is, from 1; 0 where Pub/Sub does not count.
        published: when it was sent.
    """

    ack_id: str
    message_id: str
    body: bytes
    attempt: int
    published: datetime


class Subscription(NamedTuple):
    """What there is to know of a subscription: its topic's path, and its acknowledgement deadline in seconds."""

    topic: str
    deadline: int


class Client:
    """What one thread says to Pub/Sub.

    Args:
        project: the project.
        publisher: Google's client of topics.
        subscriber: Google's client of subscriptions.
    """

    def __init__(self, project: str, publisher: PublisherClient, subscriber: SubscriberClient) -> None:
        self._project = project
        self._publisher = publisher
        self._subscriber = subscriber

    def topic_path(self, name: str) -> str:
        return f"projects/{self._project}/topics/{name}"

    def subscription_path(self, name: str) -> str:
        return f"projects/{self._project}/subscriptions/{name}"

    def publish(self, topic: str, body: bytes) -> None:
        """Sends a message, which is there when this returns.

        Raises:
            BrokerError: there is no such topic, or the message is too large.
            google.api_core.exceptions.GoogleAPICallError: or another of FAILED.
        """
        if len(body) > LARGEST:
            raise errors.BrokerError(
                f"a message for the topic {topic} has {len(body)} bytes and Pub/Sub takes {LARGEST} at most;"
                " send a reference to the data"
            )
        request = {"topic": self.topic_path(topic), "messages": [{"data": body}]}
        try:
            # The class's own method: that of google-cloud-pubsub's client collects messages in a thread.
            PublisherClient.publish(self._publisher, request=request, retry=None, timeout=TIMEOUT)
        except exceptions.NotFound:
            raise errors.BrokerError(self._no_topic(topic)) from None

    def pull(self, subscription: str, count: int, wait: float) -> list[Received]:
        """Takes messages, waiting for the first one.

        Args:
            subscription: its name.
            count: how many at most.
            wait: for how long, in seconds; 0 looks only. The server waits in whole seconds, up to one less.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: or another of FAILED.
        """
        request: dict[str, Any] = {"subscription": self.subscription_path(subscription), "max_messages": count}
        metadata: tuple[tuple[str, str], ...] = ()
        timeout = wait + TIMEOUT
        if not wait:
            request["return_immediately"] = True
        elif self._subscriber.transport.kind == "rest":
            # Else the server would go on waiting when nobody listens any more, and give a message to nobody.
            seconds = str(max(int(wait), 1))
            metadata = (("x-server-timeout", seconds), ("grpc-timeout", f"{seconds}S"))
        else:
            timeout = wait
        try:
            answer = self._subscriber.pull(request=request, retry=None, timeout=timeout, metadata=metadata)
        except (exceptions.GatewayTimeout, requests.exceptions.ReadTimeout):
            # How the end of the wait may be told, or not be told; gRPC's DeadlineExceeded is one of the first.
            return []
        return [
            Received(
                one.ack_id, one.message.message_id, one.message.data, one.delivery_attempt, one.message.publish_time
            )
            for one in answer.received_messages
        ]

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        path = self.subscription_path(subscription)
        for first in range(0, len(ack_ids), BATCH):
            request = {"subscription": path, "ack_ids": list(ack_ids[first : first + BATCH])}
            self._subscriber.acknowledge(request=request, retry=None, timeout=TIMEOUT)

    def keep(self, subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        """Keeps messages from others for a time from now on; 0 gives them back."""
        path = self.subscription_path(subscription)
        for first in range(0, len(ack_ids), BATCH):
            request = {
                "subscription": path,
                "ack_ids": list(ack_ids[first : first + BATCH]),
                "ack_deadline_seconds": seconds,
            }
            self._subscriber.modify_ack_deadline(request=request, retry=None, timeout=TIMEOUT)

    def require_topic(self, name: str) -> None:
        """Checks that a topic is there, as far as this account may know.

        Raises:
            ConfigError: it is not there.
        """
        try:
            self._publisher.get_topic(request={"topic": self.topic_path(name)}, retry=None, timeout=TIMEOUT)
        except (exceptions.NotFound, exceptions.BadRequest):
            raise errors.ConfigError(self._no_topic(name)) from None
        except exceptions.Forbidden as exc:
            logger.debug("whether the topic %s is there cannot be asked: %s", name, exc)

    def require_subscription(self, name: str, topic: str) -> Subscription | None:
        """Checks that a subscription is there; None when this account may not know.

        Args:
            name: the subscription.
            topic: the topic whose messages it should get.

        Raises:
            ConfigError: it is not there.
        """
        try:
            found = self._find(name)
        except exceptions.Forbidden as exc:
            logger.warning("whether the subscription %s is there cannot be asked: %s", name, exc)
            return None
        if found is None:
            raise errors.ConfigError(
                f"subscription does not exist, instead got {name}; create it: "
                f"gcloud pubsub subscriptions create {name} --topic={topic} --project={self._project}"
            )
        if found.topic != self.topic_path(topic):
            logger.warning("the subscription %s gets what is sent to %s, not to the topic %s", name, found.topic, topic)
        return found

    def _find(self, name: str) -> Subscription | None:
        request = {"subscription": self.subscription_path(name)}
        try:
            found = self._subscriber.get_subscription(request=request, retry=None, timeout=TIMEOUT)
        except (exceptions.NotFound, exceptions.BadRequest):
            return None
        return Subscription(found.topic, found.ack_deadline_seconds)

    def make_pair(self, name: str) -> None:
        """Makes a topic with one subscription of the same name, which keeps its messages; those that are there stay.

        Raises:
            BrokerError: they are not there, and this account may not make them.
        """
        try:
            if self._find(name) is not None:
                return
        except exceptions.Forbidden:
            # Who only sends is not told; sending to a topic that is not there fails.
            return
        topic, path = self.topic_path(name), self.subscription_path(name)
        # Without a policy it would be deleted after a month in which nobody looks.
        request = {"name": path, "topic": topic, "ack_deadline_seconds": 60, "expiration_policy": {}}
        try:
            with suppress(exceptions.Conflict):
                self._publisher.create_topic(request={"name": topic}, retry=None, timeout=TIMEOUT)
            with suppress(exceptions.Conflict):
                self._subscriber.create_subscription(request=request, retry=None, timeout=TIMEOUT)
        except (exceptions.Forbidden, exceptions.BadRequest) as exc:
            raise errors.BrokerError(
                f"the topic {name} with a subscription of the same name is not there and cannot be made "
                f"({exc.message}); create them: gcloud pubsub topics create {name} --project={self._project} && "
                f"gcloud pubsub subscriptions create {name} --topic={name} --expiration-period=never "
                f"--project={self._project}"
            ) from exc
        logger.info("made the topic %s with a subscription of the same name", name)

    def _no_topic(self, name: str) -> str:
        return (
            f"topic does not exist, instead got {name}; create it: "
            f"gcloud pubsub topics create {name} --project={self._project}"
        )


class Clients:
    """Makes a client for each thread that asks, and each process; Google's HTTP sessions are not for several.

    Args:
        project: the project of the URL.
        make: gives Google's two clients, of topics and of subscriptions; None makes them.

    Raises:
        ConfigError: ``make`` cannot be called.
    """

    def __init__(self, project: str, make: Callable[[], tuple[Any, Any]] | None = None) -> None:
        if make is not None and not callable(make):
            raise errors.ConfigError(
                "gcp_pubsub.client is a function without arguments that makes the two clients, "
                "(PublisherClient, SubscriberClient): the processes of a pool need clients of their own"
            )
        self.project = project
        self._make = make or self._over_http
        self._local = threading.local()
        self._credentials: Any = None

    def get(self) -> Client:
        """The client of this thread.

        Raises:
            ConfigError: there are no credentials.
        """
        owner: int
        client: Client | None
        owner, client = getattr(self._local, "made", (0, None))
        # A process that was forked meanwhile would talk through its parent's sockets.
        if client is None or owner != os.getpid():
            client = Client(self.project, *self._make())
            self._local.made = os.getpid(), client
        return client

    def _over_http(self) -> tuple[PublisherClient, SubscriberClient]:
        options = self._options()
        return (
            PublisherClient(transport=PublisherRestTransport(**options)),
            SubscriberClient(transport=SubscriberRestTransport(**options)),
        )

    def _options(self) -> Mapping[str, Any]:
        emulator = os.environ.get(EMULATOR)
        if emulator:
            host = emulator.partition("://")[2] or emulator
            nobody: Any = AnonymousCredentials
            return {"host": host, "credentials": nobody(), "url_scheme": "http"}
        if self._credentials is None:
            try:
                self._credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/pubsub"])
            except auth_exceptions.DefaultCredentialsError as exc:
                raise errors.ConfigError(
                    f"there are no credentials for Pub/Sub: {exc} (for an emulator set {EMULATOR})"
                ) from exc
        return {"credentials": self._credentials}
