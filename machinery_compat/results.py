"""Machinery's results of tasks that were sent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from machinery_compat import errors
from machinery_compat.backends.base import Backend
from machinery_compat.backends.outage import Patience
from machinery_compat.backends.reading import not_ended, task_values
from machinery_compat.wire import FAILURE, SUCCESS, Signature, TaskState

__all__ = ["AsyncResult", "ChainAsyncResult", "ChordAsyncResult"]


class AsyncResult:
    """The result of a task that was sent; mirrors Go's ``result.AsyncResult``.

    Args:
        signature: the task.
        backend: where its state is kept.
    """

    def __init__(self, signature: Signature, backend: Backend) -> None:
        self.signature = signature
        self.backend = backend
        self._state = TaskState()

    def __repr__(self) -> str:
        return f"<AsyncResult: {self.signature.name}[{self.signature.uuid}]>"

    def get_state(self) -> TaskState:
        """The task's latest state, the zero state while there is none; mirrors Go's GetState."""
        if self._state.state not in (SUCCESS, FAILURE):
            self._state = self.backend.task_state(self.signature.uuid) or self._state
        return self._state

    def touch(self) -> list[Any] | None:
        """The values of a finished task, None while it is not finished; mirrors Go's Touch.

        Raises:
            TaskError: the task failed; the text is the one its worker stored.
            ArgumentError: a result cannot be read back; the text is Go's.
        """
        state = self.get_state()
        if state.state == FAILURE:
            raise errors.TaskError(state.error)
        return task_values(state.results) if state.state == SUCCESS else None

    def get(self, sleep: float | timedelta = 0.1) -> list[Any]:
        """Waits for the task; mirrors Go's Get.

        Args:
            sleep: the pause between two looks, in seconds.

        Raises:
            TaskError: the task failed.
            BackendError: the result backend keeps no results (null).
        """
        return self.wait_until(None, sleep)

    def get_with_timeout(self, timeout: float | timedelta, sleep: float | timedelta = 0.1) -> list[Any]:
        """Waits for the task for a time; mirrors Go's GetWithTimeout.

        Args:
            timeout: how long to wait, in seconds.
            sleep: the pause between two looks, in seconds.

        Raises:
            ResultTimeout: it did not end in that time.
            TaskError: the task failed.
        """
        return self.wait_until(time.monotonic() + _seconds(timeout), sleep)

    def wait_until(self, deadline: float | None, sleep: float | timedelta) -> list[Any]:
        """As :meth:`get_with_timeout`, with the end of the wait in ``time.monotonic`` seconds."""
        if deadline is None:
            self.backend.check_waitable(self.signature.uuid)
        patience = Patience(self.backend.exception_safe_to_retry, deadline)
        while True:
            if deadline is not None and time.monotonic() >= deadline:
                task = f"{self.signature.name}[{self.signature.uuid}]"
                raise errors.ResultTimeout(f"Timeout reached: {not_ended(task, self._state.state)}")
            values = patience.look(self.touch)
            if values is not None:
                return values
            time.sleep(_seconds(sleep))


class ChainAsyncResult:
    """The result of a chain: that of its last task; mirrors Go's ``result.ChainAsyncResult``.

    Args:
        signatures: the chain's tasks in order.
        backend: where their states are kept.
    """

    def __init__(self, signatures: Sequence[Signature], backend: Backend) -> None:
        self.results = [AsyncResult(signature, backend) for signature in signatures]

    def get(self, sleep: float | timedelta = 0.1) -> list[Any]:
        """Waits for each task in turn; mirrors Go's Get.

        Raises:
            TaskError: a task failed; the first that did.
        """
        return [result.get(sleep) for result in self.results][-1]

    def get_with_timeout(self, timeout: float | timedelta, sleep: float | timedelta = 0.1) -> list[Any]:
        """As :meth:`get` for a time, in seconds; mirrors Go's GetWithTimeout.

        Raises:
            ResultTimeout: the chain did not end in that time.
        """
        return _last_until(self.results, timeout, sleep)


class ChordAsyncResult:
    """The result of a chord: that of its callback; mirrors Go's ``result.ChordAsyncResult``.

    A failure is raised, also in :meth:`get_with_timeout`, where Go hides it.

    Args:
        signatures: the group's tasks in order.
        callback: the callback.
        backend: where their states are kept.
    """

    def __init__(self, signatures: Sequence[Signature], callback: Signature, backend: Backend) -> None:
        self.group_results = [AsyncResult(signature, backend) for signature in signatures]
        self.result = AsyncResult(callback, backend)

    def get(self, sleep: float | timedelta = 0.1) -> list[Any]:
        """Waits for the members and then for the callback; mirrors Go's Get.

        Raises:
            TaskError: a member or the callback failed.
        """
        return [result.get(sleep) for result in (*self.group_results, self.result)][-1]

    def get_with_timeout(self, timeout: float | timedelta, sleep: float | timedelta = 0.1) -> list[Any]:
        """As :meth:`get` for a time, in seconds; mirrors Go's GetWithTimeout.

        Raises:
            ResultTimeout: the chord did not end in that time.
        """
        return _last_until([*self.group_results, self.result], timeout, sleep)


def _last_until(results: Sequence[AsyncResult], timeout: float | timedelta, sleep: float | timedelta) -> list[Any]:
    deadline = time.monotonic() + _seconds(timeout)
    return [result.wait_until(deadline, sleep) for result in results][-1]


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value
