"""The application's side of the border: what the channels of its connections ask."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

from celery import Celery as CeleryApp
from celery.app.task import extract_exec_options
from celery.worker import state as worker_state
from kombu import Queue

from machinery_compat import celery_header, errors, sending, tracing
from machinery_compat.arguments import Parameters
from machinery_compat.backends import fence
from machinery_compat.backends.base import Backend
from machinery_compat.config import GCPPubSubConfig, RedisConfig, SQSConfig
from machinery_compat.settings import redelivery_limit_of
from machinery_compat.transport.base import TaskPayload
from machinery_compat.transport.border import MAX_BODY_SIZE, Border
from machinery_compat.wire import Signature

__all__ = ["AppBorder"]

logger = logging.getLogger("machinery_compat")


class AppBorder(Border):
    """What a channel learns of a Celery application."""

    enabled = True

    def __init__(self, app: CeleryApp) -> None:
        self.app = app
        self._parameters: dict[str, tuple[Any, Parameters | None]] = {}
        self._sending = threading.local()

    @property
    def default_queue(self) -> str:  # type: ignore[override]
        return str(self.app.conf.task_default_queue)

    @property
    def strict(self) -> bool:  # type: ignore[override]
        return bool(self.app.conf.get("machinery_strict_types", False))

    @cached_property
    def max_body_size(self) -> int:  # type: ignore[override]
        return int(self.app.conf.get("machinery_max_body_size", MAX_BODY_SIZE) or 0)

    @property
    def delayed_queue(self) -> str:  # type: ignore[override]
        return str(self.app.machinery.config.amqp_settings.delayed_queue)

    @property
    def delay_auto_delete(self) -> bool:  # type: ignore[override]
        return bool(self.app.machinery.config.amqp_settings.auto_delete)

    @property
    def redis(self) -> RedisConfig:  # type: ignore[override]
        return self.app.machinery.config.redis_settings  # type: ignore[no-any-return]

    @property
    def sqs(self) -> SQSConfig:  # type: ignore[override]
        return self.app.machinery.config.sqs or SQSConfig()

    @property
    def gcp_pubsub(self) -> GCPPubSubConfig | None:  # type: ignore[override]
        return self.app.machinery.config.gcp_pubsub  # type: ignore[no-any-return]

    def parameters(self, name: str) -> Parameters | None:
        task = self.app._tasks.get(name)
        known = self._parameters.get(name)
        if known is not None and known[0] is task:
            return known[1]
        found = Parameters(task.run) if task is not None else None
        self._parameters[name] = (task, found)
        return found

    def queue_for(self, routing_key: str) -> Queue | None:
        """The queue that a RoutingKey leads to; None where the exchange alone decides."""
        default = self.app.amqp.default_queue
        if routing_key in ("", default.routing_key, default.name):
            return default
        if self.app.conf.task_default_exchange_type != "direct":
            return None
        return self.app.amqp.queues[routing_key]

    @property
    def sends_followers(self) -> bool:  # type: ignore[override]
        return isinstance(self.app.backend, Backend)

    def options_of(self, name: str) -> Mapping[str, Any]:
        task = self.app._tasks.get(name)
        return extract_exec_options(task) if task is not None else {}

    def ignores_result(self, name: str) -> bool:
        task = self.app._tasks.get(name)
        return task is not None and bool(task.ignore_result)

    def routing_key_of(self, step: Mapping[str, Any]) -> str:
        amqp = self.app.amqp
        options = {name: value for name, value in step["options"].items() if name == "queue" and value}
        queue = amqp.router.route(options, step["task"], step["args"], step["kwargs"]).get("queue")
        if queue is None or queue == amqp.default_queue:
            return ""
        return str(queue.routing_key if amqp.is_amqp() else queue.name)

    def route(self, exchange: str, routing_key: str) -> tuple[str, str]:
        if exchange:
            return exchange, routing_key
        # Celery sends to a queue by its name, through the exchange that has none.
        queue = self.app.amqp.queues[routing_key]
        return queue.exchange.name, queue.routing_key

    def queue_of(self, exchange: str, routing_key: str) -> str:
        if exchange:
            # Nothing is bound: a RoutingKey is the name of a queue.
            for queue in list(self.app.amqp.queues.values()):
                if (queue.exchange.name, queue.routing_key) == (exchange, routing_key):
                    return str(queue.name)
        return routing_key or self.default_queue

    def publishing(self, signature: Signature) -> None:
        tracing.carry(self.app, signature)
        for hook in self.app.machinery.pre_publish:
            hook(signature)

    def states_written(self) -> AbstractContextManager[None]:
        """While this lasts, this thread sends tasks whose PENDING states are there already."""
        return self._states_written(True)

    @contextmanager
    def _states_written(self, written: bool) -> Iterator[None]:
        before = getattr(self._sending, "states_written", False)
        self._sending.states_written = written
        try:
            yield
        finally:
            self._sending.states_written = before

    def before_publish(self, signature: Signature, server: str, command: Any = None) -> None:
        if getattr(self._sending, "states_written", False):
            return
        backend = self.app.backend
        if isinstance(backend, Backend) and _ignore_result_of(signature) is not True:
            with sending.naming(backend):
                backend.store_pending(signature, server, command)

    def run(self, body: bytes) -> None:
        with self._states_written(False):
            self.app.machinery.eager.run(body)

    @property
    def redelivery_limit(self) -> int:  # type: ignore[override]
        return redelivery_limit_of(self.app.conf)

    def received(self, signatures: Sequence[Signature], runs: Sequence[int] = ()) -> None:
        backend = self.app.backend
        if not isinstance(backend, Backend):
            return
        kept = [
            (one, run)
            for one, run in zip(signatures, runs or [0] * len(signatures), strict=True)
            if self._keeps_result(one) and not self.unstorable(one)
        ]
        try:
            for run, group in groupby(kept, key=itemgetter(1)):
                backend.store_received([one for one, _ in group], run)
        except Exception as exc:
            if not backend.exception_safe_to_retry(exc):
                raise
            # The tasks run all the same; what they become is what must be stored.
            away = backend.as_uri()
            logger.warning(
                "the result backend %s is away, %d tasks are not marked as RECEIVED: %s", away, len(kept), exc
            )

    def _keeps_result(self, signature: Signature) -> bool:
        """Whether this process runs such tasks, and stores what becomes of them."""
        task = self.app.tasks.get(signature.name)
        if task is None:
            return False
        told = _ignore_result_of(signature)
        return not (task.ignore_result if told is None else told)

    def unstorable(self, signature: Signature) -> str:
        """Why the result backend can keep nothing of a task, which so cannot be run; empty where it can."""
        backend = self.app.backend
        if isinstance(backend, Backend) and self._keeps_result(signature):
            try:
                backend.check_uuid(signature.uuid)
            except errors.BackendError as exc:
                return str(exc)
        return ""

    def progress_of(self, signature: Signature, of_others: bool = False) -> tuple[str, int]:
        backend = self.app.backend
        others = of_others and signature.name not in self.app.tasks
        if not isinstance(backend, Backend) or not (others or self._keeps_result(signature)):
            return "", 0
        try:
            state = backend.task_state(signature.uuid)
        except Exception:
            logger.warning("the state of task %s[%s] cannot be read", signature.name, signature.uuid, exc_info=True)
            return "", 0
        return (state.state, fence.written_by(state)) if state is not None else ("", 0)

    def held(self) -> int:
        return len(worker_state.reserved_requests)

    def running(self, uuid: str) -> TaskPayload | None:
        request = worker_state.requests.get(uuid)
        if request is None or request.app is not self.app or request not in worker_state.active_requests:
            return None
        return request.message if isinstance(request.message, TaskPayload) else None

    def given_up(self, body: bytes, reason: str) -> None:
        try:
            signature = Signature.decode(body)
        except errors.DecodeError:
            return
        backend = self.app.backend
        if isinstance(backend, Backend):
            backend.fail_unrunnable(signature, reason)


def _ignore_result_of(signature: Signature) -> bool | None:
    """What a call says of its result; None where it leaves that to the task."""
    text = (signature.headers or {}).get(celery_header.HEADER)
    if not isinstance(text, str) or '"ignore_result": ' not in text:
        return None
    return '"ignore_result": true' in text
