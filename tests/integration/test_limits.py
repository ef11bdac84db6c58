"""What is too large is refused where it is made, with a text that says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import amqp
import pytest
from redis import Redis

from machinery_compat import Celery, Config, Server, TaskState, new_signature
from machinery_compat.config import AMQPConfig
from machinery_compat.errors import EncodeError
from machinery_compat.transport.border import MAX_BODY_SIZE
from machinery_compat.transport.payloads import dead_queue
from tests.conftest import Names
from tests.support.python_worker import PythonWorker
from tests.support.waiting import wait_for

REDIS = pytest.param("redis", marks=pytest.mark.redis)
RABBIT = pytest.param("rabbitmq", marks=[pytest.mark.redis, pytest.mark.rabbitmq])


@pytest.fixture(params=[REDIS, RABBIT])
def server(request: pytest.FixtureRequest, redis_db: str, names: Names) -> Server:
    broker = request.getfixturevalue("rabbit_server").url() if request.param == "rabbitmq" else redis_db
    return Server(
        Config(
            broker=broker,
            result_backend=redis_db,
            default_queue=names.queue,
            amqp=AMQPConfig(exchange=names.exchange, binding_key=names.queue),
        )
    )


@pytest.fixture
def worker(server: Server, redis_db: str, names: Names, tmp_path: Path) -> Iterator[PythonWorker]:
    with PythonWorker(
        tmp_path,
        broker=str(server.app.conf.broker_url),
        backend=redis_db,
        queue=names.queue,
        pool="solo",
        app="tests.integration.apps:limited",
        AMQP_EXCHANGE=names.exchange,
        AMQP_BINDING_KEY=names.queue,
    ) as running:
        yield running


def put(server: Server, body: bytes) -> None:
    """Past every check, as a stranger does."""
    queue = server.app.conf.task_default_queue
    with server.app.connection_for_write() as connection:
        channel = connection.default_channel
        if connection.transport.driver_type == "redis":
            channel.commands.rpush(queue, body)
        else:
            channel.publish_confirmed(amqp.Message(body), exchange="", routing_key=queue)


def test_what_is_too_large_is_not_sent(server: Server, redis_db: str, names: Names) -> None:
    server.app.conf.machinery_max_body_size = 1000

    with pytest.raises(
        EncodeError, match=r"add\[.*\] has 1\d\d\d bytes and machinery_max_body_size is 1000; send a ref"
    ):
        server.send_task(new_signature("add", "x" * 1000))

    with Redis.from_url(redis_db) as client:
        assert client.keys() == []


def test_the_limit_is_10_mb_and_can_be_off() -> None:
    app = Celery("limits", broker="eager", backend="eager", set_as_current=False)
    other = Celery("limits", broker="eager", backend="eager", set_as_current=False)
    other.conf.machinery_max_body_size = None

    with pytest.raises(EncodeError):
        app.send_task("unknown", ["x" * MAX_BODY_SIZE])
    other.send_task("unknown", ["x" * MAX_BODY_SIZE])


def test_what_arrives_and_is_too_large_is_kept(server: Server, worker: PythonWorker) -> None:
    body = json.dumps({"UUID": "large", "Name": "py_add", "Args": [{"Type": "string", "Value": "é" * 60_000}]}).encode()

    put(server, body)

    dead = server.app.machinery.dead_letters()
    (entry,) = wait_for(lambda: list(dead.entries()))
    assert entry.body == body
    assert f"it has {len(body)} bytes and machinery_max_body_size is 100000" in entry.reason
    assert f"kept in {dead_queue(dead.queue)}" in worker.text()
    assert server.send_task(new_signature("py_add", 20, 22)).get_with_timeout(20, sleep=0.01) == [42]


def test_a_result_that_is_too_large_fails_its_task(server: Server, worker: PythonWorker, redis_db: str) -> None:
    follower = new_signature("py_describe")
    sent = new_signature("py_repeat", "ab", 60_000, on_success=[new_signature("py_who")], on_error=[follower])

    server.send_task(sent)

    def state_of(uuid: str, wanted: str) -> TaskState | None:
        with Redis.from_url(redis_db) as client:
            data = client.get(uuid)
        state = TaskState.decode(data) if data else None
        return state if state and state.state == wanted else None

    failed = wait_for(lambda: state_of(sent.uuid, "FAILURE"))
    assert failed.error.startswith("the results have 120002 bytes and machinery_max_body_size is 100000; return a ref")
    wait_for(lambda: state_of(follower.uuid, "SUCCESS"))
    assert "RuntimeWarning" not in worker.text()
