"""Celery's consumer, with Machinery's manners towards tasks of the other language.

Stock Celery throws away what it does not know: it rejects the message and writes FAILURE. In a
mixed fleet that would destroy the other side's tasks.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Any

from celery.utils.log import get_logger
from celery.worker.consumer import Consumer as CeleryConsumer

from machinery_compat.transport.base import TaskPayload

__all__ = ["Consumer"]

logger = get_logger(__name__)

#: The first time for which an unknown task is held before it is put back, in seconds; it doubles.
FIRST_HOLD = 0.1
#: The longest such time, in seconds.
LONGEST_HOLD = 10.0
#: How many held messages are allowed on top of the prefetch count: enough that unknown tasks do
#: not block known ones, few enough that this worker does not hoard what another could run.
HELD_BESIDE_PREFETCH = 100
#: How many unknown tasks are remembered at most.
REMEMBERED = 10_000


class Consumer(CeleryConsumer):  # type: ignore[misc]
    """A Celery consumer for queues that Go workers share."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._holds: OrderedDict[str, float] = OrderedDict()
        self._held = 0

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Puts a task that this process has no function for back, for a worker that has.

        Each time it comes again it is held twice as long, so a fleet in which nobody knows the
        task hands it around ever more slowly. Its state is not touched.
        """
        if not isinstance(message, TaskPayload) or message.signature is None:
            super().on_unknown_task(body, message, exc)
            return
        signature = message.signature
        if signature.ignore_when_task_not_registered:
            logger.warning(
                "task %s[%s] is not registered here and says IgnoreWhenTaskNotRegistered: dropped",
                signature.name, signature.uuid,
            )
            message.ack_log_error(logger, self.connection_errors)
            return
        hold = self._next_hold(signature.uuid, signature.name)
        beside = self._held < HELD_BESIDE_PREFETCH
        if beside:
            self.qos.increment_eventually()
        self._held += 1
        self.timer.call_after(hold, self._hand_back, (message, beside))

    def _next_hold(self, uuid: str, name: str) -> float:
        known = uuid in self._holds
        hold = min(self._holds.pop(uuid, FIRST_HOLD / 2) * 2, LONGEST_HOLD)
        self._holds[uuid] = hold
        if len(self._holds) > REMEMBERED:
            self._holds.popitem(last=False)
        if not known:
            logger.warning(
                "task %s[%s] is not registered here: put back for another worker", name, uuid
            )
        return hold * random.uniform(0.8, 1.2)

    def _hand_back(self, message: Any, beside: bool) -> None:
        self._held -= 1
        if beside:
            self.qos.decrement_eventually()
        try:
            message.hand_back()
        except self.connection_errors as exc:
            # Unacknowledged, so the broker gives it to somebody anyway.
            logger.warning("could not put a task back: %s", exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Fails a task whose arguments do not convert, as Go does, and keeps its message."""
        if not isinstance(message, TaskPayload) or message.signature is None or message.argument_error is None:
            super().on_invalid_task(body, message, exc)
            return
        message.bury(f"task {message.signature.name}[{message.signature.uuid}]: {exc}")
        self.app.backend.fail_unrunnable(message.signature, str(exc))

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Keeps a payload that is no Signature."""
        if not isinstance(message, TaskPayload):
            super().on_decode_error(message, exc)
            return
        message.bury(f"Could not unmarshal into a task signature: {exc}")
