"""A master that dies, freezes or is deposed under load: all go on with the one that the sentinels name."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import states
from celery.result import AsyncResult

from machinery_compat import Chord, Config, Group, Server, new_signature
from machinery_compat.config import RedisConfig
from machinery_compat.redis_client import lua
from machinery_compat.transport.caretaker import Keys
from machinery_compat.transport.lease_keeper import LeaseKeeper
from tests.conftest import Names
from tests.support.processes import Unavailable
from tests.support.python_worker import PythonWorker
from tests.support.services import RedisGroup, RedisServer
from tests.support.waiting import wait_for
from tests.support.workers import read_journal

pytestmark = pytest.mark.redis

PASSWORD, SENTINEL_PASSWORD = "of-the-master", "of-the-sentinels"
TASKS = "tests.fault.tasks,tests.integration.tasks"


@dataclass
class Place:
    """One queue on a group of servers, and the workers on it."""

    group: RedisGroup
    queue: str
    directory: Path
    stack: ExitStack
    results: list[AsyncResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = RedisConfig(master_name=self.group.name, sentinel_password=SENTINEL_PASSWORD, read_timeout=2)
        self.server = Server(
            Config(broker=self.group.url(), result_backend=self.group.url(), default_queue=self.queue, redis=settings)
        )
        self.stack.callback(self.server.app.close)

    def worker(self, pool: str = "prefork", concurrency: int = 2, **variables: str) -> PythonWorker:
        worker = PythonWorker(
            self.directory,
            self.journal,
            broker=self.group.url(),
            backend=self.group.url(),
            queue=self.queue,
            pool=pool,
            concurrency=concurrency,
            app="tests.fault.apps:app",
            tasks=TASKS,
            REDIS_MASTER_NAME=self.group.name,
            REDIS_SENTINEL_PASSWORD=SENTINEL_PASSWORD,
            REDIS_READ_TIMEOUT="2",
            LEASE="3",
            **variables,
        )
        self.stack.callback(lambda: print(f"--- {worker.log.name}\n{worker.process.tail()}"))
        return self.stack.enter_context(worker)

    def sees_the_master(self) -> bool:
        """Whether the results of this process are those of the present master."""
        pool = self.server.backend.client.connection_pool
        self.server.backend.client.ping()
        return bool(pool.master_address[1] == self.group.master().port)

    @property
    def journal(self) -> Path:
        return self.directory / "journal"

    def send(self, count: int, milliseconds: int = 20) -> None:
        self.results += [self.server.app.send_task("py_sleep", [milliseconds]) for _ in range(count)]

    def times_run(self) -> Counter[str]:
        return Counter(one.uuid for one in read_journal(self.journal))

    def wait_all_ended(self) -> None:
        backend = self.server.backend
        uuids = [result.id for result in self.results]

        def left() -> list[str]:
            found = backend.task_states(uuids)
            return [
                f"{uuid}: {state and state.state}"
                for uuid, state in zip(uuids, found, strict=True)
                if state is None or state.state not in states.READY_STATES
            ]

        wait_for(lambda: not left(), 60, lambda: str(left()), interval=0.1)
        assert {state.state for state in backend.task_states(uuids) if state} == {"SUCCESS"}


@pytest.fixture
def place(names: Names, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        try:
            group = stack.enter_context(RedisGroup("chief", PASSWORD, SENTINEL_PASSWORD))
        except Unavailable as error:
            pytest.skip(str(error))
        yield Place(group, names.queue, tmp_path, stack)


def freeze(server: RedisServer) -> None:
    server.pause()


@pytest.mark.parametrize("how", [RedisServer.kill, freeze])
def test_every_task_ends_when_the_master_goes(place: Place, how: Callable[[RedisServer], None]) -> None:
    workers = [place.worker(), place.worker("threads")]
    place.send(300)
    eta = datetime.now(timezone.utc) + timedelta(seconds=6)
    place.results.append(place.server.app.send_task("py_add", [1, 2], eta=eta))
    wait_for(lambda: len(place.times_run()) >= 40, 30, "no task runs")

    waiter = place.stack.enter_context(ThreadPoolExecutor(1)).submit(place.results[-1].get, timeout=60)
    old = place.group.fail_over(how)
    # Who sends now goes to the new master.
    place.send(20)
    chord = Chord(Group(*(new_signature("py_add", n) for n in range(5))), new_signature("py_add"))
    assert place.server.send_chord(chord).get_with_timeout(40) == [10]
    place.wait_all_ended()
    assert waiter.result(60) == 3

    runs = place.times_run()
    assert {result.id for result in place.results} <= runs.keys()
    assert all(worker.process.running() for worker in workers)
    for worker in workers:
        assert worker.stop() == 0
    with closing(place.group.client()) as client:
        left = [key.decode() for key in client.keys(f"*{place.queue}*") if b"_kombu" not in key]
    assert left == []
    if how is freeze:
        old.process.signal(signal.SIGCONT)


def test_a_master_that_is_deposed_in_order(place: Place) -> None:
    worker = place.worker("threads")
    place.send(60)
    wait_for(lambda: len(place.times_run()) >= 10, 30, "no task runs")

    def depose(old: RedisServer) -> None:
        with closing(place.group.sentinels[0].client()) as client:
            client.execute_command("SENTINEL FAILOVER", place.group.name)

    place.group.fail_over(depose)
    # The old master still answers; nobody uses it any more once the sentinels have been asked again.
    assert wait_for(lambda: place.sees_the_master(), 10, "the old master is used")
    place.send(10)
    place.wait_all_ended()
    with closing(place.group.client()) as client:
        # What the old one has taken since will be thrown away.
        assert client.exists(*(result.id for result in place.results)) == len(place.results)

    def ping() -> object:
        try:
            return place.server.app.control.ping(destination=[worker.name], timeout=1.0)
        except redis.ConnectionError:
            # That of the old master, which Celery tells its caller.
            return None

    wait_for(ping, 20, "remote control is gone")


def test_the_process_beside_a_worker_keeps_its_leases(place: Place) -> None:
    channel = place.server.app.connection_for_read().default_channel
    keys = Keys(place.queue)
    names = [keys.consumers, keys.concurrency]
    channel.commands.eval(lua("renew"), 2, *names, keys.consumer, 1000, 1, "new")
    keeper = LeaseKeeper(channel._connparams(), 1.0, lua("renew"))
    keeper.keep([(*names, keys.consumer)])
    place.stack.callback(keeper.stop)

    def end_of_lease() -> float:
        with closing(place.group.client()) as client:
            return float(client.zscore(keys.consumers, keys.consumer) or 0)

    def outlives(end: float) -> bool:
        return end_of_lease() > end + 1000

    first = end_of_lease()
    wait_for(lambda: outlives(first), 10, "not renewed")
    place.group.fail_over()
    second = end_of_lease()
    wait_for(lambda: outlives(second), 20, "not renewed at the new master")


def test_a_name_that_no_sentinel_knows(place: Place) -> None:
    config = Config(
        broker=place.group.url(),
        result_backend=place.group.url(),
        redis=RedisConfig(master_name="nobody", sentinel_password=SENTINEL_PASSWORD),
    )
    app: Any = Server(config).app
    with pytest.raises(Exception, match=r"no master 'nobody' at the sentinels .*: they know of none"):
        app.backend.task_state("any")
    app.close()
