"""Exchanges that are not direct ones: the default queue gets what that of a Go worker gets."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from machinery_compat import Config, Server, new_signature
from machinery_compat.config import AMQPConfig
from machinery_compat.errors import BrokerError
from tests.conftest import Names
from tests.support.services import RabbitServer

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
