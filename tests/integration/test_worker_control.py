"""Celery's tools on a worker that shares its broker with Go."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import states
from celery.canvas import chain, chord
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from celery.result import AsyncResult

from machinery_compat import Celery, Server, new_signature
from tests.integration.conftest import TASKS
from tests.interop.conftest import Fleet
from tests.support.python_worker import ROOT
from tests.support.waiting import wait_for

TOOL_SECONDS = 30.0


@pytest.fixture
def app(fleet: Fleet) -> Celery:
    return fleet.server.app


def environment(fleet: Fleet) -> dict[str, str]:
    return {
        "BROKER": fleet.broker,
        "RESULT_BACKEND": fleet.backend,
        "DEFAULT_QUEUE": fleet.names.queue,
        "AMQP_EXCHANGE": fleet.names.exchange,
        "AMQP_BINDING_KEY": fleet.names.binding_key,
    }


def tool(fleet: Fleet, *words: str, answered: bool = True) -> str:
    """What a command of Celery's prints."""
    finished = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "machinery_compat", *words],
        env={**os.environ, **environment(fleet)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
        check=False,
    )
    assert not answered or finished.returncode == 0, f"celery {' '.join(words)}: {finished.stdout}{finished.stderr}"
    return finished.stdout


def started(*results: AsyncResult) -> None:
    wait_for(
        lambda: all(one.state == states.STARTED for one in results), message=lambda: str([r.state for r in results])
    )


def values(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


# -- inspect, control, events


@pytest.mark.go
def test_inspect_and_shutdown(fleet: Fleet, app: Celery, tmp_path: Path) -> None:
    worker = fleet.python(tasks=TASKS, concurrency=1)
    gate = tmp_path / "gate"
    running = app.send_task("until", [str(gate)])
    started(running)
    waiting = app.send_task("until", [str(gate)])
    wait_for(lambda: waiting.state == states.RECEIVED)
    go = fleet.go()

    def inspect(what: str, *options: str) -> str:
        return tool(fleet, "inspect", "-t", "10", "-d", worker.name, *options, what)

    assert "pong" in inspect("ping")
    assert running.id in (active := inspect("active"))
    assert waiting.id not in active
    assert waiting.id in inspect("reserved")
    assert "py_add" in inspect("registered")
    assert '"prefetch_count"' in inspect("stats", "--json")
    assert fleet.names.queue in inspect("active_queues")
    gate.touch()
    assert waiting.get(timeout=10) == str(gate)
    assert app.send_task("go_add", [1, 2]).get(timeout=10) == 3

    # The worker ends without an answer, which the tool complains about.
    tool(fleet, "control", "shutdown", answered=False)

    assert worker.process.popen.wait(20) == 0
    assert go.process.running()
    assert app.send_task("go_add", [1, 2]).get(timeout=10) == 3


@contextmanager
def captured(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """The events that workers send, as they come."""
    events: list[dict[str, Any]] = []
    stop = threading.Event()
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": events.append})

        def capture() -> None:
            while not stop.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.2, wakeup=False)
                except OSError:
                    continue

        thread = threading.Thread(target=capture, daemon=True)
        thread.start()
        try:
            yield events
        finally:
            stop.set()
            thread.join(10)


def test_events(fleet: Fleet, app: Celery) -> None:
    fleet.python(arguments=("-E",))
    with captured(app) as events:
        wait_for(lambda: any(one["type"] == "worker-heartbeat" for one in events), 15)
        good, bad = app.send_task("py_add", [1, 1]), app.send_task("py_fail", ["boom"])

        def of(result: AsyncResult) -> list[str]:
            return [one["type"] for one in events if one.get("uuid") == result.id]

        wait_for(lambda: len(of(good)) >= 3 and len(of(bad)) >= 3, message=lambda: str(events))
    assert of(good) == ["task-received", "task-started", "task-succeeded"]
    assert of(bad) == ["task-received", "task-started", "task-failed"]
    received = next(one for one in events if one.get("uuid") == good.id)
    assert (received["name"], received["args"]) == ("py_add", "[1, 1]")


def test_a_rate_limit(fleet: Fleet, app: Celery) -> None:
    fleet.python(tasks=TASKS)
    reply = app.control.rate_limit("timed", "5/s", reply=True, timeout=5, limit=1)
    assert "new rate limit set successfully" in str(reply)

    results = [app.send_task("timed") for _ in range(10)]
    times = sorted(one.get(timeout=15) for one in results)

    # Of the 1.8 s that they take the first one may be late.
    assert times[-1] - times[0] >= 1


@pytest.mark.parametrize("when", ["reserved", "delayed"])
def test_revoke(fleet: Fleet, app: Celery, tmp_path: Path, when: str) -> None:
    worker = fleet.python(tasks=TASKS, concurrency=1)
    gate = tmp_path / "gate"
    running = app.send_task("until", [str(gate)])
    started(running)
    result = app.send_task("py_add", [1, 1], countdown=0.5 if when == "delayed" else None)

    app.control.revoke(result.id, reply=True, timeout=5, limit=1)
    gate.touch()

    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
    wait_for(lambda: f"Discarding revoked task: py_add[{result.id}]" in worker.text(), message=worker.text)
    assert result.id not in {one.uuid for one in worker.executions()}


def test_revoke_ends_a_running_task(fleet: Fleet, app: Celery, tmp_path: Path) -> None:
    worker = fleet.python(tasks=TASKS, concurrency=1)
    running = app.send_task("until", [str(tmp_path / "never")])
    started(running)

    app.control.revoke(running.id, terminate=True, signal="SIGKILL")

    with pytest.raises(TaskRevokedError):
        running.get(timeout=15)
    assert app.send_task("py_add", [1, 1]).get(timeout=15) == 2
    assert [one.uuid for one in worker.executions()].count(running.id) == 1


def test_time_limits(fleet: Fleet, app: Celery, tmp_path: Path) -> None:
    fleet.python(tasks=TASKS)
    never = str(tmp_path / "never")

    soft = app.send_task("until", [never], soft_time_limit=1)
    hard = app.send_task("until", [never], time_limit=1)

    with pytest.raises(SoftTimeLimitExceeded):
        soft.get(timeout=15)
    with pytest.raises(TimeLimitExceeded):
        hard.get(timeout=15)
    assert app.send_task("py_add", [1, 1]).get(timeout=15) == 2


# -- queues, times, priorities


def test_several_queues(fleet: Fleet, app: Celery) -> None:
    queue = fleet.names.queue
    fleet.python(arguments=("-Q", f"{queue}-a,{queue}-b"))

    sent = [app.send_task("py_add", [n, 1], queue=f"{queue}-{'ab'[n % 2]}") for n in range(6)]

    assert [one.get(timeout=15) for one in sent] == [n + 1 for n in range(6)]
    by_key = fleet.server.send_task(new_signature("py_add", 5, 5, routing_key=f"{queue}-b"))
    assert by_key.get_with_timeout(15) == [10]


def test_eta_and_countdown(fleet: Fleet, app: Celery) -> None:
    fleet.python(tasks=TASKS)
    due = datetime.now(timezone.utc) + timedelta(seconds=1)

    by_countdown = app.send_task("timed", countdown=1)
    by_eta = app.send_task("timed", eta=due)
    long_ago = app.send_task("timed", eta=due - timedelta(days=1))

    assert long_ago.get(timeout=15) < due.timestamp()
    for one in (by_eta, by_countdown):
        assert 0 <= one.get(timeout=15) - due.timestamp() < 3


def test_a_task_may_put_its_message_back_as_often_as_it_likes(fleet: Fleet, app: Celery) -> None:
    """More often than a message may lose its workers."""
    fleet.python(tasks=TASKS, concurrency=1)

    result = app.send_task("hesitant", [8])

    assert result.get(timeout=20) == [False] + [True] * 8


@pytest.mark.parametrize("follows", ["a chain", "a chord"])
def test_what_follows_a_success_is_sent_without_running_it_again(fleet: Fleet, app: Celery, follows: str) -> None:
    """With ``worker_deduplicate_successful_tasks``: the worker has died between a success and what follows it."""
    fleet.python(app="tests.integration.apps:deduplicating", tasks=TASKS, concurrency=1)
    first, then = app.signature("ended_before", [3]), app.signature("doubled")

    canvas, outcome = (chain(first, then), 6) if follows == "a chain" else (chord([first, first], then), [3] * 4)

    result = canvas.apply_async()
    assert result.get(timeout=20) == outcome
    ran = Counter(one.uuid for one in fleet.executions())
    assert set(ran.values()) == {1}
    assert len(ran) == (1 if follows == "a chain" else 2)


def test_expires(fleet: Fleet, app: Celery, tmp_path: Path) -> None:
    worker = fleet.python(tasks=TASKS, concurrency=1)
    gate = tmp_path / "gate"
    started(running := app.send_task("until", [str(gate)]))
    expiring = app.send_task("py_add", [1, 1], expires=0.2)
    lasting = app.send_task("py_add", [1, 1], expires=60)
    expiry = datetime.now(timezone.utc) + timedelta(seconds=0.3)
    wait_for(lambda: datetime.now(timezone.utc) > expiry)

    gate.touch()

    assert running.get(timeout=15) == str(gate)
    assert lasting.get(timeout=15) == 2
    with pytest.raises(TaskRevokedError):
        expiring.get(timeout=15)
    assert expiring.id not in {one.uuid for one in worker.executions()}


def test_higher_priorities_first(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "values"
    server = fleet.server
    if not fleet.broker.startswith("redis"):
        config = fleet.config()
        config.amqp_settings.queue_declare_args = {"x-max-priority": 10}
        server = Server(config)
    priorities = [0, 3, 0, 9, 3, 9, 1]
    expected = [n for n, _ in sorted(enumerate(priorities), key=lambda pair: -pair[1])]
    results = [
        server.app.send_task("number", [n], priority=priority)
        if n % 2
        else server.send_task(new_signature("number", n, priority=priority))
        for n, priority in enumerate(priorities)
    ]
    assert len(results) == len(priorities)

    fleet.python(
        tasks=TASKS, pool="solo", VALUES=str(path), AMQP_QUEUE_DECLARE_ARGS="x-max-priority:10", AMQP_PREFETCH_COUNT="1"
    )

    wait_for(lambda: len(values(path)) == len(priorities), 15, lambda: str(values(path)))
    assert values(path) == expected


# -- pools


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork"])
def test_each_pool_runs_tasks(fleet: Fleet, app: Celery, pool: str) -> None:
    worker = fleet.python(tasks=TASKS, pool=pool)

    pid, parent = app.send_task("where").get(timeout=15)
    sums = [app.send_task("py_add", [n, n]) for n in range(20)]

    assert (pid if pool != "prefork" else parent) == worker.process.pid
    assert [one.get(timeout=15) for one in sums] == [2 * n for n in range(20)]
    with pytest.raises(ValueError, match="boom"):
        app.send_task("py_fail", ["boom"]).get(timeout=15)
