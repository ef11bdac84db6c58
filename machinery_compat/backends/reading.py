"""What Celery's readers see of the documents in a store, and how they wait for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from celery import states as celery_states
from celery.backends.base import Backend as CeleryBackend
from celery.backends.base import SyncBackendMixin
from celery.exceptions import SecurityError, TaskPredicate
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import result_from_tuple
from kombu.utils import json as kombu_json

from machinery_compat import arguments, celery_header, errors
from machinery_compat.backends.outage import Patience
from machinery_compat.backends.store import Store
from machinery_compat.wire import FAILURE, PENDING, RETRY, SUCCESS, TaskResult, TaskState

__all__ = ["UNREADABLE", "ReadingBackend", "task_values"]

#: What reading a document that no worker has written may raise.
UNREADABLE = (errors.MachineryError, SecurityError, *celery_header.BAD_JSON)
#: First and longest pause between two looks at a state that is waited for, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.1


def task_values(results: Sequence[TaskResult | None] | None) -> list[Any]:
    """The Python values of a task's results.

    Raises:
        ArgumentError: a Value does not fit its Type; the text is Go's.
    """
    return [_value(result) for result in results or ()]


def _value(result: TaskResult | None) -> Any:
    if result is None:
        raise errors.ArgumentError("a result is null")
    if result.celery != arguments.JSON_MARK:
        return result.value
    try:
        return kombu_json.loads(result.value)
    except celery_header.BAD_JSON as exc:
        raise errors.ArgumentError(f"a result is marked as JSON and is none: {exc}") from exc


def _as_returned(values: list[Any]) -> Any:
    """None for no result, the value for one, a tuple for several."""
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


def not_ended(task: str, state: str) -> str:
    """Why whoever waited for a task has waited in vain."""
    untouched = state in ("", PENDING)
    hint = "; no worker that knows it and has the same result backend has taken it yet" if untouched else ""
    return f"task {task} is {state or PENDING}{hint}"


class ReadingBackend(Store, SyncBackendMixin, CeleryBackend):  # type: ignore[misc]
    """The half of a Celery result backend that reads."""

    #: What a store's client raises while its server cannot be reached.
    connection_errors: tuple[type[BaseException], ...] = ()

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """Celery's, without its retries: they are for a worker's results, and a reader can ask again."""
        self._ensure_not_eager()
        if cache and task_id in self._cache:
            known: dict[str, Any] = self._cache[task_id]
            return known
        meta = self._get_task_meta_for(task_id)
        if cache and meta["status"] == SUCCESS:
            self._cache[task_id] = meta
        return meta

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
            # Anything else would not fail the reader but end its process (SystemExit) or settle its
            # own task (Celery's Reject, Ignore and Retry).
            if isinstance(exception, Exception) and not isinstance(exception, TaskPredicate):
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
        patience = Patience(self.exception_safe_to_retry, deadline)
        pause = FIRST_PAUSE
        while True:
            meta = patience.look(lambda: self.get_task_meta(task_id))
            status = meta["status"] if meta is not None else ""
            # Of a step that has failed because one before it has, Celery's results tell of that one.
            if on_interval and status != SUCCESS:
                on_interval()
            if meta is not None and status in celery_states.READY_STATES:
                return meta
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise CeleryTimeoutError(f"The operation timed out: {not_ended(task_id, status)}")
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
        patience = Patience(self.exception_safe_to_retry, deadline)
        pause = FIRST_PAUSE
        while waiting:
            ready = []
            asked = list(waiting)
            seen = patience.look(lambda: self.task_states(asked)) or [None] * len(asked)  # noqa: B023
            for task_id, document in zip(asked, seen, strict=True):
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
