"""Fixtures that give tests real servers and the Go side."""

from __future__ import annotations

import itertools
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol, TypeVar

import pytest
from hypothesis import settings

from tests.smoke.runtime import RUNTIMES, VARIABLE, runtime
from tests.support import golang
from tests.support.golang import GoClient, GoWorker
from tests.support.processes import Unavailable
from tests.support.services import (
    MemcachedServer,
    MongoServer,
    MotoServer,
    PubSubServer,
    RabbitServer,
    RedisServer,
    Server,
    pubsub_emulator,
)

REDIS_DATABASES = 16

# How long an example takes says more of the machine than of the code.
settings.register_profile("here", deadline=None)
# CI repeats itself: what it finds can be found again, and a change is not blamed for old luck.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


def _missing(error: Unavailable) -> NoReturn:
    """On a developer's machine tests of a missing server are skipped; CI must have it."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


def pytest_configure() -> None:
    """Let SIGTERM, as from ``timeout``, end the session in order, so that no server outlives it."""
    owner = os.getpid()

    def terminate(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == owner:
            pytest.exit("terminated", returncode=128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, terminate)


def pytest_report_header() -> str:
    return f"smoke tests: servers and workers run as {RUNTIMES[runtime()]} ({VARIABLE})"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the Go programs before the first test, whose time limit a cold build would exceed."""
    if session.config.option.collectonly:
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    programs = [golang.WORKER, golang.CLIENT] if {"go_worker", "go_client", "pair"} & used else []
    if "example" in used:
        programs += [golang.EXAMPLES[flavor] for flavor in golang.REDIS_FLAVORS]
    if "pubsub_server" in used and pubsub_emulator() is None:
        programs.append(golang.PUBSUB)
    try:
        for program in programs:
            golang.build(program)
        if "fleet_program" in used:
            golang.build(".", golang.BROKERS)
    except Unavailable:
        return  # each test that needs Go meets the same error and tells it


AnyServer = TypeVar("AnyServer", bound=Server)


def _started(server: AnyServer) -> Iterator[AnyServer]:
    try:
        server.start()
    except Unavailable as error:
        server.close()
        _missing(error)
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis for all tests; one that a test stops or freezes is the test's own."""
    yield from _started(RedisServer())


_databases = itertools.cycle(range(REDIS_DATABASES))


@pytest.fixture
def redis_db(redis_server: RedisServer) -> str:
    """The URL of an empty database; numbers rotate, so that a late write of the test before stays out."""
    db = next(_databases)
    client = redis_server.client(db)
    client.flushdb()
    client.close()
    return redis_server.url(db)


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """A RabbitMQ for all tests, kept apart by the names of ``names``."""
    yield from _started(RabbitServer())


@pytest.fixture(scope="session")
def memcached_server() -> Iterator[Server]:
    """A Memcached for all tests."""
    yield from _started(MemcachedServer())


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[Server]:
    """A MongoDB for all tests."""
    yield from _started(MongoServer())


@pytest.fixture(scope="session")
def moto_server() -> Iterator[MotoServer]:
    """Amazon's services for all tests, kept apart by the names of ``names``."""
    yield from _started(MotoServer())


@pytest.fixture(scope="session")
def pubsub_server() -> Iterator[Server]:
    """A Pub/Sub for all tests, kept apart by the names of ``names``."""
    yield from _started(PubSubServer())


@dataclass(frozen=True)
class Names:
    """Names that no other test uses."""

    queue: str
    exchange: str
    binding_key: str


@pytest.fixture
def names() -> Names:
    unique = uuid.uuid4().hex[:8]
    return Names(f"queue-{unique}", f"exchange-{unique}", f"key-{unique}")


class GoWorkerFactory(Protocol):
    def __call__(self, *, journal: Path | None = None, **connection: object) -> GoWorker: ...


class GoClientFactory(Protocol):
    def __call__(self, **connection: object) -> GoClient: ...


@contextmanager
def go_workers(directory: Path) -> Iterator[GoWorkerFactory]:
    """Starts Go workers with the flags of ``golang.Connection``.

    They are killed at the end: on Redis a graceful end takes a second or two.
    """
    with ExitStack() as workers:

        def start(*, journal: Path | None = None, **connection: object) -> GoWorker:
            try:
                worker = GoWorker(directory, journal, **connection)
            except Unavailable as error:
                _missing(error)
            workers.callback(_show, worker.log)
            workers.callback(worker.kill)
            return worker.wait_ready()

        yield start


@contextmanager
def go_clients(directory: Path) -> Iterator[GoClientFactory]:
    """Starts Go clients with the flags of ``golang.Connection``."""
    with ExitStack() as clients:

        def start(**connection: object) -> GoClient:
            try:
                client = GoClient(directory, **connection)
            except Unavailable as error:
                _missing(error)
            clients.callback(_show, client.log)
            return clients.enter_context(client)

        yield start


@pytest.fixture
def go_worker(tmp_path: Path) -> Iterator[GoWorkerFactory]:
    """Starts Go workers, which end with the test."""
    with go_workers(tmp_path) as start:
        yield start


@pytest.fixture
def go_client(tmp_path: Path) -> Iterator[GoClientFactory]:
    """Starts Go clients, which end with the test."""
    with go_clients(tmp_path) as start:
        yield start


def _show(log: Path) -> None:
    """Print what a Go program logged; pytest shows it when the test failed."""
    print(f"--- {log.name}\n{log.read_text(errors='replace')}")
