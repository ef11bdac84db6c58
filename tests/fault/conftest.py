"""Fixtures for tests of what goes wrong."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import amqp
import pytest
from redis import Redis

from machinery_compat import Config, Server, new_signature
from machinery_compat.config import AMQPConfig
from tests.support.python_worker import PythonWorker
from tests.support.services import RabbitServer, RedisServer

REDIS, RABBITMQ = "redis", "rabbitmq"
BROKERS = [
    pytest.param(REDIS, marks=pytest.mark.redis),
    pytest.param(RABBITMQ, marks=[pytest.mark.redis, pytest.mark.rabbitmq]),
]
#: The database of these tests' results, and on Redis of their queue.
DATABASE = 15


@dataclass
class Site:
    """One queue with a real worker on it, and a side door to put anything into the queue."""

    broker: str
    queue: str
    redis: Redis
    server: Server
    channel: Any
    worker: PythonWorker
    seen: int = field(default=0)

    def put(self, body: bytes, headers: dict[str, Any] | None = None) -> None:
        """Puts a payload into the queue as it is; *headers* are those of AMQP, where Go puts a Signature's too."""
        if self.channel is None:
            self.redis.rpush(self.queue, body)
        else:
            message = amqp.Message(body, content_type="application/json", application_headers=headers or {})
            self.channel.basic_publish(message, routing_key=self.queue)

    def dead(self) -> list[bytes]:
        """Takes what is kept in the queue of the dead."""
        name = f"{self.queue}:dead"
        if self.channel is None:
            entries, _ = self.redis.pipeline().lrange(name, 0, -1).delete(name).execute()
            return list(entries)
        self.channel.queue_declare(name, durable=True, auto_delete=False)
        found = []
        while (message := self.channel.basic_get(name, no_ack=True)) is not None:
            found.append(message.body.encode() if isinstance(message.body, str) else bytes(message.body))
        return found

    def works(self) -> None:
        """A good task runs."""
        assert self.server.send_task(new_signature("py_add", 20, 22)).get_with_timeout(20, sleep=0.01) == [42]

    def new_lines(self) -> list[str]:
        """What the worker has logged since the last time."""
        lines = self.worker.text().splitlines()
        new, self.seen = lines[self.seen :], len(lines)
        return new


@pytest.fixture(scope="module", params=BROKERS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site a broker for all tests of a module: a worker that a test hurts fails the next ones too."""
    redis_server: RedisServer = request.getfixturevalue("redis_server")
    backend = redis_server.url(DATABASE)
    client = redis_server.client(DATABASE)
    client.flushdb()
    unique = uuid.uuid4().hex[:8]
    queue, exchange = f"queue-{unique}", f"exchange-{unique}"
    broker, connection = backend, None
    if request.param == RABBITMQ:
        rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
        broker = rabbit.url()
        connection = amqp.Connection(f"127.0.0.1:{rabbit.port}", userid="guest", password="guest")  # noqa: S106
        connection.connect()
    directory: Path = tmp_path_factory.mktemp("site")
    config = Config(
        broker=broker,
        result_backend=backend,
        default_queue=queue,
        amqp=AMQPConfig(exchange=exchange, binding_key=queue),
    )
    worker = PythonWorker(
        directory, broker=broker, backend=backend, queue=queue, AMQP_EXCHANGE=exchange, AMQP_BINDING_KEY=queue
    )
    with closing(client), worker:
        channel = connection.channel() if connection is not None else None
        yield Site(request.param, queue, client, Server(config), channel, worker)
        print(worker.process.tail())
    if connection is not None:
        connection.close()
