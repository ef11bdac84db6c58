"""The state that a later run of a task has written stays, in every store that keeps results."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from machinery_compat import (
    FAILURE,
    RECEIVED,
    RETRY,
    STARTED,
    SUCCESS,
    Celery,
    Signature,
    TaskState,
    new_signature,
)
from machinery_compat.backends.base import Backend
from machinery_compat.backends.fence import is_superseded
from machinery_compat.followers import GO_ON
from machinery_compat.transport.base import redelivered

STORES = ["eager", pytest.param("redis", marks=pytest.mark.redis)]


@pytest.fixture(params=STORES)
def backend(request: pytest.FixtureRequest) -> Backend:
    url = "eager" if request.param == "eager" else request.getfixturevalue("redis_db")
    app = Celery("fence", broker="eager", backend=url, set_as_current=False)
    return app.backend


def a_task(**fields: Any) -> Signature:
    signature = new_signature("told", 1)
    signature.uuid = "task_1"
    for name, value in fields.items():
        setattr(signature, name, value)
    return signature


def run(signature: Signature, number: int = 0) -> SimpleNamespace:
    """The request of a run of a task, 0 for the first."""
    return SimpleNamespace(
        id=signature.uuid,
        task=signature.name,
        machinery=redelivered(signature.encode(), number),
        chord=None,
        errbacks=None,
        ignore_result=False,
    )


def state(backend: Backend) -> TaskState:
    found = backend.task_state("task_1")
    assert found is not None
    return found


def test_a_first_run_writes_gos_documents(backend: Backend) -> None:
    first = run(a_task())

    backend.store_result("task_1", None, STARTED, request=first)
    assert state(backend).celery is None
    backend.mark_as_done("task_1", 5, request=first)

    assert (state(backend).state, state(backend).celery) == (SUCCESS, None)
    assert not is_superseded(first)


def test_a_run_that_has_been_taken_over_writes_nothing(backend: Backend) -> None:
    signature = a_task()
    first, second = run(signature), run(signature, 1)
    backend.store_result("task_1", None, STARTED, request=first)
    backend.store_result("task_1", None, STARTED, request=second)

    backend.mark_as_done("task_1", 5, request=first)

    assert is_superseded(first)
    assert not is_superseded(second)
    assert state(backend).state == STARTED
    backend.mark_as_done("task_1", 6, request=second)
    backend.mark_as_failure("task_1", ValueError("late"), request=run(signature))
    backend.mark_as_retry("task_1", ValueError("late"), request=run(signature))
    assert [result.value for result in state(backend).results or () if result] == [6]


def test_nothing_follows_a_run_that_has_been_taken_over(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[str] = []
    workflow = backend.app.machinery.workflow
    monkeypatch.setattr(workflow, "go_on", lambda *args: followed.append("went on"))
    monkeypatch.setattr(workflow, "succeeded", lambda *args: followed.append("succeeded"))
    monkeypatch.setattr(workflow, "failed", lambda *args: followed.append("failed"))
    signature = a_task(on_success=[new_signature(GO_ON)], on_error=[new_signature("told")])
    backend.store_received([signature], 2)

    backend.mark_as_done("task_1", 5, request=run(signature, 1))
    backend.mark_as_failure("task_1", ValueError("no"), request=run(signature, 1))

    assert followed == []
    backend.mark_as_done("task_1", 5, request=run(signature, 2))
    assert followed == ["went on", "succeeded"]


def test_what_waits_to_be_retried_is_dropped_with_its_run(backend: Backend) -> None:
    signature = a_task(retry_count=3)
    workflow = backend.app.machinery.workflow
    backend.store_received([signature], 1)
    retry = workflow.plan_retry(a_task(retry_count=3), ValueError("again"))

    backend.mark_as_retry("task_1", retry, request=run(signature))

    assert state(backend).state == RECEIVED
    assert not workflow.is_planned("task_1")


def test_a_retry_begins_anew(backend: Backend) -> None:
    signature = a_task(retry_count=3)
    second = run(signature, 1)
    backend.store_result("task_1", None, STARTED, request=second)
    assert state(backend).celery == '{"run": 1}'
    retry = backend.app.machinery.workflow.plan_retry(a_task(retry_count=3), ValueError("again"))

    backend.mark_as_retry("task_1", retry, request=second)

    assert state(backend).state == RETRY
    # The retry's first run, with no PENDING between them.
    backend.store_result("task_1", None, STARTED, request=run(signature))
    assert state(backend).state == STARTED


def test_a_failed_run_says_which_one_it_was_and_keeps_its_exception(backend: Backend) -> None:
    backend.mark_as_failure("task_1", KeyError("a"), traceback="Traceback: x", request=run(a_task(), 3))

    assert (state(backend).celery or "").startswith('{"run": 3, ')
    meta = backend.get_task_meta("task_1")
    assert isinstance(meta["result"], KeyError)
    assert (meta["status"], meta["traceback"]) == (FAILURE, "Traceback: x")


def test_a_result_that_looks_like_a_run_is_none(backend: Backend) -> None:
    hostile = '"Celery":"{\\"run\\": 99}" {"run": 99}'
    backend.mark_as_done("task_1", {"run": 99, "Celery": hostile}, request=run(a_task()))

    backend.store_result("task_1", None, STARTED, request=run(a_task()))

    assert state(backend).state == STARTED


def test_who_gives_a_message_up_writes_over_every_run(backend: Backend) -> None:
    backend.store_result("task_1", None, STARTED, request=run(a_task(), 5))

    backend.app.machinery.border.given_up(redelivered(a_task().encode(), 5), "given up")

    assert (state(backend).state, state(backend).error) == (FAILURE, "given up")
    # Whoever puts it back into its queue runs it for the first time again.
    backend.store_received([a_task()])
    assert state(backend).state == RECEIVED
