"""A group on its way to RabbitMQ while something goes wrong: every task is there, or an error says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from machinery_compat import Config, Group, Server, new_signature
from machinery_compat.config import AMQPConfig
from machinery_compat.errors import BrokerError
from machinery_compat.messaging import Connection
from tests.conftest import Names
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]

SIZE = 600
#: When the fault strikes: many are confirmed then, and many are on their way.
STRUCK = 350


def server_of(rabbit: RabbitServer, backend: str, names: Names, **amqp: Any) -> Server:
    settings = AMQPConfig(exchange=names.exchange, binding_key=names.binding_key, **amqp)
    return Server(Config(broker=rabbit.url(), result_backend=backend, default_queue=names.queue, amqp=settings))


@pytest.fixture
def server(rabbit_server: RabbitServer, redis_db: str, names: Names) -> Iterator[Server]:
    server = server_of(rabbit_server, redis_db, names)
    yield server
    server.app.pool.force_close_all()


def group(size: int = SIZE) -> Group:
    return Group(*[new_signature(f"task{number}") for number in range(size)])


def pending(server: Server) -> list[str]:
    return [one.name for one in server.broker.get_pending_tasks()]


def at(number: int, fault: Callable[[], Any]) -> Callable[[int, int], None]:
    """The progress of a group, during which something happens."""
    return lambda sent, total: fault() if sent == number else None


def test_all_arrive_in_order_and_once(server: Server) -> None:
    told: list[tuple[int, int]] = []

    results = server.send_group(group(), progress=lambda sent, total: told.append((sent, total)))

    assert pending(server) == [f"task{number}" for number in range(SIZE)]
    assert [result.signature.name for result in results] == [f"task{number}" for number in range(SIZE)]
    assert told == [(number, SIZE) for number in range(1, SIZE + 1)]


def test_large_ones_and_delayed_ones_arrive_too(rabbit_server: RabbitServer, server: Server, names: Names) -> None:
    eta = datetime.now(timezone.utc) + timedelta(milliseconds=300)
    members = [new_signature(f"task{number}", "x" * 100_000, eta=None if number % 10 else eta) for number in range(60)]

    server.send_group(Group(*members))

    wait_for(lambda: rabbit_server.list_queues()[names.queue] == len(members), interval=0.5)
    assert sorted(pending(server)) == sorted(one.name for one in members)


@pytest.mark.parametrize("struck", [1, STRUCK, SIZE])
def test_the_connection_is_lost_on_the_way(rabbit_server: RabbitServer, server: Server, struck: int) -> None:
    server.send_group(group(), progress=at(struck, rabbit_server.close_connections))

    arrived = pending(server)
    assert set(arrived) == {f"task{number}" for number in range(SIZE)}
    # What was confirmed before is not sent again.
    assert len(arrived) < 2 * SIZE
    assert arrived.count("task0") == 1


@pytest.mark.parametrize("what", ["queue", "exchange"])
def test_somebody_deletes_where_it_goes(rabbit_server: RabbitServer, server: Server, names: Names, what: str) -> None:
    def delete() -> None:
        with Connection(rabbit_server.url()) as connection:
            if what == "queue":
                connection.default_channel.queue_delete(names.queue)
            else:
                connection.default_channel.exchange_delete(names.exchange)

    server.send_group(group(), progress=at(STRUCK, delete))

    # What was there went with the queue.
    assert set(pending(server)) >= {f"task{number}" for number in range(STRUCK, SIZE)}


def test_a_full_queue_is_an_error(
    rabbit_server: RabbitServer, redis_db: str, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda seconds: None)
    full = {"x-max-length": 10, "x-overflow": "reject-publish"}
    server = server_of(rabbit_server, redis_db, names, queue_declare_args=full)

    with pytest.raises(BrokerError, match="refused the message"):
        server.send_group(group(20))

    assert len(pending(server)) >= 10


def test_a_key_that_leads_nowhere_is_an_error(rabbit_server: RabbitServer, redis_db: str, names: Names) -> None:
    server = server_of(rabbit_server, redis_db, names, exchange_type="topic")
    members = group(20)
    members.tasks[10].routing_key = "nowhere"

    with pytest.raises(BrokerError, match=r"no queue gets what exchange .* is sent with key 'nowhere'"):
        server.send_group(members)

    server.send_group(group(20))
    assert pending(server)[-20:] == [f"task{number}" for number in range(20)]


def test_an_alarm_is_an_error_and_not_a_hang(rabbit_server: RabbitServer, redis_db: str, names: Names) -> None:
    server = server_of(rabbit_server, redis_db, names)
    options = server.app.conf.broker_transport_options
    server.app.conf.broker_transport_options = {**options, "confirm_timeout": 0.5}
    try:
        with pytest.raises(BrokerError, match="memory or disk alarm"):
            server.send_group(
                group(),
                progress=at(STRUCK, lambda: rabbit_server.ctl("set_vm_memory_high_watermark", "0.0000001")),
            )
    finally:
        rabbit_server.ctl("set_vm_memory_high_watermark", "0.4")

    server.send_task(new_signature("after"))
    assert wait_for(lambda: "after" in pending(server))
