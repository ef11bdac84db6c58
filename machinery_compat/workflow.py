"""What follows a task's end: callbacks, chords and retries. The only place that decides it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, TypeVar

from celery._state import get_current_task
from celery.app.task import Context
from celery.exceptions import Retry
from celery.result import allow_join_result
from celery.utils.functional import arity_greater
from kombu.exceptions import OperationalError

from machinery_compat import canvas, continuation, errors, followers, readback
from machinery_compat.dispatch import Dispatch
from machinery_compat.wire import (
    FAILURE,
    SUCCESS,
    Arg,
    Signature,
    TaskResult,
    TaskState,
    now_text,
    outgoing,
)

__all__ = ["Workflow", "fibonacci_next"]

logger = logging.getLogger("machinery_compat.workflow")

T = TypeVar("T")

#: The longest time between two retries, in seconds: a century.
LONGEST_RETRY = 100 * 365 * 86_400
#: The largest RetryTimeout: Go has 64 bits for it.
LARGEST_TIMEOUT = 2**63 - 1
#: How long a finished task tries to send what follows it, and its pause between two attempts, in seconds.
PATIENCE, PATIENCE_PAUSE = 600.0, 1.0
#: How long a chord's callback waits for a member that runs again before it is left to the watch, and the pause
#: between two looks, in seconds.
RUNS_AGAIN, RUNS_AGAIN_PAUSE = 2.0, 0.05


def fibonacci_next(start: int) -> int:
    """The smallest Fibonacci number greater than ``start``; mirrors Go's retry.FibonacciNext."""
    low, high = 0, 1
    while high <= start:
        low, high = high, low + high
    return high


class Workflow(Dispatch):
    """Sends what follows a task.

    Args:
        app: the Celery application.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._retries = threading.local()

    # -- sending

    def _send_follower(self, signature: Signature | None, of: Signature) -> bool:
        """Sends a follower, or fails it for good; False when it could not be sent now."""
        if signature is None:
            return True
        try:
            # It may hold what a task of Go's has returned, which need not be of Machinery's types.
            outgoing.check_args(signature)
            self._send_patiently(signature)
        except errors.EncodeError as exc:
            self._fail_follower(signature, of, exc)
        except (OperationalError, errors.MachineryError) as exc:
            logger.error("task %s[%s]: its callback %s could not be sent: %s", of.name, of.uuid, signature.name, exc)
            return False
        return True

    def _send_patiently(self, signature: Signature) -> Signature:
        """Sends what follows the running task, also after an outage of the broker."""
        return self.patiently(partial(self._send, signature), f"{signature.name}[{signature.uuid}] cannot be sent")

    def patiently(self, work: Callable[[], T], failing: str) -> T:
        """Does what belongs to the end of the running task; while broker or store are away the task has not ended.

        It is not acknowledged until then: if the worker is killed meanwhile, another one runs it again.

        Args:
            work: what may be done twice.
            failing: what it means that it fails, for the log.

        Raises:
            Exception: what does not pass by waiting, or has not passed in ten minutes.
        """
        until = time.monotonic() + (PATIENCE if get_current_task() is not None else 0)
        while True:
            try:
                return work()
            except Exception as exc:
                may_pass = isinstance(exc, OperationalError) or self.app.backend.exception_safe_to_retry(exc)
                if not may_pass or time.monotonic() >= until:
                    raise
                logger.warning("%s now: %s; trying again", failing, exc)
                time.sleep(PATIENCE_PAUSE)

    def _fail_follower(self, signature: Signature, of: Signature, exc: errors.EncodeError) -> None:
        """Fails a callback as the worker that got it would, which it would hurt if it were Go's."""
        logger.error("task %s[%s]: its callback cannot be sent: %s", of.name, of.uuid, exc)
        if signature.uuid:
            state = TaskState(
                task_uuid=signature.uuid,
                task_name=signature.name,
                state=FAILURE,
                error=f"Reflect task args error: {exc}",
                created_at=now_text(),
            )
            self.patiently(partial(self.app.backend.put_state, state), f"the end of {signature.uuid} cannot be stored")

    # -- success

    def go_on(self, signature: Signature, value: Any, request: Any) -> None:
        """Sends those steps of a Celery workflow that no Signature can say, before the result is stored."""
        for callback in signature.on_success or ():
            if not readback.is_celerys(callback):
                continue
            carried = readback.continuation(callback)
            if carried is not None:
                passed = None if signature.immutable else value
                root_id = request.root_id or signature.uuid
                continuation.go_on(self.app, passed, *carried, parent_id=signature.uuid, root_id=root_id)

    def succeeded(self, signature: Signature, results: Sequence[TaskResult]) -> None:
        """Sends the success callbacks and, with the last member of a group, the chord's."""
        for callback in signature.on_success or ():
            if callback is not None and callback.name == followers.GO_ON and readback.is_celerys(callback):
                continue
            if callback is not None and not signature.immutable:
                append_results(callback, results)
            self._send_follower(callback, signature)
        self.check_chord(signature)

    # -- failure

    def failed(
        self, signature: Signature, error: str, exc: Any = None, traceback: Any = None, request: Any = None
    ) -> None:
        """Sends the error callbacks, the error's text as their first argument.

        Celery's error callbacks are called as Celery calls them.

        Args:
            signature: the task that has failed.
            error: the text.
            exc: the exception.
            traceback: its traceback, as text.
            request: Celery's request of the task, where it has been run.
        """
        errbacks = []
        for callback in signature.on_error or ():
            if callback is not None and callback.name == followers.STEP_FAILED:
                # It is a Go worker's; here what follows has failed already.
                continue
            # A task that only others have may be Go's, which wants the text.
            if readback.is_errback(callback) and callback.name in self.app.tasks:
                errbacks.append(readback.as_canvas(callback))
                continue
            if callback is not None:
                callback.args = [Arg("string", error), *(callback.args or ())]
            self._send_follower(callback, signature)
        if errbacks:
            if request is None:
                request = Context(id=signature.uuid, task=signature.name, delivery_info={})
            request.errbacks = errbacks
            self.app.backend._call_task_errbacks(request, exc or errors.TaskError(error), traceback)
        self.check_chord(signature)

    def arguments_told(self, task: Any, args: Sequence[Any]) -> Sequence[Any]:
        """The arguments of a follower of a Celery workflow whose message alone does not tell them.

        Args:
            task: the task that is about to run.
            args: the arguments as the message says them.
        """
        about = task.request.machinery_about
        if "group" in about:
            group = self.app.GroupResult.restore(about["group"])
            if group is None:
                # The results have expired; what came with the message is what there is.
                return args
            with allow_join_result():
                return [group.join(timeout=self.app.conf.result_chord_join_timeout), *args[1:]]
        header = getattr(task, "__header__", None)
        if header is None or isinstance(header, partial) or not arity_greater(header, 1):
            return args
        request = Context(id=args[0], root_id=task.request.root_id, delivery_info={})
        return [request, errors.TaskError(about.get("error") or ""), None, *args[1:]]

    # -- chords

    def check_chord(self, signature: Signature) -> None:
        """Sends the callback of a task's chord, if the task was the last member to end."""
        if signature.group_uuid and signature.chord_callback is not None:
            self.check_group(signature.group_uuid, signature.group_task_count, signature.chord_callback, signature.uuid)

    def check_group(self, uuid: str, count: int, callback: Signature, last: str = "") -> None:
        """Sends the callback of a chord, if all members of the group have ended.

        Args:
            uuid: the group.
            count: how many members it has.
            callback: the chord's callback.
            last: the member that has ended just now, where one has.
        """
        failing = f"the chord of group {uuid} cannot be checked"
        try:
            if self.patiently(partial(self._take_chord, uuid, count, callback), failing):
                self.complete_chord(uuid, callback, last)
        except errors.MachineryError as exc:
            logger.error("%s: %s", failing, exc)

    def _take_chord(self, uuid: str, count: int, callback: Signature) -> bool:
        """Whether the callback of a chord is this process's to send."""
        backend = self.app.backend
        if not backend.group_completed(uuid, count):
            backend.watch_chord(uuid, callback)
            return False
        return bool(backend.trigger_chord(uuid))

    def complete_chord(self, uuid: str, callback: Signature, last: str = "") -> None:
        """Sends the callback of a chord whose flag is this process's, or fails it with the first failed member.

        Raises:
            BackendError: a member's state is missing.
        """
        backend, failing = self.app.backend, f"the callback of group {uuid} cannot be sent"
        self.patiently(partial(backend.watch_chord, uuid, callback, began=True), failing)
        states = self._member_states(uuid, failing)
        failed = next((state for state in states if state.state == FAILURE), None)
        if failed is None and any(state.state != SUCCESS for state in states):
            logger.warning("a member of group %s runs again: its callback is sent when that has ended", uuid)
            return
        if failed is not None:
            # Go drops the callback without a word; here whoever waits for it learns why.
            backend.fail_chord(callback, failed)
        else:
            if not callback.immutable:
                for state in states:
                    append_results(callback, state.results or ())
            readback.mark_sent(callback, last)
            if not self._send_follower(callback, callback):
                return
        self.patiently(partial(backend.unwatch_chord, uuid), f"the chord of group {uuid} cannot be forgotten")

    def _member_states(self, uuid: str, failing: str) -> Sequence[TaskState]:
        """The states of a complete group's members, of which one may run again since its worker has died."""
        deadline = time.monotonic() + RUNS_AGAIN
        while True:
            states: Sequence[TaskState] = self.patiently(partial(self.app.backend.group_task_states, uuid), failing)
            if all(state.state in (SUCCESS, FAILURE) for state in states) or time.monotonic() > deadline:
                return states
            time.sleep(RUNS_AGAIN_PAUSE)

    # -- retries

    def plan_retry(self, signature: Signature, exc: Exception) -> Retry | None:
        """How a failed task is tried again, or None when it is not.

        The Signature is sent by :meth:`resend`, after the state RETRY is written, as in Go.
        """
        if isinstance(exc, errors.RetryTaskLater):
            delay = exc.delay
        elif signature.retry_count > 0:
            signature.retry_count -= 1
            signature.retry_timeout = min(fibonacci_next(signature.retry_timeout), LARGEST_TIMEOUT)
            # Fibonacci's numbers soon pass the year 9999, up to which a time can be written.
            delay = timedelta(seconds=min(signature.retry_timeout, LONGEST_RETRY))
        else:
            return None
        signature.set_eta(datetime.now(timezone.utc) + delay)
        self._retries.planned = signature
        return Retry(message=canvas.error_text(exc), exc=exc, when=delay.total_seconds())

    def is_planned(self, uuid: str) -> bool:
        """Whether a retry of this task waits to be sent."""
        planned = getattr(self._retries, "planned", None)
        return planned is not None and planned.uuid == uuid

    def forget_retry(self, uuid: str) -> None:
        """Drops the planned retry of a task that another worker runs again already."""
        if self.is_planned(uuid):
            self._retries.planned = None

    def resend(self, uuid: str) -> None:
        """Sends the planned retry of a task, once; one that cannot be sent at all is the task's failure."""
        if self.is_planned(uuid):
            planned, self._retries.planned = self._retries.planned, None
            try:
                self._send_patiently(planned)
            except errors.EncodeError as exc:
                logger.error("task %s[%s]: its retry cannot be sent: %s", planned.name, planned.uuid, exc)
                if self.app.machinery.border.sends_followers:
                    # It would stay in RETRY for ever.
                    self.app.backend.fail_unrunnable(planned, f"the retry cannot be sent: {exc}")


def append_results(callback: Signature, results: Sequence[TaskResult | None]) -> None:
    """Appends results to a callback's arguments, as Go does: of none, Args that are null stay so."""
    appended = [
        Arg.from_raw(result.type, result.raw, name=result.celery or "") for result in results if result is not None
    ]
    if appended:
        callback.args = [*(callback.args or ()), *appended]
