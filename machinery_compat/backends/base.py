"""What every result backend shares: TaskStates and GroupMetas in Celery's terms.

A subclass implements the primitives of :class:`~machinery_compat.backends.store.Store`; what
Celery wants of a backend is here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from celery import states as celery_states
from celery.backends.base import Backend as CeleryBackend
from celery.backends.base import SyncBackendMixin
from celery.exceptions import ChordError, SecurityError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import GroupResult, result_from_tuple
from kombu.utils import json as kombu_json

from machinery_compat import canvas, errors
from machinery_compat.backends import fence
from machinery_compat.backends.store import STATES, Store
from machinery_compat.followers import GO_ON, MEMBERS, continuation, is_celerys
from machinery_compat.wire import (
    FAILURE,
    PENDING,
    RECEIVED,
    RETRY,
    STARTED,
    SUCCESS,
    GroupMeta,
    Signature,
    TaskResult,
    TaskState,
    now_text,
)

__all__ = ["Backend", "task_values"]

logger = logging.getLogger("machinery_compat.backends")

#: What reading a document that no worker has written may raise.
UNREADABLE = (errors.MachineryError, SecurityError, ValueError, TypeError, LookupError, AttributeError)
#: First and longest pause between two looks at a state that is waited for, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.1
#: Seconds between two looks at a chord, unless ``machinery_chord_watch_interval`` says otherwise.
WATCH_INTERVAL = 30.0
#: Seconds that results are kept when ``results_expire_in`` is 0, as in Go.
DEFAULT_EXPIRY = 3600


def task_values(results: Sequence[TaskResult | None] | None) -> list[Any]:
    """The Python values of a task's results.

    Raises:
        ArgumentError: a Value does not fit its Type; the text is Go's.
    """
    return [_value(result) for result in results or ()]


def _value(result: TaskResult | None) -> Any:
    if result is None:
        raise errors.ArgumentError("a result is null")
    if result.celery != canvas.JSON_MARK:
        return result.value
    try:
        return kombu_json.loads(result.value)
    except ValueError as exc:
        raise errors.ArgumentError(f"a result is marked as JSON and is none: {exc}") from exc


def _as_returned(values: list[Any]) -> Any:
    """None for no result, the value for one, a tuple for several."""
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


class Backend(Store, SyncBackendMixin, CeleryBackend):  # type: ignore[misc]
    """A Celery result backend whose documents are Machinery's."""

    supports_autoexpire = True
    #: Several results are looked at together, see :meth:`get_many`.
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

    def store_received(self, signatures: Sequence[Signature], run: int = 0) -> None:
        """Writes RECEIVED for tasks that arrived together, to be run for the first time or again."""
        states = [TaskState(task_uuid=one.uuid, state=RECEIVED) for one in signatures]
        for state in states:
            fence.sign(state, run)
        self.update_states(states, run=run)

    def fail_unrunnable(self, signature: Signature, error: str) -> None:
        """Fails a task that cannot be started at all; Go does so when its arguments do not convert."""
        self.update_states([TaskState(task_uuid=signature.uuid, state=FAILURE, error=error)])
        exc = errors.TaskError(error)
        self._fail_followers(signature, exc, None)
        self.app.machinery.workflow.failed(signature, error, exc)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        document = self._task_state(task_id, result, state, traceback, request)
        run = fence.run_of(request, task_id)
        fence.sign(document, run)
        if not self.update_states([document], run=run)[0]:
            fence.supersede(request, document, run)
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
        if fence.may_write(self.task_state(task_id), run):
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

    def fail_chord(self, callback: Signature, member: TaskState) -> None:
        """Fails the callback of a chord of which a member has failed: somebody may wait for it.

        Args:
            callback: the callback; of a Machinery chord its error is the member's.
            member: the first failed member of the group.
        """
        if not is_celerys(callback):
            self.fail_unrunnable(callback, member.error)
            return
        cause = self.meta_of(member.task_uuid, member)["result"]
        exc = ChordError(f"Dependency {member.task_uuid} raised {cause!r}")
        exc.__cause__ = cause
        self.fail_step(callback, exc, errbacks=True)

    def fail_step(self, step: Signature, exc: Any, traceback: Any = None, errbacks: bool = False) -> None:
        """Fails a step of a Celery workflow that will never run, and all that would have followed it.

        Args:
            step: the step.
            exc: the exception.
            traceback: its traceback, as text.
            errbacks: whether the step's own error callbacks are called.
        """
        workflow = self.app.machinery.workflow
        carried = continuation(step)
        if carried is None:
            self.store_result(step.uuid, exc, FAILURE, traceback=traceback)
            self._fail_followers(step, exc, traceback)
            if errbacks:
                workflow.failed(step, canvas.error_text(exc), exc, traceback)
            else:
                workflow.check_chord(step)
            return
        # Celery knows how its own steps fail.
        first, rest = carried
        if errbacks and first.get("subtask_type") != "chain":
            try:
                # It describes the exception that is being handled.
                raise exc
            except type(exc):
                self.chord_error_from_stack(self.app.signature(first), exc)
        else:
            rest = [*rest, *reversed((first.get("kwargs") or {}).get("tasks") or [first])]
        self._fail_chain(rest, exc, traceback)

    def _fail_followers(self, signature: Signature, exc: Any, traceback: Any) -> None:
        """Fails what a Celery chain has after a failed step, as Celery does: somebody may wait for it."""
        for follower in signature.on_success or ():
            if is_celerys(follower):
                self.fail_step(follower, exc, traceback)

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

    # -- what readers see

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        document = self.task_state(task_id)
        if document is None:
            return {"task_id": task_id, "status": PENDING, "result": None}
        return self.meta_of(task_id, document)

    def meta_of(self, task_id: str, document: TaskState) -> dict[str, Any]:
        """A TaskState as Celery's readers see it.

        Raises:
            BackendError: it holds what no worker has written.
        """
        try:
            return self._meta_of(task_id, document)
        except UNREADABLE as exc:
            raise errors.BackendError(f"the state of task {task_id} cannot be read: {exc}") from exc

    def _meta_of(self, task_id: str, document: TaskState) -> dict[str, Any]:
        extra = kombu_json.loads(document.celery) if document.celery else {}
        meta: dict[str, Any] = {
            "task_id": task_id,
            "name": document.task_name or None,
            "status": extra.get("state", document.state or PENDING),
            "result": extra.get("result"),
            "traceback": extra.get("traceback"),
            "children": [result_from_tuple(child, self.app) for child in extra.get("children", ())],
        }
        if document.state == SUCCESS:
            meta["result"] = _as_returned(task_values(document.results))
        elif document.state == FAILURE:
            meta["result"] = self._exception(document, extra)
        elif document.state == RETRY:
            meta["result"] = self.exception_to_python(extra["exception"]) if "exception" in extra else None
        return meta

    def _exception(self, document: TaskState, extra: dict[str, Any]) -> BaseException:
        described = extra.get("exception")
        if described:
            exception = self.exception_to_python(described)
            if isinstance(exception, BaseException):
                return exception
        return errors.TaskError(document.error)

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Any = None,
    ) -> dict[str, Any]:
        self._ensure_not_eager()
        if timeout is None:
            self.check_waitable(task_id)
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_PAUSE
        while True:
            meta: dict[str, Any] = self.get_task_meta(task_id)
            if meta["status"] in celery_states.READY_STATES:
                return meta
            if on_interval:
                on_interval()
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise CeleryTimeoutError("The operation timed out.")
            time.sleep(min(pause, left, interval or pause))
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def get_many(
        self,
        task_ids: Any,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = celery_states.READY_STATES,
    ) -> Any:
        """Yields ``(task_id, meta)`` as tasks end; one round trip looks at all that are left."""
        waiting = dict.fromkeys(task_ids)
        if timeout is None and waiting:
            self.check_waitable(next(iter(waiting)))
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_PAUSE
        while waiting:
            ready = []
            asked = list(waiting)
            for task_id, document in zip(asked, self.task_states(asked), strict=True):
                if document is not None and document.state in (SUCCESS, FAILURE):
                    ready.append(self.meta_of(task_id, document))
            for meta in ready:
                del waiting[meta["task_id"]]
                if on_message is not None:
                    on_message(meta)
                yield meta["task_id"], meta
            if not waiting:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise CeleryTimeoutError(f"Operation timed out ({timeout})")
            if on_interval:
                on_interval()
            pause = FIRST_PAUSE if ready else min(pause * 1.5, LONGEST_PAUSE)
            time.sleep(pause)

    def _forget(self, task_id: str) -> None:
        self.purge(task_id)

    # -- chords

    @property
    def watch_interval(self) -> float:
        """Seconds between two looks at a chord whose callback has not been sent; 0 for never."""
        return float(self.app.conf.get("machinery_chord_watch_interval", WATCH_INTERVAL))

    #: What a store's client raises while its server cannot be reached.
    connection_errors: tuple[type[BaseException], ...] = ()

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Writes the group of a Celery chord; each member will carry the body as its ChordCallback."""
        self.ensure_chords_allowed()
        header = self.app.GroupResult(*header_result_args)
        members = _leaves(header)
        nested = any(isinstance(one, GroupResult) for one in header.results)
        body.options[MEMBERS] = [header.id, len(members), nested]
        self._save_group(header.id, header)
        # A worker that ends the first member looks at all of them.
        self.put_pending([Signature(uuid=uuid) for uuid in members])
        maker = self.app.machinery.border.maker(body.options.get("root_id") or header.id)
        self.watch_chord(header.id, maker.body(body))

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """A member of a Celery chord has ended that was not sent as a Signature: a step that will never run."""
        chord = request.chord
        if MEMBERS in (chord.get("options") or {}):
            uuid, count, _ = chord["options"][MEMBERS]
            body = self.app.machinery.border.maker(request.root_id or request.id).body(chord)
            self.app.machinery.workflow.check_group(uuid, count, body)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Makes one more task a member of a group.

        Raises:
            BackendError: the group is not there, or the store cannot do it.
        """
        self.put_pending([Signature(uuid=result.id)])
        self.add_member(chord_id, result.id, kombu_json.dumps(result.as_tuple()))

    # -- groups

    def _save_group(self, group_id: str, result: GroupResult) -> GroupResult:
        meta = GroupMeta(group_uuid=group_id, task_uuids=_leaves(result), created_at=now_text())
        if any(isinstance(child, GroupResult) or child.parent for child in result.results):
            # Machinery's groups are flat and without parents.
            meta.celery = kombu_json.dumps(result.as_tuple())
        self.put_group(meta)
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        meta = self.group_meta(group_id)
        if meta is None:
            return None
        if meta.celery:
            try:
                return {"result": result_from_tuple(kombu_json.loads(meta.celery), self.app)}
            except UNREADABLE as exc:
                raise errors.BackendError(f"the group {group_id} cannot be read: {exc}") from exc
        results = [self.app.AsyncResult(uuid) for uuid in meta.task_uuids or ()]
        return {"result": self.app.GroupResult(group_id, results)}

    def _delete_group(self, group_id: str) -> None:
        self.purge(group_id)


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


def _leaves(group: GroupResult) -> list[str]:
    """The UUIDs of a group's members, those of groups within it in their place."""
    found: list[str] = []
    for child in group.results:
        found.extend(_leaves(child) if isinstance(child, GroupResult) else [child.id])
    return found


def _error_of(described: Any) -> str:
    if isinstance(described, dict):
        return str(described.pop("text", "") or described.get("exc_type", ""))
    return canvas.error_text(described) if isinstance(described, BaseException) else str(described)


def _is_revoked(described: Any) -> bool:
    return isinstance(described, dict) and described.get("exc_type") == "TaskRevokedError"
