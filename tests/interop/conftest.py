"""Fixtures for tests in which Go and Python share a queue."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import Config, Server
from machinery_compat.config import AMQPConfig
from machinery_compat.log import logger
from tests.conftest import GoClientFactory, GoWorkerFactory, Names
from tests.support.golang import AMQP_FLAVORS, REDIS_FLAVORS, GoClient, GoWorker
from tests.support.python_worker import PythonWorker
from tests.support.workers import Execution, read_journal

FLAVORS = [
    *(pytest.param(flavor, marks=pytest.mark.redis) for flavor in REDIS_FLAVORS),
    *(pytest.param(flavor, marks=[pytest.mark.redis, pytest.mark.rabbitmq]) for flavor in AMQP_FLAVORS),
]
#: One flavor for each broker, where the versions of Machinery make no difference.
BROKERS = [FLAVORS[0], FLAVORS[len(REDIS_FLAVORS)]]


@dataclass
class Fleet:
    """One queue with its broker and results, and who works on it."""

    flavor: str
    broker: str
    backend: str
    names: Names
    directory: Path
    stack: ExitStack
    start_go: GoWorkerFactory
    start_client: GoClientFactory
    #: Where workers count attempts, on Redis; by default with the results.
    counter: str = ""

    def __post_init__(self) -> None:
        self.journal = self.directory / "journal"
        self._server: Server | None = None
        self._client: GoClient | None = None

    def options(self) -> dict[str, Any]:
        """The flags of the Go programs."""
        return {
            "flavor": self.flavor,
            "broker": self.broker,
            "backend": self.backend,
            "queue": self.names.queue,
            "exchange": self.names.exchange,
            "binding_key": self.names.binding_key,
            "counter": self.counter or self.backend,
        }

    def go(self, **options: Any) -> GoWorker:
        """Starts a Go worker on the queue."""
        return self.start_go(journal=self.journal, **{**self.options(), **options})

    def python(self, **options: Any) -> PythonWorker:
        """Starts a Python worker on the queue, as a user would."""
        options = {"AMQP_EXCHANGE": self.names.exchange, "AMQP_BINDING_KEY": self.names.binding_key, **options}
        worker = PythonWorker(
            self.directory,
            self.journal,
            broker=self.broker,
            backend=self.backend,
            queue=options.pop("queue", self.names.queue),
            counter=self.counter or self.backend,
            **options,
        )
        self.stack.callback(lambda: print(f"--- {worker.log.name}\n{worker.process.tail()}"))
        return self.stack.enter_context(worker)

    def executions(self) -> list[Execution]:
        """What the workers of both languages have begun, in that order."""
        return read_journal(self.journal)

    @property
    def client(self) -> GoClient:
        """A Go program that sends and reads."""
        if self._client is None:
            self._client = self.start_client(**self.options())
        return self._client

    @property
    def server(self) -> Server:
        """A Python Server that sends and reads."""
        if self._server is None:
            self._server = Server(self.config())
        return self._server

    def config(self, **options: Any) -> Config:
        return Config(
            broker=self.broker,
            result_backend=self.backend,
            default_queue=self.names.queue,
            amqp=AMQPConfig(exchange=self.names.exchange, binding_key=self.names.binding_key),
            **options,
        )


@pytest.fixture(params=FLAVORS)
def fleet(
    request: pytest.FixtureRequest,
    redis_db: str,
    names: Names,
    tmp_path: Path,
    go_worker: GoWorkerFactory,
    go_client: GoClientFactory,
) -> Iterator[Fleet]:
    """A queue of its own, once for each version and driver of Go's Machinery."""
    broker = redis_db
    if request.param in AMQP_FLAVORS:
        broker = request.getfixturevalue("rabbit_server").url()
    with ExitStack() as stack:
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.DEBUG)
        yield Fleet(request.param, broker, redis_db, names, tmp_path, stack, go_worker, go_client)
