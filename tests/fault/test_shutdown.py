"""How workers end: every task that was sent ends, and none is run twice that did not have to be."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import states
from celery.result import AsyncResult
from redis import Redis

from machinery_compat import Config, Server, new_signature
from machinery_compat.config import AMQPConfig
from machinery_compat.errors import TaskError
from machinery_compat.stopping import CANCELLED
from tests.conftest import Names
from tests.fault.conftest import RABBITMQ, REDIS
from tests.support.processes import Process
from tests.support.python_worker import ROOT, PythonWorker
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for
from tests.support.workers import read_journal

TASKS = "tests.fault.stopping_tasks"
#: As many as a worker with one place reserves beside the task that it runs.
RESERVED = 3
TWICE = (signal.SIGTERM, signal.SIGTERM)
AT_ONCE = (signal.SIGQUIT,)
REDIS_ONLY = pytest.mark.parametrize("place", [REDIS], indirect=True)


@dataclass
class Place:
    """One queue, its results, its workers and their journal."""

    broker: str
    backend: str
    names: Names
    directory: Path
    stack: ExitStack
    rabbit: RabbitServer | None

    def __post_init__(self) -> None:
        self.redis = self.stack.enter_context(Redis.from_url(self.backend))
        self.server = Server(
            Config(
                broker=self.broker,
                result_backend=self.backend,
                default_queue=self.names.queue,
                amqp=AMQPConfig(exchange=self.names.exchange, binding_key=self.names.binding_key),
            )
        )
        self.app = self.server.app

    def worker(self, pool: str = "prefork", concurrency: int = 1, *arguments: str, **options: Any) -> PythonWorker:
        worker = PythonWorker(
            self.directory,
            self.directory / "journal",
            broker=self.broker,
            backend=self.backend,
            queue=self.names.queue,
            pool=pool,
            concurrency=concurrency,
            tasks=TASKS,
            VALUES=str(self.directory / "values"),
            AMQP_EXCHANGE=self.names.exchange,
            AMQP_BINDING_KEY=self.names.binding_key,
            arguments=("--without-mingle", "--without-gossip", *arguments),
            **options,
        )
        self.stack.callback(lambda: print(f"--- {worker.log.name}\n{worker.process.tail()}"))
        self.stack.callback(worker.kill)
        return worker.wait_ready()

    def send(self, name: str, *args: Any) -> AsyncResult:
        return self.app.send_task(name, args)

    def run_until(self, name: str = "hold") -> Held:
        """Sends a task that runs until it is let go."""
        key = len(list(self.directory.glob("gate-*")))
        gate, started = self.directory / f"gate-{key}", self.directory / f"started-{key}"
        gate.with_suffix(".closed").touch()
        return Held(self.send(name, str(started), str(gate)), started, gate)

    def in_queue(self) -> int:
        """How many tasks lie there for anybody to take."""
        if self.rabbit is None:
            return int(self.redis.llen(self.names.queue))
        with self.app.connection_for_read() as connection:
            return int(connection.default_channel.queue_declare(self.names.queue, passive=True).message_count)

    def taken(self) -> int:
        """How many tasks workers have and have not acknowledged."""
        if self.rabbit is not None:
            return self.rabbit.list_queues()[self.names.queue] - self.in_queue()
        return sum(int(self.redis.llen(key)) for key in self.redis.keys(f"{{{self.names.queue}}}:inflight:*"))

    def runs(self) -> Counter[str]:
        return Counter(one.uuid for one in read_journal(self.directory / "journal"))

    def values(self) -> list[int]:
        return [int(line) for line in (self.directory / "values").read_text().split()]


@dataclass
class Held:
    """A task that runs until it is let go."""

    result: AsyncResult
    started: Path
    gate: Path

    @property
    def id(self) -> str:
        return str(self.result.id)

    def wait_running(self) -> int:
        """Returns the process that runs it."""
        return int(wait_for(lambda: self.started.exists() and self.started.read_text(), 20))

    def let_go(self) -> None:
        self.gate.touch()

    def ends(self) -> None:
        assert self.result.get(timeout=20) == str(self.gate)


@pytest.fixture(params=[REDIS, RABBITMQ])
def place(request: pytest.FixtureRequest, redis_db: str, names: Names, tmp_path: Path) -> Iterator[Place]:
    rabbit = request.getfixturevalue("rabbit_server") if request.param == RABBITMQ else None
    with ExitStack() as stack:
        yield Place(rabbit.url() if rabbit else redis_db, redis_db, names, tmp_path, stack, rabbit)


def tell(worker: PythonWorker, *signals: int) -> None:
    """Signals to the main process alone, as a process manager sends them; a second one when the first is understood."""
    for count, number in enumerate(signals, 1):
        os.kill(worker.process.pid, number)
        if count < len(signals):
            wait_for(lambda: "Warm shutdown" in worker.text(), message=worker.text)


def end_of(worker: PythonWorker) -> int:
    """Its exit code, when it has ended."""
    return worker.process.popen.wait(20)


def numbers_behind(place: Place) -> list[AsyncResult]:
    """What waits behind a running task, every second one acknowledged when it begins."""
    return [place.send("number" if n % 2 == 0 else "number_early", n) for n in range(RESERVED)]


# -- warm


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_what_has_not_begun_goes_to_others_before_the_running_task_ends(place: Place, pool: str) -> None:
    running = place.run_until()
    waiting = numbers_behind(place)
    first = place.worker(pool)
    running.wait_running()
    wait_for(lambda: place.in_queue() == 0)

    tell(first, signal.SIGTERM)
    wait_for(lambda: place.in_queue() == RESERVED, message=first.text)
    second = place.worker()

    assert [one.get(timeout=20) for one in waiting] == list(range(RESERVED))
    assert first.process.running()
    running.let_go()
    assert end_of(first) == 0, first.text()
    running.ends()
    assert second.process.running()
    assert place.runs() == {one.id: 1 for one in (running, *waiting)}
    assert place.values() == [n for n in range(RESERVED) if n % 2 == 0]
    assert place.in_queue() == place.taken() == 0


def test_what_a_process_has_been_given_is_run_here_alone(place: Place) -> None:
    first = place.worker()
    (child,) = psutil.Process(first.process.pid).children()
    os.kill(child.pid, signal.SIGSTOP)
    sent = place.send("number", 1)
    wait_for(lambda: f"number[{sent.id}] received" in first.text(), message=first.text)

    tell(first, signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in first.text(), message=first.text)
    os.kill(child.pid, signal.SIGCONT)

    assert end_of(first) == 0, first.text()
    assert sent.get(timeout=1) == 1
    assert place.values() == [1]
    assert place.in_queue() == place.taken() == 0


@REDIS_ONLY
def test_what_waits_for_its_rate_limit_goes_back_too(place: Place) -> None:
    running = place.run_until()
    waiting = [place.send("number_limited", n) for n in range(RESERVED)]
    first = place.worker()
    running.wait_running()
    wait_for(lambda: place.in_queue() == 0)

    tell(first, signal.SIGTERM)
    wait_for(lambda: place.in_queue() == RESERVED, message=first.text)

    running.let_go()
    assert end_of(first) == 0, first.text()
    running.ends()
    assert place.runs() == {running.id: 1}
    assert [one.uuid for one in place.server.broker.get_pending_tasks(place.names.queue)] == [one.id for one in waiting]


def test_quit_gives_back_what_has_not_begun(place: Place, tmp_path: Path) -> None:
    gate, running = threading.Event(), threading.Event()

    def wait_at_gate() -> str:
        running.set()
        return "open" if gate.wait(30) else "closed"

    place.server.register_task("wait_at_gate", wait_at_gate)
    first = place.server.new_worker("embedded", 1)
    held = place.server.send_task(new_signature("wait_at_gate"))
    waiting = [place.send("number", n) for n in range(RESERVED)]
    first.launch_async()
    assert running.wait(20)
    wait_for(lambda: place.in_queue() == 0)

    quitting = threading.Thread(target=first.quit)
    quitting.start()
    wait_for(lambda: place.in_queue() == RESERVED)
    place.worker()

    assert [one.get(timeout=20) for one in waiting] == list(range(RESERVED))
    assert quitting.is_alive()
    gate.set()
    quitting.join(20)
    assert held.get_with_timeout(1) == ["open"]
    assert place.in_queue() == place.taken() == 0


# -- at once


@pytest.mark.parametrize(
    ("place", "pool", "signals"),
    [
        (REDIS, "prefork", TWICE),
        (REDIS, "threads", AT_ONCE),
        (REDIS, "solo", TWICE),
        (RABBITMQ, "prefork", AT_ONCE),
        (RABBITMQ, "threads", TWICE),
        (RABBITMQ, "solo", AT_ONCE),
    ],
    indirect=["place"],
)
def test_an_end_at_once_gives_back_what_runs(place: Place, pool: str, signals: tuple[int, ...]) -> None:
    running = place.run_until()
    waiting = numbers_behind(place)
    first = place.worker(pool)
    running.wait_running()
    wait_for(lambda: place.in_queue() == 0)

    tell(first, *signals)
    code = end_of(first)

    assert code != 0, first.text()
    assert running.result.state == states.STARTED
    assert place.in_queue() == 1 + RESERVED
    running.let_go()
    place.worker(concurrency=2)
    running.ends()
    assert [one.get(timeout=20) for one in waiting] == list(range(RESERVED))
    assert place.runs() == {running.id: 2, **{one.id: 1 for one in waiting}}
    wait_for(lambda: place.in_queue() == place.taken() == 0)


@REDIS_ONLY
def test_a_second_sigterm_ends_a_program_that_launched_a_worker(place: Place, tmp_path: Path) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    sent = place.server.send_task(new_signature("slow", str(started), str(ended), 60.0))
    command = [sys.executable, ROOT / "tests/integration/server_program.py", place.broker, place.names.queue]
    program = Process(command, tmp_path / "log", {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"})
    place.stack.callback(program.kill)
    wait_for(started.exists, 20, program.tail)

    os.kill(program.pid, signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in program.tail(), message=program.tail)
    os.kill(program.pid, signal.SIGTERM)

    assert program.popen.wait(20) == 1, program.tail()
    assert [one.uuid for one in place.server.broker.get_pending_tasks()] == [sent.signature.uuid]
    assert not ended.exists()


@REDIS_ONLY
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_an_end_at_once_fails_what_cannot_go_back(place: Place, pool: str) -> None:
    running = place.run_until("hold_early")
    first = place.worker(pool)
    running.wait_running()
    wait_for(lambda: place.taken() == 0 or pool == "solo")

    tell(first, *AT_ONCE)

    assert end_of(first) != 0
    with pytest.raises(TaskError, match=CANCELLED):
        running.result.get(timeout=1)
    assert place.in_queue() == place.taken() == 0


@REDIS_ONLY
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_soft_shutdown_finishes_what_is_short(place: Place, pool: str) -> None:
    short, long = place.run_until(), place.run_until()
    first = place.worker(pool, 2, app="tests.fault.stopping_apps:soft")
    short.wait_running()
    long.wait_running()

    tell(first, *AT_ONCE)
    wait_for(lambda: "Initiating Soft Shutdown" in first.text())
    short.let_go()

    assert end_of(first) != 0, first.text()
    short.ends()
    assert long.result.state == states.STARTED
    long.let_go()
    place.worker()
    long.ends()
    assert place.runs() == {short.id: 1, long.id: 2}
    assert place.in_queue() == place.taken() == 0


# -- children of the pool


@pytest.mark.parametrize(
    ("place", "limit"),
    [(REDIS, "--max-tasks-per-child=2"), (RABBITMQ, "--max-tasks-per-child=2"), (REDIS, "--max-memory-per-child=1")],
    indirect=["place"],
)
def test_children_that_are_replaced_lose_and_repeat_nothing(place: Place, limit: str) -> None:
    sent = [place.send("number", n) for n in range(20)]

    place.worker("prefork", 2, limit)

    assert [one.get(timeout=30) for one in sent] == list(range(20))
    assert place.runs() == {one.id: 1 for one in sent}
    assert sorted(place.values()) == list(range(20))
    wait_for(lambda: place.in_queue() == place.taken() == 0)


def test_the_task_of_a_killed_child_is_run_again(place: Place) -> None:
    worker = place.worker()
    running = place.run_until()
    waiting = numbers_behind(place)
    child = running.wait_running()
    assert child != worker.process.pid
    running.started.unlink()

    # As the kernel does when memory runs out.
    os.kill(child, signal.SIGKILL)
    assert running.wait_running() != child
    running.let_go()

    running.ends()
    assert [one.get(timeout=20) for one in waiting] == list(range(RESERVED))
    assert place.runs() == {running.id: 2, **{one.id: 1 for one in waiting}}
    wait_for(lambda: place.in_queue() == place.taken() == 0)


# -- a grace time that is too short


@pytest.mark.parametrize(
    ("place", "pool"), [(REDIS, "prefork"), (REDIS, "threads"), (RABBITMQ, "threads")], indirect=["place"]
)
def test_what_outlives_the_grace_time_is_run_by_another(place: Place, pool: str) -> None:
    short, long = place.run_until(), place.run_until()
    first = place.worker(pool, 2, app="tests.fault.stopping_apps:short_lease")
    short.wait_running()
    long.wait_running()

    tell(first, signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in first.text())
    short.let_go()
    short.ends()
    # What ended within the grace time is settled before the grace time ends.
    wait_for(lambda: place.taken() == 1, message=first.text)
    first.kill()
    long.let_go()
    place.worker(app="tests.fault.stopping_apps:short_lease")

    long.ends()
    assert place.runs() == {short.id: 1, long.id: 2}
    wait_for(lambda: place.in_queue() == place.taken() == 0)
