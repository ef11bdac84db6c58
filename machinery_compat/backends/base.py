"""What every result backend shares: TaskStates and GroupMetas in Celery's terms.

A subclass implements the primitives of :class:`~machinery_compat.backends.store.Store`; what
Celery wants of a backend is here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import states as celery_states
from kombu.exceptions import EncodeError as KombuEncodeError
from kombu.utils import json as kombu_json

from machinery_compat import arguments, canvas, errors
from machinery_compat.backends import fence
from machinery_compat.backends.groups import GroupBackend
from machinery_compat.backends.store import STATES
from machinery_compat.followers import GO_ON
from machinery_compat.readback import is_celerys
from machinery_compat.wire import (
    FAILURE,
    PENDING,
    RECEIVED,
    RETRY,
    STARTED,
    SUCCESS,
    Signature,
    TaskResult,
    TaskState,
    now_text,
)

__all__ = ["Backend"]

logger = logging.getLogger("machinery_compat.backends")

#: Seconds that results are kept when ``results_expire_in`` is 0, as in Go.
DEFAULT_EXPIRY = 3600


class ResultEncodeError(errors.EncodeError, KombuEncodeError):  # type: ignore[misc]
    """The result of a task cannot be stored. Being Kombu's error too, Celery makes it the task's failure."""


class Backend(GroupBackend):
    """A Celery result backend whose documents are Machinery's."""

    supports_autoexpire = True
    #: Several results are looked at together, see :meth:`~machinery_compat.backends.reading.ReadingBackend.get_many`.
    supports_native_join = True
    #: Whether its driver has tried for long before it gives up, so that a sender need not.
    tries_again = False
    #: The generation of the configuration and the expiry that it says, in seconds.
    _expiry: tuple[int, int] | None = None

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return super().__reduce__(args, {"url": self.url, **(kwargs or {})})

    @property
    def expiry(self) -> int:
        """Seconds that a document is kept; 0 means for ever."""
        generation = self.app.machinery.generation
        if self._expiry is None or self._expiry[0] != generation:
            expires = self.prepare_expires(None) if generation else self.expires
            seconds = 0 if expires is None or expires < 0 else int(expires) or DEFAULT_EXPIRY
            self._expiry = (generation, seconds)
        return self._expiry[1]

    # -- what the worker writes

    def store_pending(self, signature: Signature, server: str, command: Any = None) -> None:
        """Writes the PENDING state of a task that is about to be sent.

        Args:
            signature: the task.
            server: the broker's URL.
            command: collects Redis commands to be sent together with the message; only of use
                when the results are on the same server.
        """
        self.put_state(self.pending_state(signature), server, command)

    def put_pending(self, signatures: Sequence[Signature]) -> None:
        """Writes the PENDING states of tasks that are about to be sent together."""
        for signature in signatures:
            self.put_state(self.pending_state(signature))

    def pending_state(self, signature: Signature) -> TaskState:
        return TaskState(task_uuid=signature.uuid, task_name=signature.name, state=PENDING, created_at=now_text())

    def store_received(self, signatures: Sequence[Signature], run: int = 0) -> None:
        """Writes RECEIVED for tasks that arrived together, to be run for the first time or again."""
        states = [TaskState(task_uuid=one.uuid, state=RECEIVED) for one in signatures]
        for state in states:
            fence.sign(state, run)
        self.update_states(states, run=run)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        if state == STARTED and self.ended_before(request) is not None:
            return result
        document = self._task_state(task_id, result, state, traceback, request)
        run = fence.run_of(request, task_id)
        fence.sign(document, run)
        if not self.update_states([document], run=run)[0]:
            fence.supersede(request, document, run)
        return result

    def ended_before(self, request: Any) -> TaskState | None:
        """The SUCCESS of an earlier run of a task that must not run twice, whose followers may not have been sent.

        Args:
            request: Celery's request; the class Request marks such a one.
        """
        if getattr(request, "machinery_again", None) is not True:
            return None
        if not hasattr(request, "machinery_ended"):
            failing = f"what {request.id} has become before cannot be read"
            state = self.app.machinery.workflow.patiently(lambda: self.task_state(request.id), failing)
            request.machinery_ended = state if state is not None and state.state == SUCCESS else None
        ended: TaskState | None = request.machinery_ended
        return ended

    def _task_state(self, task_id: str, result: Any, state: str, traceback: str | None, request: Any) -> TaskState:
        document = TaskState(task_uuid=task_id, state=state)
        if state == SUCCESS:
            document.results = list(self._results_to_store(result, request))
            children = [*(self.current_task_children(request) or ()), *_followers_of(request)]
            if children:
                document.celery = kombu_json.dumps({"children": children})
        elif state in self.EXCEPTION_STATES:
            self._describe_failure(document, result, traceback, request)
        elif state not in STATES:
            # A state of the user's own: for Machinery the task is running.
            document.state = STARTED
            document.celery = kombu_json.dumps({"state": state, "result": result})
        return document

    def _results_to_store(self, result: Any, request: Any) -> list[TaskResult]:
        """The results of a task.

        Raises:
            ResultEncodeError: they cannot be stored, or are too large for a callback's message.
        """
        try:
            results = self._results(result, request)
        except errors.EncodeError as exc:
            raise ResultEncodeError(str(exc)) from exc
        limit = self.app.machinery.border.max_body_size
        size = sum(len(one.raw) for one in results)
        if limit and size > limit:
            raise ResultEncodeError(
                f"the results have {size} bytes and machinery_max_body_size is {limit}; "
                "return a reference to the data, or raise the setting in every process of the fleet"
            )
        return results

    def _describe_failure(self, document: TaskState, result: Any, traceback: str | None, request: Any) -> None:
        if document.state == celery_states.REVOKED:
            document.state = FAILURE
        if document.state == FAILURE:
            # In any case: the text must not stay in what describes the exception.
            error = _error_of(result)
            document.error = getattr(request, "machinery_error", None) or error
        extra: dict[str, Any] = {"exception": result}
        if traceback:
            extra["traceback"] = traceback
        if _is_revoked(result):
            extra["state"] = celery_states.REVOKED
        children = self.current_task_children(request)
        if children:
            extra["children"] = children
        document.celery = kombu_json.dumps(extra)

    def _results(self, result: Any, request: Any) -> list[TaskResult]:
        name = getattr(request, "task", None)
        parameters = self.app.machinery.border.parameters(name) if name else None
        signature = _signature_of(request)
        # The body of a Celery chord gets one result of each member.
        single = signature is not None and is_celerys(signature.chord_callback)
        return [
            TaskResult.from_raw(arg.type, arg.raw, celery=arg.name or None)
            for arg in arguments.results_of(result, parameters.returns if parameters else None, single)
        ]

    def encode_result(self, result: Any, state: str) -> Any:
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return {**self.prepare_exception(result), "text": canvas.error_text(result)}
        return self.prepare_value(result)

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = SUCCESS,
    ) -> None:
        signature = _signature_of(request)
        workflow = self.app.machinery.workflow
        if signature is not None and signature.on_success:
            if any(one is not None and one.name == GO_ON for one in signature.on_success) and self._has_later_run(
                task_id, request, state
            ):
                return
            # Before the result is stored, as Celery does it, so that its children are stored too.
            workflow.go_on(signature, result, request)
        super().mark_as_done(task_id, result, request, store_result, state)
        if fence.is_superseded(request):
            return
        if signature is not None and (signature.on_success or signature.chord_callback):
            workflow.succeeded(signature, self._results(result, request))

    def _has_later_run(self, task_id: str, request: Any, state: str) -> bool:
        """Looks before anything is sent what else is seen when the state is written."""
        run = fence.run_of(request, task_id)
        failing = f"what {task_id} has become meanwhile cannot be read"
        if fence.may_replace(
            self.app.machinery.workflow.patiently(lambda: self.task_state(task_id), failing), state, run=run
        ):
            return False
        fence.supersede(request, TaskState(task_uuid=task_id, state=state), run)
        return True

    def mark_as_failure(
        self,
        task_id: str,
        exc: Any,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = FAILURE,
    ) -> None:
        super().mark_as_failure(task_id, exc, traceback, request, store_result, call_errbacks, state)
        if fence.is_superseded(request):
            return
        signature = _signature_of(request)
        if signature is not None:
            self._fail_followers(signature, exc, traceback)
            text = getattr(request, "machinery_error", None) or canvas.error_text(exc)
            self.app.machinery.workflow.failed(signature, text, exc, traceback, request)

    def mark_as_retry(
        self,
        task_id: str,
        exc: Any,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        state: str = RETRY,
    ) -> Any:
        """Writes RETRY.

        Celery's own retry has sent the task again by now: what it has become since must stay.
        """
        result = self.encode_result(exc, state)
        document = self._task_state(task_id, result, RETRY, traceback, request)
        workflow = self.app.machinery.workflow
        planned = workflow.is_planned(task_id)
        # It does not say which run it is of: the retry is a new message, whose first run must not stand behind.
        run = fence.run_of(request, task_id)
        written = self.update_states([document], only_over="" if planned else PENDING, run=run)[0]
        if planned and not written:
            workflow.forget_retry(task_id)
        return result


def _signature_of(request: Any) -> Signature | None:
    raw = getattr(request, "machinery", None)
    if not raw:
        return None
    known = getattr(request, "machinery_signature", None)
    if known is None or known[0] is not raw:
        known = request.machinery_signature = (raw, Signature.decode(raw))
    signature: Signature = known[1]
    return signature


def _followers_of(request: Any) -> list[Any]:
    """The followers of a task, in the form in which Celery keeps a task's children."""
    signature = _signature_of(request)
    if signature is None or not signature.on_success:
        return []
    return [
        [[follower.uuid, None], None]
        for follower in signature.on_success
        if is_celerys(follower) and follower.name != GO_ON
    ]


def _error_of(described: Any) -> str:
    if isinstance(described, dict):
        return str(described.pop("text", "") or described.get("exc_type", ""))
    return canvas.error_text(described) if isinstance(described, BaseException) else str(described)


def _is_revoked(described: Any) -> bool:
    return isinstance(described, dict) and described.get("exc_type") == "TaskRevokedError"
