"""Workers on Redis that die, freeze or cannot renew their lease: nothing is lost, and only what must is run again."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import states
from celery.result import AsyncResult
from redis import Redis

from machinery_compat import Config, Server, new_signature
from tests.conftest import Names
from tests.fault.apps import LEASE
from tests.support.python_worker import PythonWorker
from tests.support.services import RedisServer, valkey_binary
from tests.support.waiting import wait_for
from tests.support.workers import Worker, read_journal

pytestmark = pytest.mark.redis

TASKS = "tests.fault.tasks,tests.integration.tasks"
MEGABYTE = 1 << 20


@dataclass
class Place:
    """One queue on Redis, and the workers on it."""

    url: str
    queue: str
    directory: Path
    redis: Redis
    server: Server
    stack: ExitStack

    def worker(self, pool: str = "prefork", concurrency: int = 1, **variables: str) -> PythonWorker:
        """A worker that consumes."""
        return self.stack.enter_context(self.start(pool, concurrency, **variables))

    def start(self, pool: str, concurrency: int = 1, **variables: str) -> PythonWorker:
        """A worker that is starting."""
        worker = PythonWorker(
            self.directory,
            self.journal,
            broker=self.url,
            backend=self.url,
            queue=self.queue,
            pool=pool,
            concurrency=concurrency,
            app="tests.fault.apps:app",
            tasks=TASKS,
            VALUES=str(self.directory / "values"),
            **variables,
        )
        self.stack.callback(lambda: print(f"--- {worker.log.name}\n{worker.process.tail()}"))
        self.stack.callback(worker.kill)
        return worker

    @property
    def journal(self) -> Path:
        return self.directory / "journal"

    def send(self, name: str, *args: Any, **options: Any) -> AsyncResult:
        return self.server.app.send_task(name, args, **options)

    def times_run(self, result: AsyncResult) -> int:
        return Counter(one.uuid for one in read_journal(self.journal))[result.id]

    def values(self) -> list[int]:
        path = self.directory / "values"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def begun(self, name: str) -> list[int]:
        """The processes in which a held task of this name has begun."""
        return [int(path.suffix[1:]) for path in self.directory.glob(f"{name}.*")]

    def open_gate(self) -> None:
        (self.directory / "open").touch()

    def keys(self) -> list[str]:
        """The keys beside the queue, which go with the consumers."""
        return sorted(key.decode() for key in self.redis.keys(f"*{self.queue}*"))

    def dead(self) -> list[dict[str, Any]]:
        entries = [json.loads(entry) for entry in self.redis.lrange(f"{self.queue}:dead", 0, -1)]
        return [{name: value for name, value in entry.items() if name != "time"} for entry in entries]


@pytest.fixture
def place(redis_db: str, names: Names, tmp_path: Path) -> Iterator[Place]:
    with place_on(redis_db, names, tmp_path) as place:
        yield place


@pytest.fixture
def place_on_valkey(names: Names, tmp_path: Path) -> Iterator[Place]:
    with RedisServer(binary=valkey_binary()) as server, place_on(server.url(), names, tmp_path) as place:
        assert "valkey_version" in place.redis.info("server")
        yield place


@contextmanager
def place_on(url: str, names: Names, tmp_path: Path) -> Iterator[Place]:
    config = Config(broker=url, result_backend=url, default_queue=names.queue)
    with closing(Redis.from_url(url)) as client, ExitStack() as stack:
        place = Place(url, names.queue, tmp_path, client, Server(config), stack)
        # What a killed worker's processes still run ends with the test.
        stack.callback(place.open_gate)
        yield place


def ended(results: list[AsyncResult], timeout: float = 20) -> None:
    wait_for(
        lambda: all(one.state in states.READY_STATES for one in results),
        timeout,
        lambda: str([one.state for one in results]),
    )


def log_has(worker: Worker, text: str) -> None:
    wait_for(lambda: text in worker.text(), 15, worker.text)


@pytest.mark.parametrize("on", ["place", "place_on_valkey"])
def test_all_that_a_killed_worker_had_ends_on_another_one(on: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(on)
    first = place.worker(concurrency=6)
    running = [place.send("held", f"held{n}", str(place.directory)) for n in range(6)]
    wait_for(lambda: all(place.begun(f"held{n}") for n in range(6)))
    reserved = [place.send("number", n) for n in range(6)]
    wait_for(lambda: all(one.state == states.RECEIVED for one in reserved))

    os.kill(first.process.pid, signal.SIGKILL)
    second = place.worker(concurrency=2)
    place.open_gate()

    assert [one.get(timeout=LEASE + 15) for one in running] == [f"held{n}" for n in range(6)]
    assert [one.get(timeout=10) for one in reserved] == list(range(6))
    assert [place.times_run(one) for one in running] == [2] * 6
    assert [place.times_run(one) for one in reserved] == [1] * 6
    second.stop()
    assert place.keys() == []


def test_tasks_that_kill_their_process_are_given_up(place: Place) -> None:
    reasons = {"exit": "exitcode 3", "kill": "signal 9", "sys.exit": "SystemExit('enough')"}
    worker = place.worker(concurrency=len(reasons), REDELIVERY_LIMIT="1")
    told = {how: new_signature("py_concat_error") for how in reasons}
    poison = {how: new_signature("killer", how, on_error=[told[how]]) for how in reasons}
    for signature in poison.values():
        place.server.send_task(signature)
    others = [place.send("number", n) for n in range(5)]

    ended([place.server.app.AsyncResult(one.uuid) for one in told.values()])

    for how, why in reasons.items():
        state, follower = place.server.backend.task_states([poison[how].uuid, told[how].uuid])
        assert state.state == "FAILURE"
        assert "given up after 2 runs" in state.error
        assert why in state.error
        assert follower.results[0].value == state.error
        entry = {"reason": state.error, "queue": place.queue, "body": poison[how].encode().decode() + " "}
        # The task is failed first.
        wait_for(lambda entry=entry: entry in place.dead())
    assert sorted(one.get(timeout=15) for one in others) == list(range(5))
    assert worker.process.running()
    worker.stop()
    assert place.keys() == [f"{place.queue}:dead"]


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_task_cannot_end_a_worker_whose_process_it_shares(place: Place, pool: str) -> None:
    worker = place.worker(pool)

    for how, what in {"sys.exit": "SystemExit('enough')", "interrupt": "KeyboardInterrupt()"}.items():
        failed = place.send("killer", how)
        assert str(failed.get(timeout=10, propagate=False)) == f"the task raised {what}"
        assert place.times_run(failed) == 1

    assert place.send("number", 1).get(timeout=10) == 1
    assert worker.process.running()
    assert place.dead() == []


def test_a_task_that_kills_its_whole_worker_is_given_up(place: Place) -> None:
    poison = place.send("killer", "kill")
    others = [place.send("number", n) for n in range(3)]
    for _ in range(2):
        victim = place.start("threads", REDELIVERY_LIMIT="1")
        assert victim.process.popen.wait(15) == -signal.SIGKILL

    last = place.worker("threads", REDELIVERY_LIMIT="1")

    assert "given up after 2 runs" in str(poison.get(timeout=20, propagate=False))
    assert [one.get(timeout=10) for one in others] == list(range(3))
    assert place.times_run(poison) == 2
    (entry,) = place.dead()
    assert "the worker went away" in entry["reason"]
    last.stop()
    assert place.keys() == [f"{place.queue}:dead"]


def test_a_task_that_keeps_the_interpreter_to_itself_runs_once(place: Place) -> None:
    first = place.worker("solo")
    started = place.directory / "started"
    renewed_for(place, LEASE)
    hog = place.send("hog", str(started), 2.5 * LEASE)
    wait_for(started.exists)
    second = place.worker()

    assert hog.get(timeout=20) == str(started)

    assert place.times_run(hog) == 1
    assert "put back" not in second.text()
    assert "was silent" not in first.text()


def test_a_task_of_ten_times_the_lease_runs_once(place: Place) -> None:
    first = place.worker()
    long = place.send("held", "long", str(place.directory))
    wait_for(lambda: place.begun("long"))
    second = place.worker()

    renewed_for(place, 10 * LEASE)
    place.open_gate()

    assert long.get(timeout=10) == "long"
    assert place.times_run(long) == 1
    assert "put back" not in first.text() + second.text()


def renewed_for(place: Place, seconds: float) -> None:
    """Returns when every consumer has renewed its lease for that long."""
    consumers = f"{{{place.queue}}}:consumers"
    for holder, lease in place.redis.zrange(consumers, 0, -1, withscores=True):
        until = lease + 1000 * seconds
        wait_for(lambda: (place.redis.zscore(consumers, holder) or 0) > until, seconds + 15)  # noqa: B023


def test_the_process_that_renews_ends_with_a_killed_worker(place: Place) -> None:
    worker = place.worker("threads")
    (keeper,) = psutil.Process(worker.process.pid).children()

    os.kill(worker.process.pid, signal.SIGKILL)

    # Nobody waits for it but the system.
    wait_for(lambda: not keeper.is_running() or keeper.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_frozen_worker_that_thaws_changes_nothing(place: Place, pool: str) -> None:
    first = place.worker(pool)
    follower = new_signature("number", 1)
    follower.immutable = True
    held = new_signature("held", "held", str(place.directory), on_success=[follower])
    held.immutable = True
    result = place.server.send_task(held)
    wait_for(lambda: place.begun("held"))
    reserved = [place.send("number", n) for n in (2, 3)]
    if pool != "solo":
        wait_for(lambda: all(one.state == states.RECEIVED for one in reserved))

    freeze(first, signal.SIGSTOP, alone=pool != "prefork")
    second = place.worker()
    wait_for(lambda: len(place.begun("held")) == 2, 15)
    place.open_gate()
    assert result.get_with_timeout(15, 0.01) == ["held"]
    ended(reserved)
    stored = place.redis.get(held.uuid)
    freeze(first, signal.SIGCONT, alone=pool != "prefork")

    log_has(first, "another worker has been given it since its run number 1 began here")
    assert place.redis.get(held.uuid) == stored
    log_has(first, "was silent for longer than its lease")
    # The end of the last one too: asked to stop, its process would be killed within it, and it would run again.
    ended([place.server.app.AsyncResult(follower.uuid)])
    assert sorted(place.values()) == [1, 2, 3]
    assert [place.times_run(one) for one in reserved] == [1, 1]
    second.stop()
    # It works on under a lease of its own.
    assert place.send("number", 4).get(timeout=15) == 4
    assert sorted(place.values()) == [1, 2, 3, 4]
    first.stop()
    assert place.keys() == []


def freeze(worker: PythonWorker, number: int, alone: bool) -> None:
    """Sends a signal to a worker's main process alone, or to its whole group."""
    (os.kill if alone else os.killpg)(worker.process.pid, number)


def test_many_delayed_tasks_wait_at_the_broker(place: Place) -> None:
    worker = place.worker()
    assert place.send("number", 0).get(timeout=10) == 0
    process = psutil.Process(worker.process.pid)
    idle = process.memory_info().rss
    later = new_signature("number", 1, eta=datetime.now(timezone.utc) + timedelta(days=1))
    body = later.encode().decode()
    due = (later.eta_ns or 0) + 1
    with place.redis.pipeline(transaction=False) as pipe:
        for first in range(0, 100_000, 5000):
            pipe.zadd(
                "delayed_tasks", {body.replace(later.uuid, f"task_{n}"): due + n for n in range(first, first + 5000)}
            )
            pipe.execute()
    looks = scripts_run(place)

    soon = place.send("number", 7, countdown=1)
    assert soon.get(timeout=15) == 7
    wait_for(lambda: scripts_run(place) > looks + 5)

    assert process.memory_info().rss - idle < 20 * MEGABYTE
    assert place.redis.zcard("delayed_tasks") == 100_000
    assert place.values() == [0, 7]


def scripts_run(place: Place) -> int:
    return int(place.redis.info("commandstats")["cmdstat_evalsha"]["calls"])


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_runs_goes_on_when_the_connection_is_lost(place: Place, pool: str) -> None:
    worker = place.worker(pool, concurrency=2)
    running = [place.send("held", f"held{n}", str(place.directory)) for n in range(2)]
    wait_for(lambda: all(place.begun(f"held{n}") for n in range(2)))
    reserved = [place.send("number", n) for n in range(3)]
    wait_for(lambda: all(one.state == states.RECEIVED for one in reserved))

    for times in (1, 2):
        wait_for(lambda: "blmove" in {client["cmd"] for client in place.redis.client_list()})
        place.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_for(lambda: worker.text().count(" lost. Trying to re-establish") == times, 20, worker.text)  # noqa: B023
        wait_for(lambda: worker.text().count("Connected to") == times + 1, 20, worker.text)  # noqa: B023
    other = place.worker()

    # Time enough to take those that run, too.
    renewed_for(place, LEASE)
    place.open_gate()
    assert [one.get(timeout=10) for one in running] == ["held0", "held1"]
    assert [one.get(timeout=10) for one in reserved] == [0, 1, 2]
    assert [place.times_run(one) for one in [*running, *reserved]] == [1] * 5
    # What was kept for the tasks of the first connections goes with them.
    wait_for(lambda: place.redis.zcard(f"{{{place.queue}}}:consumers") == 2)
    worker.stop()
    other.stop()
    assert place.keys() == []


def test_a_busy_worker_claims_and_acknowledges_several_at_once(place: Place) -> None:
    results = [place.send("number", n) for n in range(200)]
    before = calls(place)

    place.worker(concurrency=2)

    ended(results)
    wait_for(lambda: calls(place)["lrem"] - before["lrem"] == 200)
    # One wait for several messages, and one batch of acknowledgements after them.
    assert calls(place)["blmove"] - before["blmove"] < 150
    assert sorted(place.values()) == list(range(200))


def test_what_has_ended_is_acknowledged_while_others_run(place: Place) -> None:
    gates = [str(place.directory / "first"), *[str(place.directory / "rest")] * 7]
    tasks = [place.send("until", gate) for gate in gates]
    place.worker(concurrency=2)
    (key,) = wait_for(lambda: place.redis.keys(f"{{{place.queue}}}:inflight:*"))
    wait_for(lambda: place.redis.llen(key) == 8)

    Path(gates[0]).touch()

    assert tasks[0].get(timeout=10) == gates[0]
    # Of its eight places one is free, for which it claims nothing yet.
    wait_for(lambda: place.redis.llen(key) == 7)
    Path(gates[1]).touch()
    assert [one.get(timeout=15) for one in tasks] == gates


def calls(place: Place) -> Counter[str]:
    """How often the server has run each command."""
    stats = place.redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()})
