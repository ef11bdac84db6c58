"""Runs tasks in the process that sends them: what stands behind the broker ``eager``.

A task runs through Celery's own tracer, so states, callbacks, retries, signals and handlers are
those of a worker. What a *body* sends runs before the sending returns. What *follows* a task
(its callbacks, its next try, a chord's callback) runs when the task has ended and before the
sending of it returns, one after the other and not one inside the other: a long chain needs no
deep stack.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from celery import _state, signals
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.utils.time import maybe_iso8601, maybe_make_aware

from machinery_compat import canvas, errors
from machinery_compat.backends.base import Backend
from machinery_compat.transport import base, payloads
from machinery_compat.wire import Signature

__all__ = ["Runner"]

logger = logging.getLogger("machinery_compat.eager")

#: How often one task may run again before it counts as one that will do so for ever.
MOST_RUNS = 1000
#: What a task sees as the name of its worker.
HOSTNAME = "eager"


@dataclass(slots=True)
class _Item:
    """A task that is to run: what it says, and its bytes."""

    signature: Signature
    body: bytes


@dataclass(slots=True)
class _Level:
    """One sending that has not returned yet: the task that runs, and those that run after it."""

    waiting: deque[_Item]
    running: Signature = field(default_factory=Signature)
    #: Whether the function of the running task has returned.
    ended: bool = True
    runs: Counter[str] = field(default_factory=Counter)

    def is_followed_by(self, signature: Signature) -> bool:
        """Whether a task that is being sent follows the running one, instead of being a step of it."""
        # Celery's own tasks send what comes next as their last step.
        return self.ended or signature.uuid == self.running.uuid or self.running.name.startswith("celery.")


class Runner:
    """Runs the tasks of an application in the thread that sends them.

    Args:
        app: the application.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self._local = threading.local()

    def run(self, body: bytes) -> None:
        """Runs a task and what follows it; a task that is not registered is left alone, as in Go.

        Raises:
            DecodeError: the body is no Signature.
            MachineryError: a task asks to be run again for ever.
        """
        item = _Item(payloads.decode(body), body)
        level: _Level | None = getattr(self._local, "level", None)
        if level is not None and level.is_followed_by(item.signature):
            level.waiting.append(item)
        else:
            self._drain(item)

    def body_ended(self, uuid: str) -> None:
        """Called when the function of a task has returned or raised."""
        level: _Level | None = getattr(self._local, "level", None)
        if level is not None and level.running.uuid == uuid:
            level.ended = True

    def _drain(self, item: _Item) -> None:
        level = _Level(deque([item]))
        outer = getattr(self._local, "level", None)
        self._local.level = level
        try:
            with _current(self.app):
                while level.waiting:
                    self._run_next(level)
        finally:
            self._local.level = outer

    def _run_next(self, level: _Level) -> None:
        item = level.waiting.popleft()
        level.running = signature = item.signature
        level.runs[signature.uuid] += 1
        if level.runs[signature.uuid] > MOST_RUNS:
            raise errors.MachineryError(
                f"task {signature.name}[{signature.uuid}] has run {MOST_RUNS} times and asks to be run again; "
                "the broker 'eager' does not wait between two tries"
            )
        try:
            self._run(level, item)
        finally:
            level.ended = True

    def _run(self, level: _Level, item: _Item) -> None:
        signature = item.signature
        task = self.app.tasks.get(signature.name)
        if task is None:
            logger.debug("task %s[%s] is not registered here: left alone", signature.name, signature.uuid)
            return
        self.app.machinery.border.received([signature])
        try:
            request, args, kwargs = _request_of(item)
        except errors.DecodeError as exc:
            backend = self.app.backend
            if isinstance(backend, Backend):
                backend.fail_unrunnable(signature, base.failure_text(exc))
            return
        if self._has_expired(request):
            _revoke(task, request)
            return
        trace = build_tracer(signature.name, task, self.app.loader, HOSTNAME, app=self.app)
        level.ended = False
        trace(signature.uuid, args, kwargs, request)

    def _has_expired(self, request: dict[str, Any]) -> bool:
        expires = maybe_iso8601(request["expires"])
        return expires is not None and maybe_make_aware(expires, self.app.timezone) < datetime.now(timezone.utc)


def _request_of(item: _Item) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
    """The request of a task as a worker makes it, and the arguments.

    Raises:
        DecodeError: the arguments do not convert.
    """
    headers, properties, (args, kwargs, embed) = canvas.from_signature(item.signature, item.body)
    request = {
        **headers,
        **embed,
        "eta": canvas.eta_text(item.signature),
        "args": args,
        "kwargs": kwargs,
        "hostname": HOSTNAME,
        "is_eager": False,
        "properties": properties,
        "reply_to": properties["reply_to"],
        "correlation_id": properties["correlation_id"],
        "delivery_info": {
            "exchange": "",
            "routing_key": item.signature.routing_key,
            "priority": item.signature.priority,
            "redelivered": False,
        },
    }
    return request, args, kwargs


def _revoke(task: Any, request: dict[str, Any]) -> None:
    context = Context(request)
    task.backend.mark_as_revoked(request["id"], "expired", request=context, store_result=not task.ignore_result)
    signals.task_revoked.send(sender=task, request=context, terminated=False, signum=None, expired=True)


@contextmanager
def _current(app: Any) -> Iterator[None]:
    """Makes an application the current one of this thread, as it is in a worker of its own."""
    previous = _state._tls.current_app
    app.set_current()
    try:
        yield
    finally:
        _state._set_current_app(previous)
