"""Exchanges: the default queue gets what that of a Go worker gets, and the dead-letter exchange what Go gives it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from kombu import Queue

from machinery_compat import Config, Server, new_signature
from machinery_compat.config import AMQPConfig
from machinery_compat.errors import BrokerError
from tests.conftest import Names
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]


@pytest.mark.parametrize(
    ("kind", "arrive"),
    [
        ("topic", ["no key", "the binding key"]),
        ("fanout", ["no key", "the binding key", "another key"]),
        ("direct", ["no key"]),
    ],
)
def test_the_default_queue_is_bound_as_gos(
    rabbit_server: RabbitServer, redis_db: str, names: Names, kind: str, arrive: list[str]
) -> None:
    amqp = AMQPConfig(exchange=names.exchange, exchange_type=kind, binding_key=f"{names.queue}.#")
    server = Server(Config(broker=rabbit_server.url(), result_backend=redis_db, default_queue=names.queue, amqp=amqp))

    server.send_task(new_signature("no key"))
    server.send_task(new_signature("the binding key", routing_key=f"{names.queue}.some.key"))
    with pytest.raises(BrokerError, match="no queue gets") if kind == "topic" else nullcontext():
        server.send_task(new_signature("another key", routing_key=f"else.{names.queue}"))

    assert sorted(one.name for one in server.broker.get_pending_tasks()) == sorted(arrive)


def test_a_task_to_be_ignored_goes_to_the_queues_dead_letter_exchange(
    rabbit_server: RabbitServer, redis_db: str, names: Names
) -> None:
    kept = f"{names.queue}_kept"
    amqp = AMQPConfig(
        exchange=names.exchange,
        binding_key=names.queue,
        queue_declare_args={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": kept},
    )
    server = Server(Config(broker=rabbit_server.url(), result_backend=redis_db, default_queue=names.queue, amqp=amqp))
    worker = server.new_worker("ignores", 1)
    worker.launch_async()
    try:
        with server.app.connection_for_write() as connection:
            queue = Queue(kept, channel=connection.default_channel, durable=True)
            queue.queue_declare()
            sent = new_signature("nobody", ignore_when_task_not_registered=True)
            server.send_task(sent)

            wait_for(lambda: [one.uuid for one in server.broker.get_pending_tasks(kept)] == [sent.uuid])
    finally:
        worker.quit()
