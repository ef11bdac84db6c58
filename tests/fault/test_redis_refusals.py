"""A Redis that refuses writes, or goes away: errors say why, and nothing that a worker has done is lost."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from machinery_compat import Chord, Config, Group, Server, TaskState, errors, new_signature
from machinery_compat.redis_errors import ADVICE, refusal
from tests.conftest import Names
from tests.integration.conftest import TASKS
from tests.support.python_worker import PythonWorker
from tests.support.services import RedisServer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.redis


@contextmanager
def full_memory(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        client.config_set("maxmemory", "1")
        yield
        client.config_set("maxmemory", "0")


@contextmanager
def full_disk(server: RedisServer) -> Iterator[None]:
    """The folder of its snapshots is not there, and it is asked for one."""
    folder = Path(server.options["dir"])
    with server.client() as client:
        client.config_set("save", "3600 1")
        shutil.rmtree(folder)
        client.bgsave()
        wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] != "ok")
        yield
        folder.mkdir()
        wait_for(lambda: not client.info("persistence")["rdb_bgsave_in_progress"])
        client.config_set("save", "")


@contextmanager
def replica(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        yield
        client.execute_command("REPLICAOF", "NO", "ONE")


REFUSALS = {"OOM": full_memory, "MISCONF": full_disk, "READONLY": replica}


@pytest.fixture
def server(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "snapshots"
    folder.mkdir()
    with RedisServer(options={"dir": str(folder)}) as own:
        yield own


def machinery(broker: str, backend: str, names: Names) -> Server:
    return Server(Config(broker=broker, result_backend=backend, default_queue=names.queue))


def value_of(server: Server, *numbers: int) -> list[Any]:
    return server.send_task(new_signature("py_add", *numbers)).get_with_timeout(20, sleep=0.01)


@pytest.mark.parametrize("code", REFUSALS)
def test_refusals_are_named_and_outlived(server: RedisServer, names: Names, tmp_path: Path, code: str) -> None:
    sender = machinery(server.url(), server.url(), names)
    app, backend = sender.app, sender.backend
    app.conf.task_publish_retry_policy = {**app.conf.task_publish_retry_policy, "max_retries": 1}

    def batch() -> None:
        sender.send_group(Group(*(new_signature("py_add", n) for n in range(3))))

    sending: list[Callable[[], Any]] = [
        lambda: sender.send_task(new_signature("py_add", 1)),
        lambda: app.send_task("py_add", [1]),
        lambda: app.send_task("py_add", [1], countdown=60),
        lambda: app.send_task("py_add", [1], priority=3),
    ]
    storing: list[Callable[[], Any]] = [
        lambda: backend.update_states([TaskState(task_uuid="a", state="SUCCESS")]),
        lambda: backend.update_states([TaskState(task_uuid=uuid, state="SUCCESS") for uuid in "ab"]),
        batch,
    ]
    with PythonWorker(tmp_path, broker=server.url(), backend=server.url(), queue=names.queue, concurrency=1) as worker:
        assert value_of(sender, 1, 2) == [3]
        with REFUSALS[code](server):
            for send in sending:
                with pytest.raises(errors.BrokerError, match=f"Redis at 127.0.0.1:{server.port}.*{code}: ") as refused:
                    send()
                # Who catches Kombu's error goes on to do so.
                assert isinstance(refused.value, OperationalError)
                assert ADVICE[code] in str(refused.value)
            for store in storing:
                with pytest.raises(errors.BackendError, match=f"result backend .*{code}: "):
                    store()
            wait_for(lambda: f"Redis hands out nothing ({code}" in worker.text(), message=worker.text)
        assert value_of(sender, 20, 22) == [42]
        assert worker.process.running()
        assert worker.text().count("Redis hands out nothing") == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_result_is_kept_while_the_store_is_away(
    redis_db: str, server: RedisServer, names: Names, tmp_path: Path, pool: str
) -> None:
    """The store stops while a task runs, and the task ends meanwhile. Waiting clients get the result."""
    sender, gate = machinery(redis_db, server.url(), names), tmp_path / "gate"
    outcome: dict[str, Any] = {}
    with PythonWorker(
        tmp_path, broker=redis_db, backend=server.url(), queue=names.queue, concurrency=1, pool=pool, tasks=TASKS
    ) as worker:
        result = sender.app.send_task("until", [str(gate)])
        signature = new_signature("py_nothing")
        signature.uuid = result.id
        wait_for(lambda: result.state == "STARTED")
        clients = [
            threading.Thread(target=lambda: outcome.update(celery=result.get(timeout=60)), daemon=True),
            threading.Thread(
                target=lambda: outcome.update(many=result.app.ResultSet([result]).join(timeout=60)), daemon=True
            ),
        ]
        for client in clients:
            client.start()

        server.kill()
        gate.touch()
        wait_for(lambda: f"connecting to 127.0.0.1:{server.port}" in worker.text(), 30, worker.text)
        server.start()

        for client in clients:
            client.join(60)
        assert set(outcome) == {"celery", "many"}
        assert result.state == "SUCCESS"
        # The broker was there all the time.
        assert sender.app.send_task("until", [str(gate)]).get(timeout=20) == outcome["celery"]
        assert worker.process.running()


def test_a_result_is_kept_while_the_store_takes_none(
    redis_db: str, server: RedisServer, names: Names, tmp_path: Path
) -> None:
    sender, gate = machinery(redis_db, server.url(), names), tmp_path / "gate"
    with PythonWorker(
        tmp_path, broker=redis_db, backend=server.url(), queue=names.queue, concurrency=1, tasks=TASKS
    ) as worker:
        result = sender.app.send_task("until", [str(gate)])
        wait_for(lambda: result.state == "STARTED")
        with full_memory(server):
            gate.touch()
            wait_for(lambda: "refuses it with OOM" in worker.text(), 30, worker.text)

        assert result.get(timeout=20) == str(gate)


def test_the_last_member_of_a_chord_waits_for_the_store(
    redis_db: str, server: RedisServer, names: Names, tmp_path: Path
) -> None:
    """Its own result is stored; the group cannot be looked at, nor its callback be sent, until the store lets it."""
    store = server.url().replace("redis://", "redis://fleet:secret@")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "fleet", "on", ">secret", "+@all", "~*")
        sender = machinery(redis_db, store, names)
        chord = Chord(Group(new_signature("py_add", 1, 2), new_signature("py_add", 3, 4)), new_signature("py_add"))
        asked = sender.send_chord(chord)
        client.execute_command("ACL", "SETUSER", "fleet", "resetkeys", "~task_*")
        with PythonWorker(tmp_path, broker=redis_db, backend=store, queue=names.queue) as worker:
            waiting = f"the chord of group {chord.group.group_uuid} cannot be checked now"
            wait_for(lambda: waiting in worker.text(), 30, worker.text)
            client.execute_command("ACL", "SETUSER", "fleet", "~*")

            assert asked.get_with_timeout(30, sleep=0.01) == [10]
            states = [sender.backend.task_state(member.uuid) for member in chord.group.tasks]
            assert [state.state for state in states] == ["SUCCESS", "SUCCESS"]


def test_a_task_that_cannot_be_started_is_failed_when_the_store_is_back(
    redis_db: str, server: RedisServer, names: Names, tmp_path: Path
) -> None:
    body = b'{"UUID":"task_bad","Name":"py_add","Args":[{"Type":"int64","Value":"x"}]}'
    sender = machinery(redis_db, server.url(), names)
    with (
        PythonWorker(tmp_path, broker=redis_db, backend=server.url(), queue=names.queue, concurrency=1) as worker,
        redis.Redis.from_url(redis_db) as client,
    ):
        with full_memory(server):
            client.rpush(names.queue, body)
            wait_for(
                lambda: "task py_add[task_bad] cannot be failed now, and is put back" in worker.text(), 20, worker.text
            )
            assert list(sender.broker.dead_letters().entries()) == []

        (entry,) = wait_for(lambda: list(sender.broker.dead_letters().entries()), 20)
        assert "x is not int64" in entry.reason
        assert sender.app.AsyncResult("task_bad").state == "FAILURE"
        assert value_of(sender, 20, 22) == [42]


def test_a_reader_is_not_kept_waiting_by_a_store_that_is_away(names: Names) -> None:
    sender = machinery("eager", "redis://127.0.0.1:1", names)

    with pytest.raises(redis.ConnectionError):
        _ = sender.app.AsyncResult("task_1").state
    with pytest.raises(redis.ConnectionError):
        sender.app.AsyncResult("task_1").get(timeout=0.1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "OOM"),
        (redis.ResponseError("Error running script: @user_script:22: -OOM command not allowed"), "OOM"),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "MISCONF"),
        (redis.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"), "READONLY"),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), "NOREPLICAS"),
        (redis.exceptions.NoPermissionError("this user has no permissions"), "NOPERM"),
        (redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), None),
        (ValueError("OOM"), None),
    ],
)
def test_the_code_of_a_refusal(error: Exception, code: str | None) -> None:
    assert refusal(error) == code
