"""Results on RabbitMQ, where each task has a queue with the history of its states."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import amqp
import pytest
from amqp.abstract_channel import AbstractChannel
from celery import chain, chord, group, states
from celery.exceptions import TimeoutError
from celery.result import ResultSet

from machinery_compat import (
    Celery,
    Chain,
    Chord,
    Config,
    Group,
    Server,
    Signature,
    TaskError,
    TaskState,
    errors,
    new_signature,
)
from machinery_compat.backends.base import Backend
from machinery_compat.config import AMQPConfig
from machinery_compat.wire import TaskResult, now_text
from tests.conftest import Names
from tests.integration.conftest import TASKS
from tests.support.processes import free_port
from tests.support.python_worker import PythonWorker
from tests.support.services import RabbitServer

pytestmark = pytest.mark.rabbitmq


@pytest.fixture(scope="module")
def server(rabbit_server: RabbitServer) -> Iterator[Server]:
    server = Server(Config(broker="eager", result_backend=rabbit_server.url()))
    yield server
    server.backend.channel.close()


@pytest.fixture
def backend(server: Server) -> Backend:
    found: Backend = server.backend
    return found


@pytest.fixture
def uuid(names: Names) -> str:
    return f"task_{names.queue}"


@pytest.fixture
def raw(rabbit_server: RabbitServer) -> Iterator[amqp.Channel]:
    with amqp.Connection(f"127.0.0.1:{rabbit_server.port}") as connection:
        yield connection.channel()


def update(backend: Backend, uuid: str, state: str, **fields: object) -> None:
    backend.update_states([TaskState(task_uuid=uuid, state=state, **fields)])


# -- tasks


def test_the_history_of_a_task_is_gos(backend: Backend, uuid: str, raw: amqp.Channel) -> None:
    sent = TaskState(task_uuid=uuid, task_name="add", state="PENDING", created_at=now_text())
    backend.put_state(sent)
    update(backend, uuid, "STARTED")

    # As Go declares it; other arguments would be refused.
    lived = {"x-message-ttl": 3_600_000, "x-expires": 3_600_000}
    assert raw.queue_declare(uuid, durable=False, auto_delete=True, arguments=lived).message_count == 2
    messages = [raw.basic_get(uuid) for _ in range(2)]
    assert [message.body for message in messages] == [
        sent.encode(),
        TaskState(task_uuid=uuid, state="STARTED").encode(),
    ]
    assert messages[0].properties == {"content_type": "application/json", "delivery_mode": 2}


def test_the_latest_state_is_read_again_and_again(backend: Backend, uuid: str, raw: amqp.Channel) -> None:
    assert backend.task_state(uuid) is None
    sent = TaskState(task_uuid=uuid, task_name="add", state="PENDING", created_at=now_text())
    backend.put_state(sent)
    update(backend, uuid, "RECEIVED")
    update(backend, uuid, "SUCCESS", results=[TaskResult.from_raw("int64", b"3")])

    for _ in range(3):
        found = backend.task_state(uuid)
        assert (found.state, found.results[0].value) == ("SUCCESS", 3)
        assert (found.task_name, found.created_at) == ("add", sent.created_at)
    # For Go it lies there too.
    assert TaskState.decode(raw.basic_get(uuid).body).state == "SUCCESS"


def test_received_after_an_end_is_no_news(backend: Backend, uuid: str, raw: amqp.Channel) -> None:
    """From a worker that was frozen until another one had run the task."""
    update(backend, uuid, "SUCCESS", results=[TaskResult.from_raw("int64", b"3")])
    update(backend, uuid, "RECEIVED")

    assert [backend.task_state(uuid).state for _ in range(2)] == ["SUCCESS", "SUCCESS"]
    assert TaskState.decode(raw.basic_get(uuid).body).state == "SUCCESS"
    assert raw.basic_get(uuid) is None


def test_a_queue_that_nobody_has_is_not_made(backend: Backend, uuid: str, raw: amqp.Channel) -> None:
    assert backend.task_states([uuid, f"{uuid}-2"]) == [None, None]
    with pytest.raises(amqp.NotFound):
        raw.queue_declare(uuid, passive=True)


def test_purge(backend: Backend, uuid: str, raw: amqp.Channel) -> None:
    update(backend, uuid, "STARTED")
    backend.purge(uuid)
    backend.purge(uuid)
    assert backend.task_state(uuid) is None


def test_celerys_calls(server: Server, backend: Backend, uuid: str) -> None:
    result = server.app.AsyncResult(uuid)
    assert result.state == states.PENDING
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05)
    backend.store_result(uuid, KeyError("a", 1), states.FAILURE)
    with pytest.raises(KeyError):
        server.app.AsyncResult(uuid).get(timeout=5)
    for number in range(20):
        backend.store_result(f"{uuid}-{number}", number, states.SUCCESS)
    results = ResultSet([server.app.AsyncResult(f"{uuid}-{number}") for number in range(20)], app=server.app)
    assert results.join_native(timeout=10) == list(range(20))
    with pytest.raises(errors.BackendError, match="cannot add"):
        backend.add_member("group", uuid, "[]")


def test_hostile_documents(server: Server, raw: amqp.Channel, uuid: str) -> None:
    lived = {"x-message-ttl": 3_600_000, "x-expires": 3_600_000}
    for document in (b"", b"{", b"[1]", b"{}", b"\xff", b"[" * 10_000, b'{"TaskUUID":"t","State":"DONE"}'):
        raw.queue_declare(uuid, durable=False, auto_delete=True, arguments=lived)
        raw.basic_publish(amqp.Message(document), routing_key=uuid)
        raw.queue_declare(uuid, passive=True)
        with pytest.raises(errors.BackendError, match=uuid):
            server.app.AsyncResult(uuid).get(timeout=5)
        # A worker's state comes after it.
        update(server.backend, uuid, "SUCCESS", results=[])
        assert server.app.AsyncResult(uuid).get(timeout=5) is None


# -- groups


def member(group_uuid: str, number: int, count: int) -> Signature:
    signature = new_signature("add", uuid=f"{group_uuid}-{number}")
    signature.group_uuid, signature.group_task_count = group_uuid, count
    return signature


def end(backend: Backend, signature: Signature) -> None:
    backend._end_member(
        signature,
        TaskState(task_uuid=signature.uuid, state="SUCCESS", results=[TaskResult.from_raw("string", b'"x"')]),
    )


def test_a_group_is_complete_with_its_last_member(backend: Backend, uuid: str) -> None:
    for number in range(3):
        assert not backend.group_completed(uuid, 3)
        end(backend, member(uuid, number, 3))
    assert backend.group_completed(uuid, 3)
    # One that has run twice counts once.
    end(backend, member(uuid, 0, 3))
    assert backend.trigger_chord(uuid)
    assert [state.task_uuid for state in backend.group_task_states(uuid)] == [f"{uuid}-{number}" for number in range(3)]
    with pytest.raises(errors.BackendError, match=uuid):
        backend.group_task_states(uuid)


def test_of_many_workers_one_triggers_the_chord(rabbit_server: RabbitServer, backend: Backend, uuid: str) -> None:
    others = [Server(Config(broker="eager", result_backend=rabbit_server.url())).backend for _ in range(4)]
    for number in range(3):
        for count in range(2):
            end(backend, member(f"{uuid}{number}", count, 2))
        together = threading.Barrier(4)

        def trigger(other: Backend, number: int = number, together: threading.Barrier = together) -> bool:
            together.wait()
            return bool(other.trigger_chord(f"{uuid}{number}"))

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(trigger, others)) == [False, False, False, True]
        assert not backend.trigger_chord(f"{uuid}{number}")
    for other in others:
        other.channel.close()


def test_round_trips(backend: Backend, uuid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/backends.md shows these numbers."""
    waits: list[str] = []
    wait = AbstractChannel.wait
    monkeypatch.setattr(AbstractChannel, "wait", lambda *args, **kwargs: waits.append("") or wait(*args, **kwargs))

    def cost(act: Callable[[], object]) -> int:
        waits.clear()
        act()
        return len(waits)

    update(backend, f"{uuid}-warm", "STARTED")
    assert cost(lambda: backend.store_pending(new_signature("add", uuid=uuid), "")) == 1
    assert cost(lambda: update(backend, uuid, "STARTED")) == 1
    assert cost(lambda: backend.task_state(uuid)) == 2
    assert cost(lambda: backend.task_state(uuid)) == 1
    assert cost(lambda: backend.put_pending([new_signature("add", uuid=f"{uuid}-{n}") for n in range(100)])) == 1
    assert cost(lambda: [end(backend, member(f"{uuid}-g", n, 5)) for n in range(5)]) == 5
    assert cost(lambda: backend.group_completed(f"{uuid}-g", 5)) == 1
    # And one wait for the states.
    assert cost(lambda: backend.trigger_chord(f"{uuid}-g")) == 3
    assert cost(lambda: backend.group_task_states(f"{uuid}-g")) == 0


# -- the server


def backend_of(url: str, **fields: object) -> Backend:
    found: Backend = Celery(config=Config(broker="eager", result_backend=url, **fields), set_as_current=False).backend
    return found


def test_a_forked_process_has_a_connection_of_its_own(backend: Backend, uuid: str) -> None:
    update(backend, uuid, "RECEIVED")
    child = os.fork()
    if not child:
        try:
            update(backend, uuid, "STARTED")
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert backend.task_state(uuid).state == "STARTED"


def test_a_connection_that_was_cut_is_made_again(backend: Backend, uuid: str, rabbit_server: RabbitServer) -> None:
    update(backend, uuid, "RECEIVED")
    rabbit_server.close_connections()
    update(backend, uuid, "STARTED")
    rabbit_server.close_connections()
    assert backend.task_state(uuid).state == "STARTED"


def test_a_server_that_is_not_there() -> None:
    backend = backend_of(f"amqp://user:secret@127.0.0.1:{free_port()}/")
    with pytest.raises(OSError, match="refused") as caught:
        backend.task_state("t")
    assert backend.exception_safe_to_retry(caught.value)
    assert "secret" not in f"{caught.value}{backend.as_uri()}"


@pytest.mark.parametrize("seconds", [-1, 2_147_484])
def test_results_that_rabbitmq_cannot_keep(rabbit_server: RabbitServer, seconds: int) -> None:
    backend = backend_of(rabbit_server.url(), results_expire_in=seconds)
    with pytest.raises(errors.BackendError, match="change results_expire_in"):
        update(backend, "t", "STARTED")


def test_processes_that_disagree_about_the_expiry(rabbit_server: RabbitServer, backend: Backend, uuid: str) -> None:
    update(backend, uuid, "RECEIVED")
    other = backend_of(rabbit_server.url(), results_expire_in=60)
    with pytest.raises(errors.BackendError, match="another results_expire_in"):
        update(other, uuid, "STARTED")
    update(other, f"{uuid}-2", "STARTED")
    other.channel.close()


# -- through a worker


@pytest.fixture(scope="module")
def running(rabbit_server: RabbitServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    names = {"AMQP_EXCHANGE": "results-exchange", "AMQP_BINDING_KEY": "results-key"}
    url = rabbit_server.url()
    directory = tmp_path_factory.mktemp("worker")
    with PythonWorker(directory, broker=url, backend=url, queue="results-queue", tasks=TASKS, **names):
        server = Server(
            Config(
                broker=url,
                result_backend=url,
                default_queue="results-queue",
                amqp=AMQPConfig(exchange="results-exchange", binding_key="results-key"),
            )
        )
        yield server
        server.app.close()
        server.backend.channel.close()


def test_values_failures_and_nothing(running: Server) -> None:
    app = running.app
    assert app.send_task("py_add", [20, 22]).get(timeout=15) == 42
    assert app.send_task("py_swap", ["a", 1]).get(timeout=15) == (1, "a")
    assert app.send_task("py_nothing").get(timeout=15) is None
    with pytest.raises(ValueError, match=r"^boom$"):
        app.send_task("py_fail", ["boom"]).get(timeout=15)
    assert app.send_task("again", [2]).get(timeout=15) == 2


def test_workflows(running: Server) -> None:
    assert running.send_chain(Chain(*(new_signature("py_add", n) for n in range(4)))).get_with_timeout(15) == [6]
    members = [new_signature("py_add", number) for number in range(20)]
    assert [one.get_with_timeout(15) for one in running.send_group(Group(*members))] == [[n] for n in range(20)]
    members = [new_signature("py_add", number) for number in range(20)]
    assert running.send_chord(Chord(Group(*members), new_signature("py_add"))).get_with_timeout(15) == [190]
    add = running.app.signature("py_add", app=running.app)
    assert chain(add.clone((1, 1)), add.clone((10,)), app=running.app).apply_async().get(timeout=15) == 12
    assert group([add.clone((1, 1)), add.clone((2, 2))], app=running.app).apply_async().get(timeout=15) == [2, 4]


def test_a_celery_chord_gets_its_results_in_its_order(running: Server) -> None:
    app = running.app
    # The first one ends last.
    members = [app.signature("py_sleep", (300 if number == 0 else number,), app=app) for number in range(5)]
    assert chord(members, app.signature("py_echo", app=app), app=app).apply_async().get(timeout=15) == [300, 1, 2, 3, 4]


def test_a_failed_member_fails_the_callback(running: Server) -> None:
    failing = Chord(Group(new_signature("py_add", 1), new_signature("py_fail", "no luck")), new_signature("py_add"))
    result = running.send_chord(failing)
    with pytest.raises(TaskError, match=r"^no luck$"):
        result.result.get_with_timeout(15)
