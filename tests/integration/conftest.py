"""Fixtures of the integration tests: one broker with Python workers, and Go beside them where it matters."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from machinery_compat import Config, Server
from machinery_compat.log import logger
from tests.conftest import GoClientFactory, GoWorkerFactory, Names
from tests.interop.conftest import Fleet
from tests.support.golang import AMQP_FLAVORS

TASKS = "tests.integration.tasks"
#: The queue of the fixture ``server``.
QUEUE = "queue"
REDIS = pytest.param("v2-redigo", marks=pytest.mark.redis, id="redis")
RABBIT = pytest.param("v2-amqp", marks=[pytest.mark.redis, pytest.mark.rabbitmq], id="rabbitmq")


@pytest.fixture(params=[REDIS, RABBIT])
def fleet(
    request: pytest.FixtureRequest,
    redis_db: str,
    names: Names,
    tmp_path: Path,
    go_worker: GoWorkerFactory,
    go_client: GoClientFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Fleet]:
    """A queue of its own, once on each broker; results are on Redis."""
    broker = redis_db
    if request.param in AMQP_FLAVORS:
        broker = request.getfixturevalue("rabbit_server").url()
    # What the command line tools of a developer's shell would otherwise read.
    for name in ("BROKER", "RESULT_BACKEND", "DEFAULT_QUEUE", "MACHINERY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.DEBUG)
        yield Fleet(request.param, broker, redis_db, names, tmp_path, stack, go_worker, go_client)


@pytest.fixture
def server(redis_db: str) -> Server:
    """A Server on Redis without a worker."""
    return Server(Config(broker=redis_db, result_backend=redis_db, default_queue=QUEUE))


@pytest.fixture
def store(redis_db: str) -> Iterator[Redis]:
    """What lies in the database of ``server``."""
    client = Redis.from_url(redis_db)
    yield client
    client.close()
