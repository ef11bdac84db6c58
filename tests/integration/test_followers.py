"""Callbacks that a Python worker sends never carry to Go what would hurt it."""

from __future__ import annotations

import pytest
from redis import Redis

from machinery_compat import Server, Signature, TaskResult, TaskState, new_signature
from tests.integration.conftest import QUEUE

pytestmark = pytest.mark.redis


@pytest.mark.parametrize(
    ("kind", "raw", "why"),
    [
        ("map[string]interface {}", b'{"a":1}', "map[string]interface {} is not one of supported types"),
        ("[]int64", b'{"a":1}', "a Go worker panics on it"),
        ("int64", b'"x"', "x is not int64"),
    ],
)
def test_a_result_that_no_task_can_take_fails_the_callback(
    server: Server, store: Redis, kind: str, raw: bytes, why: str
) -> None:
    """If a task of Go's returns such a thing, I expect its callback to fail instead of being sent."""
    callback = new_signature("child")
    done = new_signature("parent", on_success=[callback])

    server.app.machinery.workflow.succeeded(done, [TaskResult.from_raw(kind, raw)])

    assert not store.exists(QUEUE)
    state = TaskState.decode(store.get(callback.uuid) or b"")
    assert (state.state, state.task_name) == ("FAILURE", "child")
    assert state.error.startswith("Reflect task args error: argument 0 of child: ")
    assert why in state.error


def test_what_passes_through_keeps_what_its_maker_wrote(server: Server, store: Redis) -> None:
    callback = Signature.decode(b'{"UUID":"task_2","Name":"child","Headers":{"a":[1,{"b":null}],"n":1.50}}')
    done = new_signature("parent", on_success=[callback])

    server.app.machinery.workflow.succeeded(done, [TaskResult("int64", 1)])

    (body,) = store.lrange(QUEUE, 0, -1)
    assert b'"Headers":{"a":[1,{"b":null}],"n":1.50}' in body
    assert b'"Args":[{"Name":"","Type":"int64","Value":1}]' in body


def test_a_retry_keeps_what_its_maker_wrote(server: Server, store: Redis) -> None:
    done = Signature.decode(b'{"UUID":"task_3","Name":"parent","RetryCount":1,"Headers":{"deep":{"n":1e2}}}')
    workflow = server.app.machinery.workflow

    assert workflow.plan_retry(done, ValueError("again")) is not None
    workflow.resend(done.uuid)

    (body,) = store.zrange("delayed_tasks", 0, -1)
    assert b'"Headers":{"deep":{"n":1e2}}' in body
    assert b'"RetryCount":0,"RetryTimeout":1' in body
