"""The life of a worker, through pytest-celery: start, stop, crash, and a broker that goes away."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from celery.result import AsyncResult
from pytest_celery import RESULT_TIMEOUT, CeleryTestSetup, CeleryTestWorker
from redis import Redis

from tests.support.waiting import wait_for


@dataclass
class Held:
    """A task that runs until it is let go."""

    result: AsyncResult
    key: str
    client: Redis

    def begun(self) -> int:
        return int(self.client.get(f"begun:{self.key}") or 0)

    def wait_running(self) -> None:
        wait_for(self.begun, RESULT_TIMEOUT)

    def let_go(self) -> None:
        self.client.set(f"gate:{self.key}", 1)


@pytest.fixture
def worker(celery_setup: CeleryTestSetup) -> CeleryTestWorker:
    worker = celery_setup.worker
    assert worker is not None
    worker.wait_for_log(" ready.")
    return worker


@pytest.fixture
def held(celery_setup: CeleryTestSetup, worker: CeleryTestWorker) -> Held:
    """A running task."""
    key = uuid.uuid4().hex
    client: Any = celery_setup.backend.container.client
    held = Held(celery_setup.app.send_task("smoke.hold", [key]), key, client)
    held.wait_running()
    return held


def add(setup: CeleryTestSetup) -> None:
    """A task runs; on a connection of its own, since a container's port may have changed."""
    with setup.app.connection_for_write(setup.broker.config()["host_url"]) as connection:
        result = setup.app.send_task("smoke.add", [1, 2], connection=connection)
    assert result.get(timeout=RESULT_TIMEOUT) == 3


def wait_ended(worker: CeleryTestWorker) -> None:
    def ended() -> bool:
        worker.container.reload()
        return worker.container.status == "exited"

    wait_for(ended, RESULT_TIMEOUT, worker.logs)


def test_it_starts_and_runs_tasks(celery_setup: CeleryTestSetup, worker: CeleryTestWorker) -> None:
    assert celery_setup.ready(control=True, docker=True)
    add(celery_setup)


def test_a_warm_stop_finishes_what_runs(celery_setup: CeleryTestSetup, worker: CeleryTestWorker, held: Held) -> None:
    worker.kill("SIGTERM")
    worker.wait_for_log("Warm shutdown")
    held.let_go()

    wait_ended(worker)
    assert held.result.get(timeout=RESULT_TIMEOUT) == 1
    worker.restart()
    add(celery_setup)
    assert held.begun() == 1


@pytest.mark.parametrize("signal", ["SIGQUIT", "SIGKILL"])
def test_what_runs_at_a_sudden_end_is_run_again(worker: CeleryTestWorker, held: Held, signal: str) -> None:
    worker.kill(signal)

    wait_ended(worker)
    held.let_go()
    worker.restart()
    assert held.result.get(timeout=RESULT_TIMEOUT) == 2


def test_it_survives_its_broker(celery_setup: CeleryTestSetup, worker: CeleryTestWorker, held: Held) -> None:
    waiting = celery_setup.app.send_task("smoke.add", [20, 22])

    celery_setup.broker.restart()
    held.let_go()

    assert held.result.get(timeout=RESULT_TIMEOUT) >= 1
    assert waiting.get(timeout=RESULT_TIMEOUT) == 42
    add(celery_setup)
    assert worker.container.status == "running"
