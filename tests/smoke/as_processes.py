"""The leaves of pytest-celery's tree of fixtures, as processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.smoke.machines import ServerMachine, WorkerMachine
from tests.smoke.vendors import MachineryRabbitMQ, MachineryRedis, MachineryWorker
from tests.support.services import RabbitServer, RedisServer


def _redis(name: str) -> Iterator[MachineryRedis]:
    with RedisServer(appendonly=True) as server:
        yield MachineryRedis(ServerMachine(name, server))


@pytest.fixture
def default_redis_broker() -> Iterator[MachineryRedis]:
    yield from _redis("redis-broker")


@pytest.fixture
def default_redis_backend() -> Iterator[MachineryRedis]:
    yield from _redis("redis-backend")


@pytest.fixture
def default_rabbitmq_broker(rabbit_server: RabbitServer) -> MachineryRabbitMQ:
    """The one of all tests, which takes long to start; a test that restarts it leaves it running."""
    return MachineryRabbitMQ(ServerMachine("rabbitmq-broker", rabbit_server))


@pytest.fixture
def default_worker_container(
    default_worker_command: list[str], default_worker_env: dict[str, str], tmp_path: Path
) -> Iterator[MachineryWorker]:
    with closing(WorkerMachine("worker", default_worker_command, default_worker_env, tmp_path)) as machine:
        yield MachineryWorker(machine)
