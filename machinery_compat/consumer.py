"""Celery's consumer, with Machinery's manners towards tasks of the other language.

Stock Celery throws away what it does not know: it rejects the message and writes FAILURE. In a
mixed fleet that would destroy the other side's tasks.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Any

from celery.app.trace import build_tracer
from celery.utils.log import get_logger
from celery.worker import state

from machinery_compat.stopping import StoppingConsumer
from machinery_compat.transport.base import TaskChannel, TaskPayload

__all__ = ["Consumer"]

logger = get_logger(__name__)

#: The first time for which an unknown task waits before it comes back to its queue, in seconds;
#: it doubles each time this worker sees it again.
FIRST_WAIT = 0.1
#: The longest such time, in seconds: short enough for a worker of the other language that has
#: just started.
LONGEST_WAIT = 1.0
#: How many unknown tasks are remembered at most.
REMEMBERED = 10_000


class _Strategies(dict[str, Any]):
    """Celery's way to handle each task; one that was registered after the start is found too, as in Go."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__()
        self._consumer = consumer

    def __missing__(self, name: str) -> Any:
        consumer = self._consumer
        task = consumer.app.tasks[name]
        if getattr(consumer.pool, "uses_semaphore", False):
            # The processes of the pool were forked before and have no such task.
            raise KeyError(name)
        self[name] = strategy = task.start_strategy(consumer.app, consumer)
        task.__trace__ = build_tracer(name, task, consumer.app.loader, consumer.hostname, app=consumer.app)
        return strategy


class Consumer(StoppingConsumer):
    """A Celery consumer for queues that Go workers share."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waits: OrderedDict[str, float] = OrderedDict()
        self.strategies = _Strategies(self)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        channel = self.task_consumer.channel
        if isinstance(channel, TaskChannel):
            pool = self.pool
            channel.slots = lambda: pool.num_processes or 1  # type: ignore[method-assign]
            # Only the prefork pool has one: its tasks run in other processes.
            channel.runs_tasks = not pool.uses_semaphore
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            if isinstance(message, TaskPayload) and message.signature is not None:
                reason = message.channel.border.unstorable(message.signature)
                if reason:
                    message.bury(reason)
                    return None
            return handle(message)

        return on_task_received

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        channel = self.task_consumer.channel if self.task_consumer is not None else None
        if isinstance(channel, TaskChannel) and not self.app.conf.worker_cancel_long_running_tasks_on_connection_loss:
            channel.keep(
                [
                    request.message
                    for request in list(state.active_requests)
                    if request.message.channel is channel and not request.acknowledged
                ]
            )
        super().on_connection_error_after_connected(exc)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Puts a task that this process has no function for back, for a worker that has.

        It goes back at once the first time. After that it waits, at the broker and not here: it
        takes no place from tasks that this worker can run. Each time it waits twice as long, so a
        fleet in which nobody knows the task hands it around ever more slowly. Its state is not
        touched.
        """
        if not isinstance(message, TaskPayload) or message.signature is None:
            super().on_unknown_task(body, message, exc)
            return
        signature = message.signature
        if signature.ignore_when_task_not_registered:
            logger.warning(
                "task %s[%s] is not registered here and says IgnoreWhenTaskNotRegistered: dropped",
                signature.name,
                signature.uuid,
            )
            # RabbitMQ keeps it where the queue's dead-letter exchange leads, as for Go.
            message.reject_log_error(logger, self.connection_errors)
            return
        wait = self._next_wait(signature.uuid, signature.name)
        if wait:
            message.park(wait)
        else:
            message.hand_back()

    def _next_wait(self, uuid: str, name: str) -> float:
        """How long an unknown task waits at the broker before it comes back, in seconds."""
        if uuid not in self._waits:
            logger.warning("task %s[%s] is not registered here: put back for another worker", name, uuid)
            # Whoever waits for a message now gets it; only what comes back here has to wait.
            self._remember(uuid, 0.0)
            return 0.0
        wait = min(max(self._waits[uuid] * 2, FIRST_WAIT), LONGEST_WAIT)
        self._remember(uuid, wait)
        # Workers that have seen it at the same time must not see it again at the same time.
        return wait * random.uniform(0.5, 1.5)

    def _remember(self, uuid: str, wait: float) -> None:
        self._waits[uuid] = wait
        self._waits.move_to_end(uuid)
        if len(self._waits) > REMEMBERED:
            self._waits.popitem(last=False)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Fails a task whose arguments do not convert, as Go does, and keeps its message."""
        if not isinstance(message, TaskPayload) or message.signature is None or message.argument_error is None:
            super().on_invalid_task(body, message, exc)
            return
        signature, backend = message.signature, self.app.backend
        try:
            backend.fail_unrunnable(signature, str(exc))
        except Exception as away:
            if not backend.exception_safe_to_retry(away):
                raise
            logger.warning(
                "task %s[%s] cannot be failed now, and is put back: %s", signature.name, signature.uuid, away
            )
            message.park(LONGEST_WAIT)
            return
        message.bury(f"task {signature.name}[{signature.uuid}]: {exc}")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Keeps a payload that is no Signature."""
        if not isinstance(message, TaskPayload):
            super().on_decode_error(message, exc)
            return
        message.bury(f"Could not unmarshal into a task signature: {exc}")
