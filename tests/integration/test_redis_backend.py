"""Celery's view of the results that lie in Redis, in full; the documents stand in test_redis_documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import group, states
from celery.exceptions import TaskRevokedError, TimeoutError
from celery.result import AsyncResult, GroupResult, ResultSet
from kombu.exceptions import OperationalError
from redis import Redis

from machinery_compat import AsyncResult as MachineryResult
from machinery_compat import Celery, Config, Group, Server, TaskError, TaskState, new_signature
from machinery_compat.errors import BackendError, MachineryError, ResultTimeout
from tests.integration.conftest import TASKS
from tests.integration.tasks import Refused
from tests.support.python_worker import PythonWorker
from tests.support.services import RedisServer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.redis

QUEUE = "results"


@pytest.fixture(scope="module")
def store(redis_server: RedisServer) -> Iterator[RedisServer]:
    """A Redis that no other module empties."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def worker(store: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PythonWorker]:
    """One worker for all of these tests."""
    directory = tmp_path_factory.mktemp("worker")
    with PythonWorker(
        directory,
        broker=store.url(),
        backend=store.url(),
        queue=QUEUE,
        pool="threads",
        concurrency=4,
        tasks=TASKS,
        arguments=("-E",),
    ) as worker:
        yield worker


@pytest.fixture
def server(store: RedisServer) -> Iterator[Server]:
    server = Server(Config(broker=store.url(), result_backend=store.url(), default_queue=QUEUE))
    yield server
    server.app.close()


@pytest.fixture
def app(server: Server) -> Celery:
    return server.app


@pytest.fixture
def client(store: RedisServer) -> Iterator[Redis]:
    client = store.client()
    yield client
    client.close()


# -- one result


@pytest.mark.usefixtures("worker")
def test_the_value_of_a_task(app: Celery) -> None:
    result = app.send_task("py_add", [20, 22])

    assert result.get(timeout=10) == 42
    assert (result.state, result.ready(), result.successful(), result.failed()) == (states.SUCCESS, True, True, False)
    assert result.name == "py_add"
    assert app.AsyncResult(result.id).result == 42


@pytest.mark.usefixtures("worker")
def test_no_result_is_none_and_several_are_a_tuple(app: Celery) -> None:
    assert app.send_task("py_nothing").get(timeout=10) is None
    assert app.send_task("py_swap", ["a", 1]).get(timeout=10) == (1, "a")
    assert app.send_task("py_echo", [{"a": [1, None]}]).get(timeout=10) == {"a": [1, None]}


def test_an_unknown_task_is_pending_and_its_get_ends_with_the_timeout(app: Celery) -> None:
    result = app.AsyncResult("task_nobody_sent")

    assert (result.state, result.result, result.ready()) == (states.PENDING, None, False)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05)


@pytest.mark.usefixtures("worker")
def test_states_as_a_task_goes_on(app: Celery, tmp_path: Path) -> None:
    path = tmp_path / "go-on"
    result = app.send_task("until", [str(path)])

    wait_for(lambda: result.state == states.STARTED)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05)
    path.touch()
    assert result.get(timeout=10) == str(path)


@pytest.mark.usefixtures("worker")
def test_forget_deletes_the_document(app: Celery, client: Redis) -> None:
    result = app.send_task("py_add", [1, 1])
    result.get(timeout=10)

    result.forget()

    assert not client.exists(result.id)
    assert app.AsyncResult(result.id).state == states.PENDING


@pytest.mark.usefixtures("worker")
def test_a_state_of_the_users_own(app: Celery, server: Server, client: Redis, tmp_path: Path) -> None:
    path = tmp_path / "go-on"
    result = app.send_task("progress", [str(path)])

    wait_for(lambda: result.state == "PROGRESS")
    assert result.info == {"done": 3, "of": 7}
    # For Go, which knows six states, the task is running.
    assert json.loads(client.get(result.id))["State"] == states.STARTED
    path.touch()
    assert result.get(timeout=10) == "done"
    assert result.state == states.SUCCESS


@pytest.mark.usefixtures("worker")
def test_ignore_keeps_the_state_that_the_task_has_set(app: Celery) -> None:
    result = app.send_task("ignored")

    wait_for(lambda: result.state == "ELSEWHERE")
    assert result.info == {"by": "hand"}


@pytest.mark.usefixtures("worker")
def test_children(app: Celery) -> None:
    result = app.send_task("parent")

    assert result.get(timeout=10) == 0
    assert sorted(child.get(timeout=10) for child in result.children) == [2, 4]
    assert sorted(value for _, value in result.collect(timeout=10)) == [0, 2, 4]


@pytest.mark.usefixtures("worker")
def test_a_task_whose_result_is_ignored_leaves_nothing(app: Celery, client: Redis, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    result = app.send_task("touch", [str(path)], ignore_result=True)
    follower = app.send_task("py_add", [1, 1])

    wait_for(path.exists)
    follower.get(timeout=10)
    assert not client.exists(result.id)


@pytest.mark.usefixtures("worker")
def test_a_task_that_ignores_its_result(app: Celery, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    result = app.send_task("quiet", [str(path)])

    wait_for(path.exists)
    app.send_task("py_add", [1, 1]).get(timeout=10)
    assert (result.state, result.result) == (states.PENDING, None)


# -- failures


@pytest.mark.usefixtures("worker")
def test_exceptions_keep_their_types_between_python_ends(app: Celery) -> None:
    with pytest.raises(Refused) as caught:
        app.send_task("refuse", ["too late", 7]).get(timeout=10)
    assert (caught.value.reason, caught.value.code) == ("too late", 7)
    with pytest.raises(KeyError) as missing:
        app.send_task("missing_key").get(timeout=10)
    assert missing.value.args == ("a", 1)


@pytest.mark.usefixtures("worker")
def test_a_failure_has_a_traceback_and_a_text_for_go(app: Celery, client: Redis) -> None:
    result = app.send_task("refuse", ["too late", 7])

    assert result.get(timeout=10, propagate=False).code == 7
    assert "Refused" in result.traceback
    assert json.loads(client.get(result.id))["Error"] == "too late (7)"


@pytest.mark.usefixtures("worker")
def test_celerys_own_retry(app: Celery) -> None:
    assert app.send_task("again", [2]).get(timeout=10) == 2
    with pytest.raises(ValueError, match="attempt 2"):
        app.send_task("again", [9]).get(timeout=10)


def test_a_failure_of_go_is_a_task_error(app: Celery, client: Redis) -> None:
    client.set("task_go", TaskState(task_uuid="task_go", task_name="go", state="FAILURE", error="no <luck>").encode())

    with pytest.raises(TaskError, match=r"^no <luck>$"):
        app.AsyncResult("task_go").get(timeout=1)


@pytest.mark.usefixtures("worker")
def test_a_revoked_task(app: Celery, client: Redis) -> None:
    result = app.send_task("py_add", [1, 1], queue="nobody")

    app.control.revoke(result.id, reply=True, timeout=5, limit=1)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
    assert result.state == states.REVOKED
    # Go has no such state: for it the task failed.
    document = json.loads(client.get(result.id))
    assert (document["State"], document["Error"]) == (states.FAILURE, "revoked")


# -- groups


@pytest.mark.usefixtures("worker")
def test_a_group_result_is_saved_restored_and_deleted(app: Celery, client: Redis) -> None:
    result = GroupResult("group_1", [app.send_task("py_add", [n, n]) for n in range(3)], app=app)

    result.save()

    document = json.loads(client.get("group_1"))
    assert document.pop("CreatedAt") > "2020"
    assert list(document.items()) == [
        ("GroupUUID", "group_1"),
        ("TaskUUIDs", [one.id for one in result.results]),
        ("ChordTriggered", False),
        ("Lock", False),
        ("TTL", 0),
    ]
    assert 0 < client.ttl("group_1") <= 3600
    restored = GroupResult.restore("group_1", app=app)
    assert restored == result
    assert restored.get(timeout=10) == [0, 2, 4]
    result.delete()
    assert not client.exists("group_1")
    assert GroupResult.restore("group_1", app=app) is None


@pytest.mark.usefixtures("worker")
def test_a_group_is_joined_in_few_round_trips(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    add = app.signature("py_add")
    result = group(add.clone((n, n)) for n in range(50)).apply_async()
    looks: list[int] = []
    look = app.backend.task_states
    monkeypatch.setattr(app.backend, "task_states", lambda uuids: looks.append(len(uuids)) or look(uuids))

    wait_for(result.ready)
    looks.clear()

    assert result.get(timeout=10) == [2 * n for n in range(50)]
    assert looks in ([], [50])


@pytest.mark.usefixtures("worker")
def test_a_result_set_is_joined(app: Celery) -> None:
    results = ResultSet([app.send_task("py_add", [n, 1]) for n in range(5)], app=app)

    assert results.join(timeout=10) == [1, 2, 3, 4, 5]
    assert results.join_native(timeout=10) == [1, 2, 3, 4, 5]
    assert {uuid for uuid, _ in results.iter_native(timeout=10)} == {one.id for one in results.results}
    assert results.completed_count() == 5


@pytest.mark.usefixtures("worker")
def test_a_failure_or_a_timeout_ends_a_join(app: Celery) -> None:
    failing = ResultSet([app.send_task("py_add", [1, 1]), app.send_task("py_fail", ["boom"])], app=app)
    waiting = ResultSet([app.send_task("py_add", [1, 1]), app.AsyncResult("task_nobody_sent")], app=app)

    with pytest.raises(ValueError, match="boom"):
        failing.get(timeout=10)
    assert [type(one) for one in failing.get(timeout=10, propagate=False)] == [int, ValueError]
    with pytest.raises(TimeoutError):
        waiting.get(timeout=0.1)


# -- what does not belong into the store


def document(**fields: Any) -> bytes:
    """A state document, with the extra member of Python as JSON text."""
    if not isinstance(fields.get("Celery", ""), str):
        fields["Celery"] = json.dumps(fields["Celery"])
    return json.dumps({"TaskUUID": "t", "TaskName": "", "State": "FAILURE", "Error": "e", **fields}).encode()


def success(*results: Any, **fields: Any) -> bytes:
    return document(State="SUCCESS", Results=results, Error="", **fields)


MALFORMED = {
    "no JSON": b"{",
    "another shape": b"[1]",
    "null": b"null",
    "no document": b"{}",
    "a group": b'{"GroupUUID":"g","TaskUUIDs":[],"ChordTriggered":false,"Lock":false,"TTL":0}',
    "a state nobody knows": document(State="DONE"),
    "a type nobody knows": success({"Type": "complex", "Value": 1}),
    "a value of another type": success({"Type": "int64", "Value": "x"}),
    "a null as a result": success(None),
    "a mark that is not kept": success({"Type": "string", "Value": "{", "Celery": "celery:json"}),
    "an extra that is no JSON": document(Celery="{"),
    "an extra of another shape": document(Celery=[1]),
    "an exception of another shape": document(Celery={"exception": {"exc_type": 1}}),
    "an exception that is none": document(
        Celery={"exception": {"exc_type": "system", "exc_module": "os", "exc_message": ["true"]}}
    ),
    "children of another shape": success(Celery={"children": [7]}),
}
READERS: dict[str, Callable[[AsyncResult], Any]] = {
    "get": lambda result: result.get(timeout=5),
    "state": lambda result: result.state,
    "join": lambda result: ResultSet([result], app=result.app).join_native(timeout=5),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("stored", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_document_is_one_clear_error(
    app: Celery, client: Redis, stored: bytes, reader: Callable[[AsyncResult], Any]
) -> None:
    client.set("task_bad", stored)

    with pytest.raises(BackendError, match="task_bad"):
        reader(app.AsyncResult("task_bad"))


def test_a_malformed_group_is_one_clear_error(app: Celery, client: Redis) -> None:
    for document in (b"{", b"[1]", b'{"GroupUUID":"g","TaskUUIDs":7}', b'{"GroupUUID":"g","Celery":"{"}'):
        client.set("group_bad", document)
        with pytest.raises(BackendError, match="group_bad"):
            GroupResult.restore("group_bad", app=app)


# -- Machinery's own results


@pytest.mark.usefixtures("worker")
def test_machinerys_result_while_a_task_goes_on(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "go-on"
    result = server.send_task(new_signature("until", str(path)))

    assert result.touch() is None
    wait_for(lambda: result.get_state().state == "STARTED")
    with pytest.raises(ResultTimeout, match=rf"^Timeout reached: task until\[{result.signature.uuid}\] is STARTED$"):
        result.get_with_timeout(0.05, 0.01)
    path.touch()
    assert result.get(0.01) == [str(path)]
    assert result.touch() == [str(path)]
    assert (result.get_state().state, result.get_state().task_name) == ("SUCCESS", "until")


@pytest.mark.usefixtures("worker")
def test_a_timeout_says_that_nobody_has_taken_the_task(server: Server) -> None:
    result = server.send_task(new_signature("misspelt", routing_key="read_by_nobody"))

    with pytest.raises(ResultTimeout, match=r" is PENDING; no worker that knows it .* has taken it yet$"):
        result.get_with_timeout(0.01, 0.01)
    with pytest.raises(TimeoutError, match=r" is PENDING; no worker that knows it .* has taken it yet$"):
        server.app.AsyncResult(result.signature.uuid).get(timeout=0.01)


@pytest.mark.parametrize(
    "url",
    ["redis://:secret@127.0.0.1:1", "memcache://127.0.0.1:1", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100"],
)
def test_a_sender_learns_that_it_is_the_result_backend_that_is_away(store: RedisServer, url: str) -> None:
    sender = Server(Config(broker=store.url(), result_backend=url, default_queue="away"))
    sender.app.conf.task_publish_retry_policy = {"max_retries": 1}
    named = r"^the result backend \w+://127.0.0.1:1 \(result_backend, RESULT_BACKEND\) cannot be reached: "

    with pytest.raises(BackendError, match=named) as of_a_task:
        sender.send_task(new_signature("misspelt"))
    with pytest.raises(BackendError, match=named):
        sender.send_group(Group(new_signature("misspelt")))

    assert isinstance(of_a_task.value, OperationalError)
    assert sender.broker.get_pending_tasks("away") == []
    sender.app.close()


def test_machinerys_result_of_a_failure(server: Server, client: Redis) -> None:
    result = server.send_task(new_signature("py_fail", "boom"))

    with pytest.raises(TaskError, match=r"^boom$"):
        result.get(0.01)
    with pytest.raises(TaskError, match=r"^boom$"):
        result.touch()
    # As in Go, a final state is not asked for again.
    client.delete(result.signature.uuid)
    assert result.get_state().error == "boom"


@pytest.mark.usefixtures("worker")
def test_machinerys_result_of_nothing(server: Server) -> None:
    assert server.send_task(new_signature("py_nothing")).get_with_timeout(10) == []


# Machinery's results have no children.
@pytest.mark.parametrize("stored", list(MALFORMED.values())[:-1], ids=list(MALFORMED)[:-1])
def test_machinerys_result_of_a_malformed_document_never_hangs(server: Server, client: Redis, stored: bytes) -> None:
    client.set("task_bad", stored)
    result = MachineryResult(new_signature("py_nothing", uuid="task_bad"), server.backend)

    with pytest.raises(MachineryError):
        result.get_with_timeout(5)


def test_states_are_written_together_by_a_server_that_has_forgotten_its_scripts(server: Server, client: Redis) -> None:
    tasks = [new_signature("number", n) for n in range(3)]
    client.script_flush()

    server.backend.store_received(tasks)

    assert [state.state for state in server.backend.task_states([one.uuid for one in tasks])] == ["RECEIVED"] * 3
