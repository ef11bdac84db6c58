"""Celery's request of a task, with what Machinery's messages do when something dies or freezes."""

from __future__ import annotations

import os
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import signals
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError, WorkerLostError
from celery.utils.log import get_logger
from celery.worker.request import Request as CeleryRequest
from celery.worker.state import task_ready
from kombu.utils.encoding import safe_repr

from machinery_compat.backends.base import Backend
from machinery_compat.backends.fence import Superseded
from machinery_compat.canvas import eta_text
from machinery_compat.transport.base import TaskPayload
from machinery_compat.transport.redelivery import has_followers

__all__ = ["Request"]

logger = get_logger(__name__)

#: What ends a run of a task without making it a failure.
NO_FAILURES = (Retry, Ignore, Reject)


class Request(CeleryRequest):  # type: ignore[misc]
    """A task that a worker has taken; Celery's seam ``Task.Request`` names this class."""

    acknowledged: bool
    #: What became of the process that ran the task; set while Celery deals with its death.
    _loss: str | None = None
    #: Whether the message was given up then.
    _given_up = False

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(message, *args, **kwargs)
        if isinstance(message, TaskPayload) and message.signature is not None:
            if (
                self._delivery_info["redelivered"]
                and self.app.conf.worker_deduplicate_successful_tasks
                and isinstance(self.app.backend, Backend)
                and has_followers(message.signature)
            ):
                # Celery would forget what follows; the task's base class sees to both, and sets it right.
                self._request_dict["machinery_again"] = True
                self._request_dict["delivery_info"] = {**self._delivery_info, "redelivered": False}
            # Only the task learns of it: Celery would let the task wait here, which it has done at the broker.
            self._request_dict["eta"] = eta_text(message.signature)

    def revoked(self) -> bool:
        """Whether the task must not begin: revoked, expired, or given to another worker meanwhile.

        Celery asks just before it hands the task to the pool.
        """
        return self._dropped() or bool(super().revoked())

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        # A thread takes a task long after it was handed to the pool; this is its last look.
        if pid == os.getpid() and self._dropped():
            raise TaskRevokedError(self.id)
        super().on_accepted(pid, time_accepted)

    def _dropped(self) -> bool:
        message = self.message
        if not isinstance(message, TaskPayload) or message.is_ours():
            return False
        logger.warning("task %s[%s] has been given to another worker and is not begun here", self.name, self.id)
        task_ready(self)
        # Of what the other worker has, nothing goes back.
        self.reject(requeue=True)
        return True

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        self._loss = _loss_of(exc_info.exception)
        exc = _bare(exc_info.exception)
        if isinstance(self.message, TaskPayload) and self.message.comes_renumbered and isinstance(exc, Superseded):
            # The later run need not be of this message, which may be the only one that is left of the task.
            task_ready(self)
            self.reject(requeue=True)
            return
        if isinstance(self.message, TaskPayload):
            if isinstance(exc, Reject) and exc.requeue:
                self.message.task_rejected()
            elif not isinstance(exc, NO_FAILURES):
                self.message.task_failed()
        try:
            super().on_failure(exc_info, send_failed_event, return_ok)
        finally:
            loss, self._loss = self._loss, None
        if self._given_up and loss is not None:
            self._tell_of_failure(loss)

    def _success_was_stored(self) -> Any:
        # Celery asks when the process has died, and then acknowledges; but here what follows is sent after that.
        goes_back = self.task.acks_late and self.task.reject_on_worker_lost
        signature = self.message.signature if isinstance(self.message, TaskPayload) else None
        if goes_back and signature is not None and has_followers(signature):
            return False
        return super()._success_was_stored()

    def reject(self, requeue: bool = False) -> None:
        message = self.message
        if self._loss is None or not requeue or self.acknowledged or not isinstance(message, TaskPayload):
            super().reject(requeue)
            return
        # As Celery does for every other message; at-least-once delivery makes the rest good.
        try:
            self._given_up = message.lost(self._loss)
        except self.connection_errors as exc:
            logger.critical("the message of task %s[%s] cannot be put back: %r", self.name, self.id, exc)
        self.acknowledged = True
        self.send_event("task-rejected", requeue=not self._given_up)

    def _tell_of_failure(self, loss: str) -> None:
        """Tells those that wait for Celery's events and signals; the state is written already."""
        exc = WorkerLostError(loss)
        self.send_event("task-failed", exception=safe_repr(exc), traceback=None)
        signals.task_failure.send(
            sender=self.task,
            task_id=self.id,
            exception=exc,
            args=self.args,
            kwargs=self.kwargs,
            traceback=None,
            einfo=None,
        )


def _bare(exc: Any) -> Any:
    return exc.exc if isinstance(exc, ExceptionWithTraceback) else exc


def _loss_of(exc: Any) -> str | None:
    """What became of the process of the pool, when that is why a task has failed."""
    exc = _bare(exc)
    if isinstance(exc, WorkerLostError):
        return str(exc)
    if isinstance(exc, (SystemExit, KeyboardInterrupt)):
        # The task has asked its process to end, and it does.
        return f"the task raised {exc!r}"
    return None
