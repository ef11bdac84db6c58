"""Headers that do not fit into an AMQP table stay in the body, and the connection stays."""

from __future__ import annotations

from typing import Any

import pytest

from machinery_compat import Config, Server, Signature, new_signature
from machinery_compat.config import AMQPConfig
from machinery_compat.errors import EncodeError
from machinery_compat.transport.amqp import amqp_message
from tests.conftest import Names
from tests.support.services import RabbitServer

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]


@pytest.fixture
def server(rabbit_server: RabbitServer, redis_db: str, names: Names) -> Server:
    return Server(
        Config(
            broker=rabbit_server.url(),
            result_backend=redis_db,
            default_queue=names.queue,
            amqp=AMQPConfig(exchange=names.exchange, binding_key=names.queue),
        )
    )


@pytest.mark.parametrize("headers", [{"big": "x" * 500_000}, {str(n): "é" * 1000 for n in range(200)}])
def test_large_headers_arrive_in_the_body(server: Server, headers: dict[str, Any]) -> None:
    sent = new_signature("add", headers=headers)

    server.send_task(sent)
    server.send_task(new_signature("after"))

    arrived = server.broker.get_pending_tasks()
    assert [one.name for one in arrived] == ["add", "after"]
    assert arrived[0].headers == headers


def test_a_routing_key_that_amqp_has_no_room_for_is_refused(server: Server) -> None:
    with pytest.raises(EncodeError, match="255 bytes"):
        server.send_task(new_signature("add", routing_key="é" * 128))


def test_the_table_has_what_go_would_send() -> None:
    signature = Signature.decode(b'{"Name":"add","Headers":{"a":"x","b":true,"c":null,"n":1,"o":{}}}')

    assert amqp_message(signature).properties["application_headers"] == {"a": "x", "b": True, "c": None}
