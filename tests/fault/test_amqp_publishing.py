"""What a sender gets from RabbitMQ when something is wrong: the message is there, or an error says why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from machinery_compat import Config, Server, new_signature
from machinery_compat.config import AMQPConfig
from machinery_compat.errors import BrokerError
from machinery_compat.messaging import Connection
from machinery_compat.transport.reconnect import pauses
from tests.conftest import Names
from tests.support.processes import free_port
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]

MANY = 1000


def server_of(broker: str, backend: str, names: Names, **amqp: Any) -> Server:
    settings = AMQPConfig(exchange=names.exchange, binding_key=names.binding_key, **amqp)
    return Server(Config(broker=broker, result_backend=backend, default_queue=names.queue, amqp=settings))


@pytest.fixture
def server(rabbit_server: RabbitServer, redis_db: str, names: Names) -> Iterator[Server]:
    server = server_of(rabbit_server.url(), redis_db, names)
    yield server
    server.app.pool.force_close_all()


def pending(server: Server) -> list[str]:
    return [one.name for one in server.broker.get_pending_tasks()]


def connections(rabbit: RabbitServer) -> int:
    return len(json.loads(rabbit.ctl("list_connections", "--formatter", "json", "pid")))


def test_the_pauses_are_machinerys() -> None:
    assert list(islice(pauses(), 7)) == [1, 1, 2, 3, 5, 8, 13]


@pytest.mark.parametrize("kind", ["amqp", "redis"])
def test_connecting_pauses_as_machinery_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", slept.append)
    told: list[float] = []
    connection = Connection(f"{kind}://user:s3cret@127.0.0.1:{free_port()}/")

    with pytest.raises(BrokerError, match="cannot be reached") as caught:
        connection.ensure_connection(lambda exc, pause: told.append(pause), max_retries=5)

    assert told == [1, 1, 2, 3, 5]
    assert sum(slept) == 12
    assert "s3cret" not in str(caught.value)
    assert isinstance(caught.value, OperationalError)


def test_several_brokers_are_tried_before_each_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda seconds: None)
    told: list[tuple[int, float]] = []
    ports = [free_port(), free_port()]
    connection = Connection([f"amqp://127.0.0.1:{port}/" for port in ports])

    with pytest.raises(BrokerError):
        connection.ensure_connection(lambda exc, pause: told.append((connection.port, pause)), max_retries=5)

    first, second = ports
    assert told == [(first, 0), (second, 1), (first, 0), (second, 1), (first, 0)]


def test_a_sender_gives_up_with_an_error_that_names_the_broker(
    redis_db: str, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", slept.append)
    port = free_port()
    server = server_of(f"amqp://user:s3cret@127.0.0.1:{port}/", redis_db, names)

    with pytest.raises(BrokerError, match=rf"amqp://user:\*\*@127\.0\.0\.1:{port}") as caught:
        server.send_task(new_signature("lost"))

    assert sum(slept) == 12
    assert "refused" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_sender_survives_the_loss_of_its_connection(rabbit_server: RabbitServer, server: Server) -> None:
    server.send_task(new_signature("before"))
    rabbit_server.close_connections()

    server.send_task(new_signature("after"))

    assert pending(server) == ["before", "after"]


@pytest.mark.parametrize("what", ["queue", "exchange"])
def test_what_somebody_has_deleted_is_declared_again(
    rabbit_server: RabbitServer, server: Server, names: Names, what: str
) -> None:
    server.send_task(new_signature("before"))
    with Connection(rabbit_server.url()) as connection:
        if what == "queue":
            connection.default_channel.queue_delete(names.queue)
        else:
            connection.default_channel.exchange_delete(names.exchange)

    server.send_task(new_signature("after"))

    assert pending(server)[-1] == "after"


def test_a_message_that_no_queue_gets_is_an_error(rabbit_server: RabbitServer, redis_db: str, names: Names) -> None:
    server = server_of(rabbit_server.url(), redis_db, names, exchange_type="topic")

    with pytest.raises(
        BrokerError, match=rf"no queue gets what exchange '{names.exchange}' is sent with key 'nowhere'"
    ):
        server.send_task(new_signature("lost", routing_key="nowhere"))

    server.send_task(new_signature("found"))
    assert pending(server) == ["found"]


def test_a_message_that_the_broker_refuses_is_an_error(
    rabbit_server: RabbitServer, redis_db: str, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda seconds: None)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    server = server_of(rabbit_server.url(), redis_db, names, queue_declare_args=full)
    server.send_task(new_signature("first"))

    with pytest.raises(BrokerError, match="refused the message") as caught:
        server.send_task(new_signature("second"))

    assert str(rabbit_server.port) in str(caught.value)
    assert pending(server) == ["first"]


@pytest.fixture
def alarm(rabbit_server: RabbitServer) -> Iterator[None]:
    """RabbitMQ's memory alarm is on."""
    rabbit_server.ctl("set_vm_memory_high_watermark", "0.0000001")
    yield
    rabbit_server.ctl("set_vm_memory_high_watermark", "0.4")


def test_an_alarm_is_an_error_and_not_a_hang(
    rabbit_server: RabbitServer, redis_db: str, names: Names, request: pytest.FixtureRequest
) -> None:
    server = server_of(rabbit_server.url(), redis_db, names)
    options = server.app.conf.broker_transport_options
    server.app.conf.broker_transport_options = {**options, "confirm_timeout": 0.5}
    server.send_task(new_signature("before"))
    request.getfixturevalue("alarm")

    for _ in range(2):
        with pytest.raises(BrokerError, match="memory or disk alarm"):
            server.send_task(new_signature("now"))

    rabbit_server.ctl("set_vm_memory_high_watermark", "0.4")
    server.send_task(new_signature("after"))
    assert wait_for(lambda: [name for name in pending(server) if name != "now"]) == ["before", "after"]


def test_a_frozen_broker_is_an_error_and_not_a_hang(rabbit_server: RabbitServer, server: Server) -> None:
    conf = server.app.conf
    conf.broker_transport_options = {**conf.broker_transport_options, "confirm_timeout": 0.5}
    conf.broker_connection_timeout = 0.5
    conf.task_publish_retry_policy = {"max_retries": 1, "interval_max": 0}
    server.send_task(new_signature("before"))
    rabbit_server.pause()
    try:
        with pytest.raises(BrokerError, match="has not taken the message"):
            server.send_task(new_signature("now"))
    finally:
        rabbit_server.resume()

    server.send_task(new_signature("after"))
    assert "after" in pending(server)


def test_a_thousand_delayed_tasks_leave_nothing_behind(
    rabbit_server: RabbitServer, server: Server, names: Names
) -> None:
    server.send_task(new_signature("first"))
    before, queues = connections(rabbit_server), set(rabbit_server.list_queues())

    for index in range(MANY):
        # A delay of its own for each, and so a queue of its own.
        eta = datetime.now(timezone.utc) + timedelta(milliseconds=1000 + index)
        server.send_task(new_signature("delayed", eta=eta))

    assert connections(rabbit_server) == before
    wait_for(lambda: rabbit_server.list_queues().get(names.queue) == MANY + 1, 60, interval=0.5)
    wait_for(lambda: set(rabbit_server.list_queues()) <= queues, 60, interval=0.5)
    assert connections(rabbit_server) == before
