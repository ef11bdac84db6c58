"""Periodic workflows in real processes: a Server, ``celery beat`` and ``celery worker -B``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from machinery_compat import Config, Server, new_signature
from tests.conftest import Names
from tests.support.processes import Process
from tests.support.python_worker import ROOT, PythonWorker
from tests.support.ticks import Ticks
from tests.support.waiting import wait_for

pytestmark = pytest.mark.redis

APP = "tests.support.periodic_app"
SPEC = "@every 1s"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def numbers(*values: int) -> int:
    return sum(values)


def test_each_kind_of_workflow_is_sent_again_and_again(redis_db: str, names: Names) -> None:
    server = Server(Config(broker=redis_db, result_backend=redis_db, default_queue=names.queue))
    server.register_task("numbers", numbers)
    server.register_task("end", numbers)
    one, two, end = new_signature("numbers", 1), new_signature("numbers", 2), new_signature("end", 10)
    server.register_periodic_task(SPEC, "task", one)
    server.register_periodic_chain(SPEC, "chain", one, two, end)
    server.register_periodic_group(SPEC, "group", 0, one, two)
    server.register_periodic_chord(SPEC, "chord", 0, end, one, two)
    worker = server.new_worker("periodic", 4)
    worker.launch_async()
    ticks = Ticks(redis_db)

    def results() -> Counter[tuple[str, int]]:
        done = [state for state in ticks.states() if state["State"] == "SUCCESS"]
        return Counter((state["TaskName"], state["Results"][0]["Value"]) for state in done)

    def twice() -> bool:
        found = results()
        return found["end", 13] >= 4 and found["numbers", 1] >= 8 and found["numbers", 3] >= 2

    try:
        # In each tick the task, the chain (1, 2 + 1, 10 + 3), the group and the chord (1, 2, 10 + 1 + 2).
        wait_for(twice, 20, lambda: str(results()))
        server.periodic.stop()
    finally:
        worker.quit()
    assert set(results()) == {("numbers", 1), ("numbers", 2), ("numbers", 3), ("end", 13)}


def variables(redis_db: str, names: Names) -> dict[str, str]:
    return {
        "BROKER": redis_db,
        "RESULT_BACKEND": redis_db,
        "DEFAULT_QUEUE": names.queue,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def test_celery_beat_sends_what_servers_have_registered(
    redis_db: str, names: Names, tmp_path: Path, stack: ExitStack
) -> None:
    schedule = tmp_path / "schedule"
    command = [sys.executable, "-m", "celery", "-A", APP, "beat", "-l", "INFO", "-s", schedule]
    beat = Process(command, tmp_path / "beat.log", variables(redis_db, names))
    stack.callback(lambda: print(beat.tail()))
    stack.callback(beat.stop)
    ticks = Ticks(redis_db)
    wait_for(lambda: ticks.states(), 30, beat.tail)
    # The lock is one within the process: a thread beside beat would not be kept from sending by another.
    assert set(ticks.wait(4).values()) == {1}
    assert beat.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_with_beat_inside_sends_once_a_tick(
    redis_db: str, names: Names, tmp_path: Path, stack: ExitStack, pool: str
) -> None:
    worker = PythonWorker(
        tmp_path,
        broker=redis_db,
        backend=redis_db,
        queue=names.queue,
        app=APP,
        pool=pool,
        arguments=("-B", "-s", str(tmp_path / "schedule")),
    )
    stack.callback(lambda: print(worker.process.tail()))
    stack.enter_context(worker)
    ticks = Ticks(redis_db)
    wait_for(lambda: ticks.states(), 30, worker.process.tail)
    # The lock is one within a process, so what the worker's own thread sent would be seen twice.
    assert set(ticks.wait(4).values()) == {1}
    wait_for(lambda: any(state["State"] == "SUCCESS" for state in ticks.states()), 10)


def test_two_servers_share_a_lock_and_one_takes_over_when_the_other_dies(
    redis_db: str, redis_server: object, names: Names, tmp_path: Path, stack: ExitStack
) -> None:
    lock = redis_db.rpartition("/")[0]
    environment = {**variables(redis_db, names), "LOCK": lock, "PROGRAM": names.exchange}
    senders = []
    for number in range(2):
        log = tmp_path / f"{number}.log"
        sender = Process([sys.executable, "-m", APP], log, environment, stdin=-1)
        stack.callback(sender.kill)
        senders.append(sender)
    for sender in senders:
        wait_for(lambda sender=sender: "ready" in sender.tail(), 20, sender.tail)
    ticks = Ticks(redis_db)
    assert set(ticks.wait(4).values()) == {1}
    senders[0].kill()
    assert set(ticks.wait(4).values()) == {1}


def test_a_server_stops_with_its_program(redis_db: str, names: Names, tmp_path: Path) -> None:
    sender = Process([sys.executable, "-m", APP], tmp_path / "log", variables(redis_db, names), stdin=-1)
    ticks = Ticks(redis_db)
    wait_for(lambda: ticks.states(), 20, sender.tail)
    assert sender.popen.stdin is not None
    sender.popen.stdin.close()
    wait_for(lambda: not sender.running(), 10, sender.tail)
    assert sender.popen.returncode == 0
    assert "Traceback" not in sender.tail()
    sent = len(ticks.states())
    time.sleep(1.2)
    assert len(ticks.states()) == sent
