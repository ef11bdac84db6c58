"""What every transport of this package shares: the border between Machinery and Celery.

A channel turns Celery's task messages into Signatures when it publishes and Signatures into
Celery's task messages when it delivers. Everything else (remote control, events, replies) keeps
Kombu's own envelope.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celery._state import get_current_task
from celery.exceptions import InvalidTaskError
from kombu.serialization import register
from kombu.utils import json as kombu_json

from machinery_compat import canvas, errors, followers
from machinery_compat.config import GCPPubSubConfig, RedisConfig, SQSConfig
from machinery_compat.transport.redelivery import REDELIVERY_LIMIT, deliveries, given_up_reason, redelivered
from machinery_compat.wire import Signature, now_text

__all__ = ["CONTENT_TYPE", "OPTION", "SERIALIZER", "Border", "dead_letter", "deliveries", "redelivered"]

logger = logging.getLogger("machinery_compat.transport")

#: The in-process serializer: task messages reach the channel as they are and become JSON there.
SERIALIZER = "machinery"
CONTENT_TYPE = "application/x-machinery"
#: The transport option that carries the application's :class:`Border`.
OPTION = "machinery"
#: Before the scheme of each of several broker URLs, so that Kombu goes from one to the next with
#: the transports of this package.
FAILOVER_PREFIX = "machinery-"
#: Longest piece of a payload that is shown in a log line.
SHOWN = 200
#: Longest piece of a reason that is shown in a log line; it may quote the payload.
REASON_SHOWN = 500

register(SERIALIZER, lambda data: data, lambda data: data, CONTENT_TYPE, "binary")

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

    def parameters(self, name: str) -> canvas.Parameters | None:
        """The parameters of a task's function, where this process has it."""
        return None

    def route(self, exchange: str, routing_key: str) -> tuple[str, str]:
        """The exchange and the routing key that Machinery uses for what Celery addressed so."""
        return exchange, routing_key

    def publishing(self, signature: Signature) -> None:
        """Called with a complete Signature before it is encoded; the user's hooks may still change it."""

    #: Whether this application's result backend sends what follows a task.
    sends_followers = False

    def maker(self, root_id: str) -> followers.Maker:
        """Makes what follows the tasks of a Celery workflow."""
        return followers.Maker(self.parameters, self.options_of, self.routing_key_of, root_id, self.strict)

    def options_of(self, name: str) -> Mapping[str, Any]:
        """The options that a task has by itself, where this process has it."""
        return {}

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

    def progress_of(self, signature: Signature) -> tuple[str, int]:
        """What the result store says of a task's state, and which run of it that comes from, 0 for the first.

        The state is empty where nobody keeps it or it cannot be asked.
        """
        return "", 0

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


class TaskPayload:
    """What the messages of every transport do with a Signature; mixed into Kombu's Message.

    A transport that knows of messages whose worker has died takes part in the count of
    redeliveries so: it sets ``raw_body``, implements :meth:`redeliver`, and says
    ``delivery_info["redelivered"]`` and ``border.received(signatures, runs)`` after
    :func:`deliveries`. The consumer then calls :meth:`lost` when a process of its pool has died.
    Where the broker itself gives a dead worker's messages out again and has no count, the
    transport makes one: it publishes a copy that is :func:`redelivered` in place of a message
    that the broker says it has delivered before, or gives it up when it is over the limit. Or it
    adds the blank where the message is delivered, and the state of the run keeps the count: then
    what is put back must come with a number that is not below it (``comes_renumbered``).
    """

    #: The message as it came, with what marks its redeliveries.
    raw_body: bytes = b""
    #: The Signature that this message carries; None on a message of Kombu's own.
    signature: Signature | None = None
    #: Whether what goes back to its queue comes again with the number of a run that may begin.
    comes_renumbered = False
    #: Why the task cannot be run, such as arguments that do not convert; the consumer fails it with this.
    argument_error: errors.DecodeError | None = None

    def celery_fields(self, signature: Signature, body: bytes) -> dict[str, Any]:
        """The headers, properties and body of the Celery message that a Signature stands for.

        Without a content type the body passes through Celery as it is, never serialized.
        """
        try:
            headers, properties, decoded = canvas.from_signature(signature, body)
        except errors.DecodeError as exc:
            self.argument_error = exc
            headers = {"task": signature.name, "id": signature.uuid, "machinery": body}
            properties, decoded = {"correlation_id": signature.uuid}, ([], {}, {})
        return {"headers": headers, "properties": properties, "body": decoded}

    if TYPE_CHECKING:
        channel: Any
        delivery_tag: Any

        def ack_log_error(self, logger: Any, errors: Any, multiple: bool = False) -> None: ...

    @property
    def payload(self) -> Any:
        """The body; Celery's consumer learns here that the arguments do not convert."""
        if self.argument_error is not None:
            raise InvalidTaskError(failure_text(self.argument_error))
        return super().payload  # type: ignore[misc]

    def bury(self, reason: str) -> None:
        """Keeps the message in ``<queue>:dead`` with the reason, and settles it."""
        raise NotImplementedError

    def hand_back(self) -> None:
        """Returns the message to its queue at once, for another worker."""
        raise NotImplementedError

    def park(self, seconds: float) -> None:
        """Returns the message to the tail of its queue after a time, for another worker."""
        raise NotImplementedError

    def redeliver(self) -> None:
        """Returns the message to its queue at once, :func:`redelivered`, as near to the head as the broker allows."""
        raise NotImplementedError

    def task_failed(self) -> None:
        """Told before the message of a task that has failed for good is settled."""

    def is_ours(self) -> bool:
        """Whether no other worker has been given the message meanwhile."""
        return True

    def lost(self, reason: str) -> bool:
        """Settles the message of a task whose process has died while it ran.

        It is put back and counted; over the limit its task fails, and it is buried.

        Args:
            reason: what became of the process.

        Returns:
            whether it was given up.
        """
        border: Border = self.channel.border
        count = deliveries(self.raw_body)
        if count < border.redelivery_limit:
            self.redeliver()
            return False
        reason = given_up_reason(count, reason)
        try:
            border.given_up(self.raw_body, reason)
        except Exception:
            # The state would stay STARTED for ever: it is tried again after the next run.
            logger.exception("a task cannot be failed (%s); its message is put back", one_line(reason, REASON_SHOWN))
            self.redeliver()
            return False
        self.bury(reason)
        return True


class TaskChannel:
    """What the channels of every transport do with tasks; mixed into Kombu's Channel."""

    border: Border
    #: The queues that Celery has made for itself: remote control, replies and events.
    kombu_queues: set[str]
    #: Whether the tasks of its messages run in this process; the consumer says it.
    runs_tasks = False

    def slots(self) -> int:
        """How many of its messages may be running at once; the consumer puts its pool's answer here."""
        return 1

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Mapping[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A Signature for a task, and Kombu's own message for anything else."""
        signature = signature_to_send(self.border, body, headers, properties, priority, content_type)
        if signature is not None:
            return signature
        return super().prepare_message(  # type: ignore[misc]
            body,
            priority=priority,
            content_type=content_type,
            content_encoding=content_encoding,
            headers=headers,
            properties=properties,
            **kwargs,
        )

    def keep(self, messages: Iterable[TaskPayload]) -> None:
        """Told before the channel is closed that the tasks of these messages go on.

        Where the broker does not give them to others, they stay claimed, and can be acknowledged
        later.
        """

    def encoded(self, signature: Signature) -> bytes:
        """The bytes of a Signature that is about to be sent.

        Raises:
            EncodeError: they are more than the limit.
        """
        body = signature.encode()
        limit = self.border.max_body_size
        if limit and len(body) > limit:
            raise errors.EncodeError(
                f"task {signature.name}[{signature.uuid}] has {len(body)} bytes and machinery_max_body_size is {limit};"
                " send a reference to the data, or raise the setting in every process of the fleet"
            )
        return body

    def note_queue(self, queue: str, auto_delete: bool, arguments: Mapping[str, Any] | None) -> None:
        """Learns from its declaration whether a queue carries tasks.

        What Celery makes for itself is deleted with its last reader and expires; a queue of tasks
        does neither.
        """
        if auto_delete and "x-expires" in (arguments or {}):
            self.kombu_queues.add(queue)

    def give_back_undelivered(self) -> None:
        """Returns what has arrived and is not delivered yet to its queue; most transports hold nothing back."""

    def require_application(self) -> None:
        """Refuses to consume tasks for an application that would throw away what it does not know.

        Raises:
            ConfigError: the application does not speak Machinery.
        """
        if not self.border.enabled:
            raise errors.ConfigError(NOT_ENABLED)


def unreadable_delayed(exc: Exception) -> str:
    """Why a delayed task is buried that is none."""
    return f"Could not unmarshal a delayed task into a task signature: {exc}"


def border_of(transport_options: Mapping[str, Any] | None) -> Border:
    border = (transport_options or {}).get(OPTION)
    return border if isinstance(border, Border) else Border()


def signature_to_send(
    border: Border,
    body: Any,
    headers: Mapping[str, Any] | None,
    properties: Mapping[str, Any] | None,
    priority: int | None,
    content_type: str | None,
) -> Signature | None:
    """The Signature of what is being published, or None when it is not a task.

    Raises:
        EncodeError: the task cannot be said in Machinery's format.
    """
    if isinstance(body, Signature):
        return body
    headers = headers or {}
    if "task" not in headers or "id" not in headers:
        return None
    if type(headers["task"]) is not str:
        raise errors.EncodeError(f"the name of a task is a text, not {headers['task']!r}; has a header overridden it?")
    if not border.enabled:
        raise errors.ConfigError(NOT_ENABLED)
    if content_type != CONTENT_TYPE:
        body = _deserialized(body, content_type)
    again = current_signature(headers["id"])
    args, kwargs, embed = body
    native: dict[str, Any] = {}
    if embed and border.sends_followers:
        native, embed = followers.split(embed)
    signature = canvas.to_signature(
        (args, kwargs, embed),
        headers,
        properties or {},
        priority=priority or 0,
        parameters=border.parameters(headers["task"]),
        base=again,
        strict=border.strict,
    )
    if native:
        border.maker(headers.get("root_id") or headers["id"]).attach(signature, native)
    return signature


def _deserialized(body: Any, content_type: str | None) -> Any:
    # An application that sets task_serializer = "json" itself has done what is not needed here.
    if content_type != "application/json":
        raise errors.EncodeError(
            f"a task serialized as {content_type} cannot become a Machinery Signature; "
            f"use the serializer {SERIALIZER!r} (the default here) or 'json'"
        )
    return kombu_json.loads(body)


def current_signature(uuid: str | None = None) -> Signature | None:
    """The Signature that is being run here, if any (and, when given, if it has this UUID)."""
    task = get_current_task()
    raw = getattr(task.request, "machinery", None) if task is not None else None
    if raw is None or (uuid is not None and task.request.id != uuid):
        return None
    return Signature.decode(raw)


def failure_text(exc: errors.DecodeError) -> str:
    """The error of a task that cannot be started; Go's where Go has one."""
    return f"Reflect task args error: {exc}" if isinstance(exc, errors.ArgumentError) else str(exc)


def shown(body: bytes) -> str:
    """A payload for a log line: its beginning, readable."""
    text = one_line(body[: SHOWN + 1].decode("utf-8", "backslashreplace"), SHOWN)
    return text if len(body) <= SHOWN else f"{text} ({len(body)} bytes)"


def one_line(text: str, longest: int) -> str:
    """The beginning of a stranger's text, which must not begin a log line of its own."""
    cut = text if len(text) <= longest else f"{text[:longest]}…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def decode(body: bytes, limit: int = 0) -> Signature:
    """The Signature in a payload.

    Args:
        body: the payload.
        limit: the most bytes that are looked at; 0 means any number.

    Raises:
        DecodeError: there is none, or one without a Name, which no worker can ever run.
    """
    if limit and len(body) > limit:
        raise errors.DecodeError(f"it has {len(body)} bytes and machinery_max_body_size is {limit}")
    signature = Signature.decode(body)
    if not signature.name:
        raise errors.DecodeError("it has no Name")
    return signature


def decode_all(bodies: Iterable[bytes], where: str) -> list[Signature]:
    """The Signatures in payloads; what is none is logged and left out."""
    found = []
    for body in bodies:
        try:
            found.append(Signature.decode(body))
        except errors.DecodeError as exc:
            logger.warning("%s holds what is no Signature (%s); it begins: %s", where, exc, shown(body))
    return found


def log_buried(body: bytes, reason: str, dead: str) -> None:
    logger.error("%s: kept in %s; it began: %s", one_line(reason, REASON_SHOWN), dead, shown(body))


def dead_letter(body: bytes, reason: str, queue: str) -> bytes:
    """The entry for ``<queue>:dead`` that keeps a payload nobody can run, byte for byte.

    Who puts it back into a queue may cut off the blanks at its end: its redeliveries are then
    counted anew.
    """
    entry: dict[str, Any] = {"reason": reason, "queue": queue, "time": now_text()}
    try:
        entry["body"] = body.decode("utf-8")
    except UnicodeDecodeError:
        entry["body_hex"] = body.hex()
    # Escapes would make it up to three times as long, and RabbitMQ has a limit of its own.
    return json.dumps(entry, ensure_ascii=False).encode()


def dead_queue(queue: str) -> str:
    return f"{queue}:dead"
