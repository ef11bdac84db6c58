"""What every transport of this package shares: Celery's tasks become Signatures in its channels, and back.

A channel turns Celery's task messages into Signatures when it publishes and Signatures into
Celery's task messages when it delivers. Everything else (remote control, events, replies) keeps
Kombu's own envelope.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from celery._state import get_current_task
from celery.exceptions import InvalidTaskError
from kombu.serialization import register
from kombu.utils import json as kombu_json

from machinery_compat import canvas, errors, followers
from machinery_compat.transport.border import NOT_ENABLED, Border
from machinery_compat.transport.payloads import REASON_SHOWN, one_line
from machinery_compat.transport.redelivery import deliveries, given_up_reason, handed_back, marks, redelivered, was_run
from machinery_compat.wire import Signature

__all__ = [
    "CONTENT_TYPE",
    "FAILOVER_PREFIX",
    "SERIALIZER",
    "TaskChannel",
    "TaskPayload",
    "current_signature",
    "deliveries",
    "failure_text",
    "marks",
    "redelivered",
    "signature_to_send",
    "was_run",
]

logger = logging.getLogger("machinery_compat.transport")

#: The in-process serializer: task messages reach the channel as they are and become JSON there.
SERIALIZER = "machinery"
CONTENT_TYPE = "application/x-machinery"
#: Before the scheme of each of several broker URLs, so that Kombu goes from one to the next with
#: the transports of this package.
FAILOVER_PREFIX = "machinery-"

register(SERIALIZER, lambda data: data, lambda data: data, CONTENT_TYPE, "binary")


class TaskPayload:
    """What the messages of every transport do with a Signature; mixed into Kombu's Message.

    A transport that knows of messages whose worker has died takes part in the count of
    redeliveries so: it sets ``raw_body``, implements :meth:`redeliver`, and says
    ``delivery_info["redelivered"]`` and ``border.received(signatures, runs)`` after
    :func:`was_run` and :func:`deliveries`. The consumer then calls :meth:`lost` when a process of its pool has died.
    Where the broker itself gives a dead worker's messages out again and has no count, the
    transport makes one, of what the result store knows of the task's runs: it adds the blanks where
    the message is delivered. Then what is put back must come again with a number that is not below
    that of the store (``comes_renumbered``).
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

        def reject_log_error(self, logger: Any, errors: Any, requeue: bool = False) -> None: ...

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

    def task_rejected(self) -> None:
        """Told before a message goes back that its own task has rejected."""
        self.raw_body = handed_back(self.raw_body)

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
        keeps_result=headers.get("ignore_result") is False and border.ignores_result(headers["task"]),
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
