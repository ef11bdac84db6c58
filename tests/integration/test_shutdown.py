"""What becomes of tasks when their worker ends, asked or not."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from celery import states
from celery.result import AsyncResult
from redis import Redis

from machinery_compat import Celery
from tests.integration.apps import LEASE
from tests.integration.conftest import TASKS
from tests.interop.conftest import Fleet
from tests.support.python_worker import PythonWorker
from tests.support.waiting import wait_for

SHORT_LEASE = "tests.integration.apps:short_lease"
#: As many as a worker with one process reserves beside the one that it runs.
RESERVED = 3


@pytest.fixture
def app(fleet: Fleet) -> Celery:
    return fleet.server.app


def all_in(results: list[AsyncResult], *expected: str) -> None:
    wait_for(lambda: all(one.state in expected for one in results), message=lambda: str([one.state for one in results]))


def values(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def times_run(worker: PythonWorker) -> Counter[str]:
    return Counter(one.uuid for one in worker.executions())


def ask_to_end(worker: PythonWorker) -> None:
    """SIGTERM to the main process alone, as a process manager does."""
    os.kill(worker.process.pid, signal.SIGTERM)


def keys_beside(fleet: Fleet) -> list[bytes]:
    with Redis.from_url(fleet.backend) as client:
        return [key for key in client.keys("{*") if not key.endswith(b":dead")]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_warm_shutdown_loses_and_repeats_nothing(fleet: Fleet, app: Celery, tmp_path: Path, pool: str) -> None:
    gate, path = tmp_path / "gate", tmp_path / "values"
    first = fleet.python(tasks=TASKS, pool=pool, concurrency=1, VALUES=str(path))
    running = app.send_task("until", [str(gate)])
    all_in([running], states.STARTED)
    waiting = [app.send_task("number", [n]) for n in range(RESERVED + 5)]
    if pool != "solo":
        all_in(waiting[:RESERVED], states.RECEIVED)

    ask_to_end(first)
    if pool != "solo":
        wait_for(lambda: "Warm shutdown" in first.text(), message=first.text)
    gate.touch()
    assert first.process.popen.wait(20) == 0, first.text()
    done = values(path)

    assert running.get(timeout=1) == str(gate)
    second = fleet.python(tasks=TASKS, concurrency=1, VALUES=str(path))
    assert [one.get(timeout=15) for one in waiting] == list(range(len(waiting)))
    assert values(path) == list(range(len(waiting))), done
    assert set(times_run(second).values()) == {1}
    assert times_run(second)[running.id] == 1
    second.stop()
    assert keys_beside(fleet) == []


def test_reserved_tasks_go_back_while_others_finish(fleet: Fleet, app: Celery, tmp_path: Path) -> None:
    gate, path = tmp_path / "gate", tmp_path / "values"
    first = fleet.python(tasks=TASKS, concurrency=1)
    running = app.send_task("until", [str(gate)])
    all_in([running], states.STARTED)
    waiting = [app.send_task("number", [n]) for n in range(RESERVED)]
    all_in(waiting, states.RECEIVED)

    ask_to_end(first)
    second = fleet.python(tasks=TASKS, concurrency=1, VALUES=str(path))

    assert [one.get(timeout=8) for one in waiting] == list(range(RESERVED))
    assert first.process.running()
    assert values(path) == list(range(RESERVED))
    gate.touch()
    assert first.process.popen.wait(20) == 0, first.text()
    assert running.get(timeout=1) == str(gate)
    second.stop()
    assert times_run(second)[running.id] == 1


@pytest.mark.parametrize("fleet", ["v2-redigo"], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.redis
def test_the_tasks_of_a_killed_worker_are_run_by_another(fleet: Fleet, app: Celery, tmp_path: Path, pool: str) -> None:
    gate, path = tmp_path / "gate", tmp_path / "values"
    first = fleet.python(app=SHORT_LEASE, tasks=TASKS, pool=pool, concurrency=1, VALUES=str(path))
    running = app.send_task("until", [str(gate)])
    all_in([running], states.STARTED)
    waiting = [app.send_task("number", [n]) for n in range(RESERVED + 5)]
    all_in(waiting[:RESERVED], states.RECEIVED)

    first.kill()
    gate.touch()
    second = fleet.python(app=SHORT_LEASE, tasks=TASKS, concurrency=1, VALUES=str(path))

    assert running.get(timeout=20) == str(gate)
    assert [one.get(timeout=20) for one in waiting] == list(range(len(waiting)))
    assert times_run(second) == {running.id: 2, **{one.id: 1 for one in waiting}}
    # What had not been taken may overtake what had; neither changes its order.
    order = values(path)
    assert [n for n in order if n < RESERVED] == list(range(RESERVED))
    second.stop()
    assert keys_beside(fleet) == []


@pytest.mark.parametrize("fleet", ["v2-redigo"], indirect=True)
@pytest.mark.parametrize("pool", ["solo", "prefork"])
@pytest.mark.redis
def test_a_task_longer_than_the_lease_runs_once(fleet: Fleet, app: Celery, tmp_path: Path, pool: str) -> None:
    gate = tmp_path / "gate"
    first = fleet.python(app=SHORT_LEASE, tasks=TASKS, pool=pool, concurrency=1)
    running = app.send_task("until", [str(gate)])
    all_in([running], states.STARTED)
    with Redis.from_url(fleet.backend) as client:
        consumers = f"{{{fleet.names.queue}}}:consumers"
        ((holder, lease),) = client.zrange(consumers, 0, -1, withscores=True)
        second = fleet.python(app=SHORT_LEASE, tasks=TASKS, concurrency=1)

        # The lease in ms; it has run out twice by then, were it not renewed.
        wait_for(lambda: (client.zscore(consumers, holder) or 0) > lease + 2000 * LEASE, 15)

    gate.touch()
    assert running.get(timeout=15) == str(gate)
    assert times_run(second) == {running.id: 1}
    assert first.process.running()
