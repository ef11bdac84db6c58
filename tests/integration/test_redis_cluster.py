"""Broker, results and locks on a real cluster of three servers."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from redis.cluster import RedisCluster
from redis.exceptions import RedisError

from machinery_compat import Chain, Chord, Config, Group, Server, TaskError, errors, new_signature
from machinery_compat.config import RedisConfig
from machinery_compat.locks import lock_for
from machinery_compat.redis_client import lua
from machinery_compat.transport.caretaker import Keys
from machinery_compat.transport.lease_keeper import LeaseKeeper
from tests.conftest import Names
from tests.fault.apps import LEASE
from tests.support.processes import Unavailable
from tests.support.python_worker import PythonWorker
from tests.support.services import RedisClusterServers
from tests.support.waiting import wait_for
from tests.support.workers import read_journal

pytestmark = pytest.mark.redis

PASSWORD, WAIT = "of-the-cluster", 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisClusterServers]:
    try:
        with RedisClusterServers(password=PASSWORD) as started:
            yield started
    except Unavailable as error:
        pytest.skip(str(error))


class Place:
    """One queue on the cluster."""

    def __init__(self, cluster: RedisClusterServers, queue: str, directory: Path, stack: ExitStack) -> None:
        self.url, self.queue, self.directory, self.stack = cluster.url(), queue, directory, stack
        self.journal = directory / "journal"
        self.redis: RedisCluster = stack.enter_context(closing(cluster.client()))
        config = Config(broker=self.url, result_backend=self.url, default_queue=queue, lock=self.url)
        self.server = Server(config)
        stack.callback(self.server.app.close)

    def worker(self, pool: str = "prefork", concurrency: int = 2, **variables: str) -> PythonWorker:
        worker = PythonWorker(
            self.directory,
            self.journal,
            broker=self.url,
            backend=self.url,
            queue=self.queue,
            pool=pool,
            concurrency=concurrency,
            app="tests.fault.apps:app",
            tasks="tests.fault.tasks,tests.integration.tasks",
            **variables,
        )
        self.stack.callback(lambda: print(f"--- {worker.log.name}\n{worker.process.tail()}"))
        return self.stack.enter_context(worker)

    def keys(self) -> list[str]:
        return sorted(key.decode() for key in self.redis.keys(f"*{self.queue}*") if b"_kombu" not in key)


@pytest.fixture(scope="module")
def replicated() -> Iterator[RedisClusterServers]:
    with RedisClusterServers(password=PASSWORD, replicas=True) as started:
        yield started


@pytest.fixture
def place(cluster: RedisClusterServers, names: Names, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(cluster, names.queue, tmp_path, stack)


def test_tasks_workflows_and_remote_control(place: Place) -> None:
    worker = place.worker()
    app, server = place.server.app, place.server
    add, fail = new_signature("py_add", 1, 2), new_signature("py_fail", "no luck")
    assert server.send_task(add).get_with_timeout(WAIT) == [3]
    with pytest.raises(TaskError, match="no luck"):
        server.send_task(fail).get_with_timeout(WAIT)
    results = server.send_group(Group(*(new_signature("py_add", n) for n in range(30))))
    assert [one.get_with_timeout(WAIT) for one in results] == [[n] for n in range(30)]
    assert server.send_chain(Chain(*(new_signature("py_add", n) for n in range(5)))).get_with_timeout(WAIT) == [10]
    members = Group(*(new_signature("py_add", n) for n in range(50)))
    assert server.send_chord(Chord(members, new_signature("py_add"))).get_with_timeout(WAIT) == [1225]
    part = app.signature("py_add", args=[1])
    assert chain(part, part)().get(timeout=WAIT) == 2
    assert group(part for _ in range(10))().get(timeout=WAIT) == [1] * 10
    assert chord([part, part], app.signature("py_describe"))().get(timeout=WAIT)
    assert app.control.ping(destination=[worker.name], timeout=2.0) == [{worker.name: {"ok": "pong"}}]
    assert worker.name in app.control.inspect(timeout=2.0).stats()
    delays_and_priorities(place)
    each_once(place)
    worker.stop()
    assert place.keys() == []


def delays_and_priorities(place: Place) -> None:
    due = datetime.now(timezone.utc) + timedelta(seconds=1)
    sent = [place.server.send_task(new_signature("py_add", n, eta=due, priority=n % 3)) for n in range(20)]
    assert [one.get_with_timeout(WAIT) for one in sent] == [[n] for n in range(20)]
    assert datetime.now(timezone.utc) >= due
    wait_for(lambda: place.redis.zcard("delayed_tasks") == 0, 10, "delayed tasks stay")
    assert place.server.send_task(new_signature("again", 2)).get_with_timeout(WAIT) == [2]


def each_once(place: Place) -> None:
    uuids = [place.server.app.send_task("py_add", [n]).id for n in range(200)]
    wait_for(
        lambda: all(state and state.state == "SUCCESS" for state in place.server.backend.task_states(uuids)),
        WAIT,
        "not all have ended",
    )
    runs = Counter(one.uuid for one in read_journal(place.journal))
    assert {runs[uuid] for uuid in uuids} == {1}


def test_delayed_tasks_that_a_dying_worker_had_taken(place: Place) -> None:
    signature = new_signature("py_add", 4)
    signature.routing_key = place.queue
    taken = time.time_ns() + 1_000_000_000
    place.redis.zadd("delayed_tasks", {signature.encode(): taken, b"no signature": 1})
    place.worker("solo", 1)
    wait_for(lambda: [one for one in read_journal(place.journal) if one.uuid == signature.uuid], WAIT, "not run")
    assert "Could not unmarshal" in json.loads(place.redis.lindex(f"{place.queue}:dead", 0))["reason"]
    wait_for(lambda: place.redis.zcard("delayed_tasks") == 0, 10, "delayed tasks stay")


def test_what_a_killed_worker_had_is_run_by_another(place: Place) -> None:
    victim = place.worker(concurrency=2)
    results = [place.server.app.send_task("held", (f"task{n}", str(place.directory))) for n in range(6)]
    wait_for(lambda: len(list(place.directory.glob("task*"))) == 2, WAIT, "not begun")
    victim.kill()
    (place.directory / "open").touch()
    place.worker("solo", 1)
    assert [one.get(timeout=WAIT + LEASE) for one in results] == [f"task{n}" for n in range(6)]


def test_a_task_that_kills_its_worker_is_given_up(place: Place) -> None:
    place.worker(concurrency=1, REDELIVERY_LIMIT="1")
    poison = place.server.send_task(new_signature("killer", "kill"))
    with pytest.raises(TaskError, match="given up after 2 runs"):
        poison.get_with_timeout(WAIT + 10)
    wait_for(lambda: place.redis.llen(f"{place.queue}:dead") == 1, 10, "not buried")


def test_a_name_that_says_its_slot_and_an_unknown_task(place: Place) -> None:
    place.queue = f"{{{place.queue}}}.high"
    place.server.app.conf.task_default_queue = place.queue
    place.worker("solo", 1)
    assert place.server.app.send_task("py_add", [1, 2], queue=place.queue).get(timeout=WAIT) == 3
    unknown = new_signature("nobody_has_it")
    unknown.routing_key = place.queue
    sent = place.server.send_task(unknown)
    wait_for(lambda: place.redis.zcard("delayed_tasks") == 1, WAIT, "it does not wait")
    assert sent.get_state().state == "PENDING"


def test_one_server_that_is_said_to_be_a_node(cluster: RedisClusterServers, names: Names) -> None:
    url = f"redis://{PASSWORD}@127.0.0.1:{cluster.servers[1].port}"
    config = Config(broker=url, result_backend=url, default_queue=names.queue, redis=RedisConfig(cluster_enabled=True))
    server = Server(config)
    sent = [server.send_task(new_signature("any", n)) for n in range(10)]
    assert [one.name for one in server.broker.get_pending_tasks(names.queue)] == ["any"] * 10
    assert {one.get_state().state for one in sent} == {"PENDING"}
    server.app.close()


def test_the_process_beside_a_worker_keeps_its_leases(place: Place) -> None:
    channel = place.server.app.connection_for_read().default_channel
    keys = Keys(place.queue)
    names = [keys.consumers, keys.concurrency]
    channel.commands.eval(lua("renew"), 2, *names, keys.consumer, 1000, 1, "new")
    first = place.redis.zscore(keys.consumers, keys.consumer)
    keeper = LeaseKeeper(channel._connparams(), 1.0, lua("renew"))
    keeper.keep([(*names, keys.consumer)])
    place.stack.callback(keeper.stop)
    wait_for(lambda: place.redis.zscore(keys.consumers, keys.consumer) > first + 1000, 10, "not renewed")


def test_locks(place: Place) -> None:
    one = lock_for(place.url, Config(), retries=0)
    held = [f"lock-{place.queue}-{n}" for n in range(10)]
    for key in held:
        one.lock_with_retries(key, time.time_ns() + 10**10)
    with pytest.raises(errors.LockError):
        one.lock_with_retries(held[0], time.time_ns() + 10**10)


def test_the_server_of_a_queue_dies(replicated: RedisClusterServers, names: Names, tmp_path: Path) -> None:
    with ExitStack() as stack:
        place = Place(replicated, names.queue, tmp_path, stack)
        place.worker()
        place.worker("threads")
        uuids: list[Any] = [place.server.app.send_task("py_sleep", [20]).id for _ in range(200)]
        wait_for(lambda: len(read_journal(place.journal)) >= 20, WAIT, "no task runs")
        for server in replicated.servers:
            with closing(server.client()) as client:
                client.wait(1, 5000)
        replicated.server_of(names.queue).kill()

        def left() -> list[str]:
            try:
                found = place.server.backend.task_states(uuids)
            except RedisError:
                return ["no states"]
            return [f"{state and state.state}" for state in found if state is None or state.state != "SUCCESS"]

        wait_for(lambda: not left(), 60, lambda: str(left()), interval=0.1)
        assert place.server.send_task(new_signature("py_add", 1, 2)).get_with_timeout(WAIT) == [3]
