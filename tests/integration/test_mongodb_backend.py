"""What only MongoDB has: Go's documents and its readings of them, indexes, a client of the application's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from bson import Binary, Int64
from bson.datetime_ms import DatetimeMS
from pymongo.errors import ServerSelectionTimeoutError

from machinery_compat import (
    Celery,
    Config,
    GroupMeta,
    Server,
    TaskError,
    TaskState,
    errors,
    new_signature,
)
from machinery_compat.backends.base import Backend
from machinery_compat.backends.limits import TooLarge
from machinery_compat.config import MongoDBConfig
from machinery_compat.wire import TaskResult, now_text
from tests.conftest import Names
from tests.support.processes import free_port
from tests.support.services import MongoServer

pytestmark = pytest.mark.mongodb


@pytest.fixture
def client(mongo_server: MongoServer) -> Iterator[Any]:
    client = mongo_server.client()
    yield client
    client.close()


@pytest.fixture
def tasks(client: Any) -> Any:
    return client["machinery"]["tasks"]


@pytest.fixture
def server(mongo_server: MongoServer) -> Iterator[Server]:
    server = Server(Config(broker="eager", result_backend=mongo_server.url()))
    yield server
    server.app.close()


@pytest.fixture
def backend(server: Server) -> Backend:
    found: Backend = server.backend
    return found


def backend_of(url: str, **fields: Any) -> Backend:
    backend: Backend = Celery(config=Config(broker="eager", result_backend=url, **fields), set_as_current=False).backend
    return backend


def ended(uuid: str, kind: str, raw: bytes) -> TaskState:
    return TaskState(task_uuid=uuid, state="SUCCESS", results=[TaskResult.from_raw(kind, raw)])


# -- documents


def test_the_documents_are_gos(backend: Backend, tasks: Any, names: Names) -> None:
    uuid = names.queue
    backend.put_state(TaskState(task_uuid=uuid, task_name="add", state="PENDING", created_at=now_text()))
    document = tasks.find_one({"_id": uuid})
    assert abs((datetime.now(timezone.utc) - document.pop("created_at")).total_seconds()) < 60
    assert document == {"_id": uuid, "state": "PENDING", "task_name": "add"}

    backend.update_states([ended(uuid, "int8", b"7")])
    document = tasks.find_one({"_id": uuid})
    assert sorted(document) == ["_id", "created_at", "delete_at", "results", "state", "task_name"]
    # With 32 bits, as Go writes it, Go could not read it.
    assert document["results"] == [{"type": "int8", "value": Int64(7)}]
    assert type(document["results"][0]["value"]) is Int64
    assert 3000 < (document["delete_at"] - datetime.now(timezone.utc)).total_seconds() <= 3600

    backend.update_states([TaskState(task_uuid=uuid, state="FAILURE", error="e")])
    document = tasks.find_one({"_id": uuid})
    assert (document["state"], document["error"], "results" in document) == ("FAILURE", "e", False)


def test_a_group_is_gos(backend: Backend, client: Any, names: Names) -> None:
    uuid = names.queue
    backend.put_group(GroupMeta(group_uuid=uuid, task_uuids=["a", "b"], created_at=now_text()))
    document = client["machinery"]["group_metas"].find_one({"_id": uuid})
    del document["created_at"]
    assert document == {"_id": uuid, "task_uuids": ["a", "b"], "chord_triggered": False, "lock": False}
    assert backend.trigger_chord(uuid)
    document = client["machinery"]["group_metas"].find_one({"_id": uuid})
    # Go's stay for ever.
    assert (document["chord_triggered"], "delete_at" in document) == (True, True)


@pytest.mark.parametrize(
    ("kind", "stored", "value"),
    [
        ("int8", 5, 5),
        ("int", -7, -7),
        ("uint32", Int64(2**32 - 1), 2**32 - 1),
        ("float32", 0.10000000149011612, 0.1),
        ("float64", 100.0, 100.0),
        ("[]byte", Binary(b"\x00\xff", 0), b"\x00\xff"),
        ("[]int32", [1, 2], [1, 2]),
        ("[]int64", None, []),
        ("json", {"b": [1.0, "<x>"], "a": None}, '{"a":null,"b":[1,"\\u003cx\\u003e"]}'),
        ("json", None, "null"),
    ],
)
def test_what_go_has_written_is_read(
    server: Server, tasks: Any, names: Names, kind: str, stored: Any, value: Any
) -> None:
    tasks.insert_one({"_id": names.queue, "state": "SUCCESS", "results": [{"type": kind, "value": stored}]})

    got = server.app.AsyncResult(names.queue).get(timeout=5)

    assert (got, type(got)) == (value if kind != "float32" else pytest.approx(value), type(value))


def test_what_go_leaves_behind_is_not_read(backend: Backend, tasks: Any, names: Names) -> None:
    uuid = names.queue
    failed = TaskState(task_uuid=uuid, state="FAILURE", error="e", celery='{"traceback": "t"}')
    backend.put_state(failed)
    # As Go sends the task again and runs it.
    for change in ({"state": "PENDING", "task_name": "n"}, {"state": "STARTED"}, {"state": "SUCCESS", "results": []}):
        tasks.update_one({"_id": uuid}, {"$set": change})
        found = backend.task_state(uuid)
        assert (found.state, found.error, found.celery) == (change["state"], "", None)
    tasks.update_one({"_id": uuid}, {"$set": {"state": "FAILURE", "error": "Go's"}})
    assert (backend.task_state(uuid).error, backend.task_state(uuid).celery) == ("Go's", None)


def test_times_beyond_pythons_years(backend: Backend, client: Any, names: Names) -> None:
    client["machinery"].command(
        "insert", "tasks", documents=[{"_id": names.queue, "state": "STARTED", "created_at": DatetimeMS(2**60)}]
    )
    with pytest.raises(errors.BackendError, match=names.queue):
        backend.task_state(names.queue)


def test_a_state_of_a_later_run_stays(backend: Backend, names: Names) -> None:
    uuid = names.queue
    second = TaskState(task_uuid=uuid, state="STARTED", celery='{"run": 1}')
    assert backend.update_states([second], run=1) == [True]
    late = TaskState(task_uuid=uuid, state="SUCCESS", results=[])
    other = TaskState(task_uuid=f"{uuid}-2", state="SUCCESS", results=[])

    assert backend.update_states([late, other], run=0) == [False, True]

    assert backend.task_state(uuid).state == "STARTED"
    assert backend.update_states([late], run=1) == [True]
    backend.put_state(TaskState(task_uuid=uuid, state="PENDING"))
    assert backend.update_states([late], run=0) == [True]


# -- the server


def test_expired_documents_have_gos_index(backend: Backend, client: Any) -> None:
    backend.task_state("t")
    for collection in ("tasks", "group_metas"):
        index = client["machinery"][collection].index_information()["delete_at_1"]
        assert (index["key"], index["expireAfterSeconds"]) == ([("delete_at", 1)], 0)


def test_an_index_that_is_refused_is_a_warning(
    client: Any, mongo_server: MongoServer, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    client[names.queue]["tasks"].create_index("delete_at", name="mine")
    backend = backend_of(mongo_server.url(), mongodb=MongoDBConfig(database=names.queue))

    assert backend.task_state("t") is None
    assert "results in MongoDB will not expire" in caplog.text
    client.drop_database(names.queue)


def test_a_client_and_a_database_of_the_applications_own(client: Any, mongo_server: MongoServer, names: Names) -> None:
    backend = backend_of("mongodb://nowhere", mongodb=MongoDBConfig(client=client, database=names.queue))
    backend.put_state(TaskState(task_uuid="t", state="STARTED"))

    assert backend.client is client
    assert client[names.queue]["tasks"].find_one({"_id": "t"})["state"] == "STARTED"
    client.drop_database(names.queue)


def test_the_database_in_the_url_is_ignored_as_in_go(mongo_server: MongoServer, tasks: Any, names: Names) -> None:
    backend_of(f"{mongo_server.url()}/other").put_state(TaskState(task_uuid=names.queue, state="STARTED"))
    assert tasks.find_one({"_id": names.queue}) is not None


def test_a_server_that_was_restarted_is_found_again() -> None:
    with MongoServer() as server:
        backend = backend_of(server.url())
        backend.put_state(TaskState(task_uuid="t", state="STARTED"))
        server.restart()
        assert backend.task_state("t").state == "STARTED"


def test_a_server_that_is_not_there_is_an_error_that_celery_may_retry() -> None:
    backend = backend_of(f"mongodb://user:secret@127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=100")
    with pytest.raises(ServerSelectionTimeoutError) as caught:
        backend.task_state("t")
    assert backend.exception_safe_to_retry(caught.value)
    assert not backend.exception_safe_to_retry(errors.BackendError("x"))
    assert "secret" not in f"{caught.value}{backend.as_uri()}"


@pytest.mark.parametrize("url", ["mongodb://user:sec/ret@h", "mongodb://user:secret@h:port", "mongodb://"])
def test_a_url_that_cannot_be_used_is_one_error_without_its_password(url: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        backend_of(url).task_state("t")
    assert "ret@" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_result_that_is_too_large_fails_its_task(server: Server) -> None:
    server.app.conf.machinery_max_body_size = 20_000_000
    server.register_task("large", lambda: "x" * 17_000_000)

    result = server.send_task(new_signature("large"))

    with pytest.raises(TaskError, match="larger than MongoDB takes"):
        result.get_with_timeout(10)


def test_a_document_that_is_too_large(backend: Backend, names: Names) -> None:
    large = ended(names.queue, "string", b'"%s"' % (b"x" * 17_000_000))
    for write in (backend.put_state, lambda state: backend.update_states([state])):
        with pytest.raises(TooLarge, match="larger than MongoDB takes"):
            write(large)


def test_a_uuid_that_is_no_text_of_mongodb(backend: Backend) -> None:
    with pytest.raises(errors.BackendError, match="cannot be"):
        backend.task_state("\ud800")
    with pytest.raises(errors.BackendError, match="cannot be"):
        backend.put_state(TaskState(task_uuid="\ud800", state="STARTED"))


def test_an_unused_backend_makes_no_connection() -> None:
    # Nothing listens there.
    backend = backend_of("mongodb://127.0.0.1:1")
    assert backend.as_uri() == "mongodb://127.0.0.1:1"


def test_the_clients_of_srv_urls_are_looked_up_late() -> None:
    backend = backend_of("mongodb+srv://user:secret@cluster.invalid/db")
    assert backend.as_uri() == "mongodb+srv://cluster.invalid"
