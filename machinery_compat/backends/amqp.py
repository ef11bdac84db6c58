"""Results on RabbitMQ: a queue for each task with the history of its states, as Go keeps them.

A queue gives each message to one reader. Go takes a state out when it reads it; here the last one
is put back, so that others find it too. What Go has read is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import amqp
from kombu.utils import json as kombu_json

from machinery_compat import amqp_client, errors, urls
from machinery_compat.backends import fence
from machinery_compat.backends.base import Backend
from machinery_compat.wire import FAILURE, SUCCESS, ZERO_TIME, GroupMeta, Signature, TaskState

__all__ = ["AMQPBackend"]

logger = logging.getLogger("machinery_compat.backends")

#: The longest that a queue may live, in seconds: RabbitMQ takes 32 bits of milliseconds.
LONGEST_EXPIRY = (2**31 - 1) // 1000
#: Seconds in which the states of a group that lie ready must come.
TAKE_TIMEOUT = 10.0
#: Where the member of ours says the place of a task in its Celery chord.
INDEX = "index"
#: Of how many tasks a process remembers the name.
NAMES = 10_000


class AMQPBackend(Backend):
    """Results on RabbitMQ. URL: ``amqp://`` or ``amqps://``."""

    persistent = False

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        if not url:
            raise errors.ConfigError("the AMQP result backend needs a URL, such as amqp://guest:guest@localhost:5672/")
        # One for all threads: the channel is.
        self.thread_safe = True
        self.url: str = url
        self.connection_errors = amqp_client.CONNECTION_ERRORS
        self.channel = amqp_client.SharedChannel(url, app.conf.broker_use_ssl if url.startswith("amqps") else None)
        #: What a sender says of a task once.
        self._sent: dict[str, tuple[str, str]] = {}
        #: The states of groups whose callback this process sends.
        self._taken: dict[str, list[TaskState]] = {}

    def as_uri(self, include_password: bool = False) -> str:
        return self.url if include_password else urls.redact(self.url)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, self.connection_errors)

    def _queue(self) -> dict[str, Any]:
        """How a queue of states is declared; in each process of a fleet the same."""
        seconds = self.expiry
        if not 0 < seconds <= LONGEST_EXPIRY:
            raise errors.BackendError(
                f"results on RabbitMQ are kept for 1 to {LONGEST_EXPIRY} seconds; change results_expire_in"
            )
        arguments = {"x-message-ttl": seconds * 1000, "x-expires": seconds * 1000}
        return {"durable": False, "auto_delete": True, "exclusive": False, "arguments": arguments}

    def _publish(self, messages: Sequence[tuple[str, TaskState]]) -> None:
        """Puts states into queues, in one round trip."""
        declared = self._queue()

        def publish(channel: Any) -> None:
            for queue, state in messages:
                channel.queue_declare(queue=queue, nowait=True, **declared)
                message = amqp.Message(state.encode(), content_type="application/json", delivery_mode=2)
                # By the default exchange; a queue of Go's is also bound to Machinery's.
                channel.basic_publish(message, exchange="", routing_key=queue)
            # What a channel is told it does in order: when this is answered, all is in its queue.
            channel.queue_declare(queue=messages[-1][0], passive=True)

        try:
            self.channel.use(publish)
        except amqp.PreconditionFailed as exc:
            raise errors.BackendError(
                f"a queue of results was made with another results_expire_in, by a process with other settings: {exc}"
            ) from exc

    # -- tasks

    def put_state(self, state: TaskState, server: str = "", command: Any = None) -> None:
        self._publish([(state.task_uuid, state)])

    def put_pending(self, signatures: Sequence[Signature]) -> None:
        if signatures:
            self._publish([(signature.uuid, self.pending_state(signature)) for signature in signatures])

    def update_states(self, states: Sequence[TaskState], only_over: str = "", run: int | None = None) -> Any:
        # A history cannot be written on a condition.
        if only_over:
            return [False] * len(states)
        if states:
            self._publish([(state.task_uuid, state) for state in states])
        return [True] * len(states)

    def task_states(self, uuids: Sequence[str]) -> list[TaskState | None]:
        return [self._latest(uuid) for uuid in uuids]

    def _latest(self, uuid: str) -> TaskState | None:
        def take(channel: Any) -> list[bytes]:
            bodies: list[bytes] = []
            kept, left = None, 1
            while left and (message := channel.basic_get(uuid)) is not None:
                tag, left = message.delivery_tag, message.delivery_info["message_count"]
                body = _bytes(message.body)
                if kept is not None and _is_late(body, bodies[-1]):
                    channel.basic_ack(tag)
                    continue
                if kept is not None:
                    channel.basic_ack(kept)
                kept = tag
                bodies.append(body)
            if kept is not None:
                channel.basic_reject(kept, requeue=True)
            return bodies

        try:
            bodies = self.channel.use(take)
        except amqp.NotFound:
            return None
        for body in bodies[:-1]:
            self._remember(body)
        return self._named(uuid, self.decode_state(uuid, bodies[-1])) if bodies else None

    def _remember(self, body: bytes) -> None:
        try:
            state = TaskState.decode(body)
        except errors.DecodeError:
            return
        if state.task_name:
            self._sent[state.task_uuid] = (state.task_name, state.created_at)
            if len(self._sent) > NAMES:
                self._sent.pop(next(iter(self._sent)), None)

    def _named(self, uuid: str, state: TaskState) -> TaskState:
        """Go's states after PENDING have neither name nor time of creation; a history has."""
        name, created = self._sent.get(uuid, ("", ZERO_TIME))
        if not state.task_name:
            state.task_name, state.created_at = name, created
        return state

    # -- groups: the ends of their members, in a queue of their own

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        stored = super()._store_result(task_id, result, state, traceback, request, **kwargs)
        raw = getattr(request, "machinery", None)
        if raw and state in (SUCCESS, *self.EXCEPTION_STATES) and request.id == task_id:
            document = self._task_state(task_id, result, state, traceback, request)
            if document.state in (SUCCESS, FAILURE):
                self._end_member(Signature.decode(raw), document, getattr(request, "group_index", None))
        return stored

    def fail_unrunnable(self, signature: Signature, error: str) -> None:
        self._end_member(signature, TaskState(task_uuid=signature.uuid, state=FAILURE, error=error))
        super().fail_unrunnable(signature, error)

    def fail_step(self, step: Signature, exc: Any, traceback: Any = None, errbacks: bool = False) -> None:
        self._end_member(step, self._task_state(step.uuid, self.encode_result(exc, FAILURE), FAILURE, traceback, None))
        super().fail_step(step, exc, traceback, errbacks)

    def _end_member(self, signature: Signature, state: TaskState, index: int | None = None) -> None:
        if signature.group_uuid and signature.group_task_count:
            if index is not None:
                extra = kombu_json.loads(state.celery) if state.celery else {}
                state.celery = kombu_json.dumps({**extra, INDEX: index})
            self._publish([(signature.group_uuid, state)])

    def group_meta(self, uuid: str) -> GroupMeta | None:
        """None: on RabbitMQ a group has no document."""
        return None

    def put_group(self, meta: GroupMeta) -> None:
        """Writes nothing, as Go."""

    def group_completed(self, uuid: str, count: int) -> bool:
        # More, when a member has run twice.
        return self._ready(uuid) >= count > 0

    def _ready(self, uuid: str) -> int:
        try:
            return int(self.channel.use(lambda channel: channel.queue_declare(queue=uuid, passive=True)).message_count)
        except amqp.NotFound:
            return 0

    def trigger_chord(self, uuid: str) -> bool:
        """Takes the states of a group; only one process can, since it consumes them alone."""
        try:
            states = self.channel.use(lambda channel: self._take(channel, uuid), again=False)
        except (amqp.NotFound, amqp.AccessRefused, amqp.ResourceLocked):
            return False
        if not states:
            return False
        self._taken[uuid] = states
        return True

    def _take(self, channel: Any, uuid: str) -> list[TaskState]:
        expected = channel.queue_declare(queue=uuid, passive=True).message_count
        if not expected:
            return []
        messages: list[Any] = []
        tag = channel.basic_consume(uuid, exclusive=True, callback=messages.append)
        while len(messages) < expected:
            try:
                channel.connection.drain_events(timeout=TAKE_TIMEOUT)
            except TimeoutError:
                raise errors.BackendError(f"group {uuid}: of {expected} states {len(messages)} came") from None
        states: dict[str, TaskState] = {}
        for message in messages:
            state = self.decode_state(uuid, _bytes(message.body))
            states.setdefault(state.task_uuid, state)
        channel.basic_ack(messages[-1].delivery_tag, multiple=True)
        # Without its only reader RabbitMQ deletes the queue.
        channel.basic_cancel(tag)
        return _in_order(list(states.values()))

    def group_task_states(self, uuid: str) -> list[TaskState]:
        """The states of a group whose chord this process has triggered.

        They are in the order in which the members ended, as in Go; those of a Celery chord in its own.
        """
        states = self._taken.pop(uuid, None)
        if states is None:
            raise self.group_missing(uuid)
        return states

    def purge(self, uuid: str) -> None:
        def delete(channel: Any) -> None:
            channel.queue_delete(queue=f"{uuid}_chord_triggered")
            channel.queue_delete(queue=uuid)

        self.channel.use(delete)


def _in_order(states: list[TaskState]) -> list[TaskState]:
    places = [_index(state) for state in states]
    if any(place is None for place in places):
        return states
    return [state for _, state in sorted(zip(places, states, strict=True), key=lambda pair: pair[0] or 0)]


def _is_late(body: bytes, before: bytes) -> bool:
    """Whether a state is no news after the one before it: a task that has ended is not RECEIVED any more."""
    if b'"RECEIVED"' not in body:
        return False
    try:
        old, new = TaskState.decode(before), TaskState.decode(body)
    except errors.DecodeError:
        return False
    return not fence.may_replace(old, new.state)


def _index(state: TaskState) -> int | None:
    """The place of a task in its Celery chord."""
    try:
        found = kombu_json.loads(state.celery)[INDEX] if state.celery else None
    except (ValueError, TypeError, KeyError):
        return None
    return found if type(found) is int else None


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)
