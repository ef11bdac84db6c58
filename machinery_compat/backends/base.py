"""What every result backend shares: TaskStates and GroupMetas in Celery's terms.

A subclass implements the primitives of :class:`~machinery_compat.backends.store.Store`. What a
worker writes is here; `reading` and `groups` have the rest of what Celery wants of a backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import states as celery_states
from kombu.utils import json as kombu_json

from machinery_compat import canvas
from machinery_compat.backends.groups import GroupBackend
from machinery_compat.backends.store import STATES
from machinery_compat.followers import GO_ON, is_celerys
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

#: Seconds that results are kept when ``results_expire_in`` is 0, as in Go.
DEFAULT_EXPIRY = 3600


class Backend(GroupBackend):
    """A Celery result backend whose documents are Machinery's."""

    supports_autoexpire = True
    #: Several results are looked at together, see :meth:`~machinery_compat.backends.reading.ReadingBackend.get_many`.
    supports_native_join = True
    #: The generation of the configuration and the expiry that it says, in seconds.
    _expiry: tuple[int, int] | None = None

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

    def store_received(self, signatures: Sequence[Signature]) -> None:
        """Writes RECEIVED for tasks that arrived together."""
        self.update_states([TaskState(task_uuid=one.uuid, state=RECEIVED) for one in signatures])

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        self.update_states([self._task_state(task_id, result, state, traceback, request)])
        return result

    def _task_state(self, task_id: str, result: Any, state: str, traceback: str | None, request: Any) -> TaskState:
        document = TaskState(task_uuid=task_id, state=state)
        if state == SUCCESS:
            document.results = list(self._results(result, request))
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
        document.celery = kombu_json.dumps(extra)

    def _results(self, result: Any, request: Any) -> list[TaskResult]:
        name = getattr(request, "task", None)
        parameters = self.app.machinery.border.parameters(name) if name else None
        signature = _signature_of(request)
        # The body of a Celery chord gets one result of each member.
        single = signature is not None and is_celerys(signature.chord_callback)
        return [
            TaskResult.from_raw(arg.type, arg.raw, celery=arg.name or None)
            for arg in canvas.results_of(result, parameters.returns if parameters else None, single)
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
            # Before the result is stored, as Celery does it, so that its children are stored too.
            workflow.go_on(signature, result, request)
        super().mark_as_done(task_id, result, request, store_result, state)
        if signature is not None and (signature.on_success or signature.chord_callback):
            workflow.succeeded(signature, self._results(result, request))

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
        planned = self.app.machinery.workflow.is_planned(task_id)
        self.update_states([document], only_over="" if planned else PENDING)
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
