"""What a channel must know of the application whose messages it carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from machinery_compat import errors, followers
from machinery_compat.arguments import Parameters
from machinery_compat.config import GCPPubSubConfig, RedisConfig, SQSConfig
from machinery_compat.transport.redelivery import REDELIVERY_LIMIT
from machinery_compat.wire import Signature

if TYPE_CHECKING:
    from machinery_compat.transport.base import TaskPayload

__all__ = ["MAX_BODY_SIZE", "NOT_ENABLED", "OPTION", "Border", "Command", "border_of"]

#: The transport option that carries the application's :class:`Border`.
OPTION = "machinery"
#: The setting ``machinery_max_body_size`` where there is none, in bytes.
MAX_BODY_SIZE = 10_000_000
#: Adds one Redis command to a batch: ``command("set", key, value)``.
Command = Callable[..., Any]
#: What a Celery application is told that uses a URL of this package and nothing else of it.
NOT_ENABLED = (
    "this Celery application uses a Machinery URL but does not speak Machinery: make it with "
    "machinery_compat.Celery(...), or call machinery_compat.enable(app) right after it is made"
)


class Border:
    """What a channel must know of the application whose messages it carries.

    This class knows nothing and is what a bare ``kombu.Connection`` gets, which can publish
    Signatures and look into queues; the application's border overrides it.
    """

    #: Whether an application stands behind it.
    enabled = False

    default_queue = "machinery_tasks"
    strict = False
    #: The largest message that is sent or decoded, in bytes; 0 means any.
    max_body_size = MAX_BODY_SIZE
    #: AMQP only: the one delay queue to use (``amqp.delayed_queue``), else a queue for each delay.
    delayed_queue = ""
    #: AMQP only: whether delay queues are auto-deleted (``amqp.auto_delete``).
    delay_auto_delete = False
    #: How often a message is put back at most because what ran it has died.
    redelivery_limit = REDELIVERY_LIMIT
    #: Redis only: what the servers of a URL are.
    redis = RedisConfig()
    #: SQS only: how messages are received, and the user's client.
    sqs = SQSConfig()
    #: Pub/Sub only: its settings.
    gcp_pubsub: GCPPubSubConfig | None = None
    #: Asked before messages are claimed; while it answers False none are.
    pre_consume: Callable[[], bool] | None = None

    def parameters(self, name: str) -> Parameters | None:
        """The parameters of a task's function, where this process has it."""
        return None

    def route(self, exchange: str, routing_key: str) -> tuple[str, str]:
        """AMQP: the exchange and the routing key that Machinery uses for what Celery addressed so."""
        return exchange, routing_key

    def queue_of(self, exchange: str, routing_key: str) -> str:
        """The other brokers: the name of the queue that Celery addressed so."""
        return routing_key or self.default_queue

    def publishing(self, signature: Signature) -> None:
        """Called with a complete Signature before it is encoded; the user's hooks may still change it."""

    #: Whether this application's result backend sends what follows a task.
    sends_followers = False

    def maker(self, root_id: str) -> followers.Maker:
        """Makes what follows the tasks of a Celery workflow."""
        return followers.Maker(
            self.parameters, self.options_of, self.routing_key_of, root_id, self.strict, self.ignores_result
        )

    def options_of(self, name: str) -> Mapping[str, Any]:
        """The options that a task has by itself, where this process has it."""
        return {}

    def ignores_result(self, name: str) -> bool:
        """Whether a task of this process drops its results unless a call says otherwise."""
        return False

    def routing_key_of(self, step: Mapping[str, Any]) -> str:
        """The RoutingKey of a step of a Celery canvas; empty for the default queue."""
        return ""

    def before_publish(self, signature: Signature, server: str, command: Command | None = None) -> None:
        """Called before a Signature is sent; writes its PENDING state.

        Args:
            signature: the Signature, complete.
            server: the URL of the broker.
            command: collects Redis commands to be sent just before the message; only of use to
                a result backend on the same server.
        """

    def received(self, signatures: Sequence[Signature], runs: Sequence[int] = ()) -> None:
        """Called once for the Signatures that arrived together, before they are delivered.

        Args:
            signatures: the tasks.
            runs: the :func:`deliveries` of each; empty where none was put back.
        """

    def unstorable(self, signature: Signature) -> str:
        """Why the result store can keep nothing of a task that this process would run; empty where it can."""
        return ""

    def progress_of(self, signature: Signature, of_others: bool = False) -> tuple[str, int]:
        """A task's state in the result store, and which run of it that comes from, 0 for the first.

        The state is empty where nobody keeps it or it cannot be asked.

        Args:
            signature: the task.
            of_others: look even if this process does not know the task.
        """
        return "", 0

    def held(self) -> int:
        """How many tasks this worker has taken that have not ended."""
        return 0

    def running(self, uuid: str) -> TaskPayload | None:
        """The message of a task that this worker is running just now."""
        return None

    def given_up(self, body: bytes, reason: str) -> None:
        """Called from any thread before a message that has been put back too often is buried.

        The task's state becomes FAILURE with the reason, and its error callbacks and its chord
        learn it. A payload that is no Signature is left alone.

        Raises:
            Exception: whatever the result backend raises; then the message must not be buried yet.
        """

    def run(self, body: bytes) -> None:
        """Runs the task in a Signature's JSON in this process, and what follows it; the eager broker's delivery."""
        raise errors.ConfigError(NOT_ENABLED)

    def __repr__(self) -> str:
        # Kombu shares connections whose options have the same repr: two applications must differ.
        return f"<{type(self).__name__} at {id(self):#x}>"

    def __json__(self) -> str:
        # ``celery inspect stats`` tells the options of the broker's connection.
        return f"<{type(self).__name__}>"


def border_of(transport_options: Mapping[str, Any] | None) -> Border:
    border = (transport_options or {}).get(OPTION)
    return border if isinstance(border, Border) else Border()
