"""Redis behind sentinels and Redis Cluster, with Go's go-redis driver on the other side of the queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import Chain, Chord, Config, Group, TaskError, new_signature
from machinery_compat.config import RedisConfig
from machinery_compat.locks import lock_for
from tests.conftest import GoClientFactory, GoWorkerFactory, Names, go_clients, go_workers
from tests.interop.conftest import Fleet
from tests.interop.test_matrix import alternating, of_go
from tests.support.golang import arg, signature
from tests.support.python_worker import PythonWorker
from tests.support.services import RedisClusterServers, RedisGroup
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.go, pytest.mark.redis]

WAIT = 20
PASSWORD, SENTINEL_PASSWORD = "of-the-master", "of-the-sentinels"


@dataclass
class GroupFleet(Fleet):
    """A fleet whose servers are told by settings beside the URL."""

    settings: dict[str, Any] = field(default_factory=dict)
    lock: str = ""

    def options(self) -> dict[str, Any]:
        names = {"cluster_enabled": "cluster"}
        told = {names.get(name, name): value for name, value in self.settings.items()}
        return {**super().options(), **told, "lock": self.lock}

    def python(self, **options: Any) -> PythonWorker:
        told = {f"REDIS_{name.upper()}": str(value) for name, value in self.settings.items()}
        return super().python(**told, **options)

    def config(self, **options: Any) -> Config:
        return super().config(redis=RedisConfig(**self.settings), lock=self.lock, **options)


@pytest.fixture(scope="module")
def group() -> Iterator[RedisGroup]:
    with RedisGroup("chief", PASSWORD, SENTINEL_PASSWORD) as started:
        yield started


@pytest.fixture(scope="module")
def pair(group: RedisGroup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GroupFleet]:
    """A Go and a Python worker on one queue."""
    directory = tmp_path_factory.mktemp("pair")
    names = Names("behind-sentinels", "no-exchange", "no-key")
    settings = {"master_name": group.name, "sentinel_password": SENTINEL_PASSWORD}
    lock = group.url().removesuffix("/0")
    with ExitStack() as stack:
        start_go, start_client = stack.enter_context(go_workers(directory)), stack.enter_context(go_clients(directory))
        made = GroupFleet(
            "v2-goredis",
            group.url(2),
            group.url(3),
            names,
            directory,
            stack,
            start_go,
            start_client,
            settings=settings,
            lock=lock,
        )
        made.go()
        made.python()
        yield made
        made.server.app.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisClusterServers]:
    with RedisClusterServers(password=PASSWORD) as started:
        yield started


@pytest.fixture(params=["v2-goredis", "v1-redis"])
def on_cluster(
    request: pytest.FixtureRequest,
    cluster: RedisClusterServers,
    names: Names,
    tmp_path: Path,
    go_worker: GoWorkerFactory,
    go_client: GoClientFactory,
) -> Iterator[GroupFleet]:
    """A Go and a Python worker on one queue of a cluster."""
    url, lock = cluster.url(), cluster.url()
    settings = {"cluster_enabled": True}
    with ExitStack() as stack:
        made = GroupFleet(request.param, url, url, names, tmp_path, stack, go_worker, go_client, "", settings, lock)
        made.go()
        made.python()
        yield made
        made.server.app.close()


def test_both_ways(pair: GroupFleet) -> None:
    tasks_of_both(pair)
    workflows_of_both(pair)
    delays_of_both(pair)


def test_both_ways_on_a_cluster(on_cluster: GroupFleet) -> None:
    tasks_of_both(on_cluster)
    workflows_of_both(on_cluster)
    delays_of_both(on_cluster)
    lock = lock_for(on_cluster.lock, on_cluster.config(), retries=0)
    key = f"lock-{on_cluster.names.queue}"
    lock.lock_with_retries(key, 2**62)
    assert on_cluster.client.request(op="lock", key=key, until=2**62).get("error")


def tasks_of_both(pair: Fleet) -> None:
    for name in ("go_add", "py_add"):
        assert pair.server.send_task(new_signature(name, 1, 2)).get_with_timeout(WAIT) == [3]
        uuid = pair.client.send(signature(name, arg("int64", 20), arg("int64", 22)))
        assert pair.client.values(uuid) == [42]
        assert pair.server.app.AsyncResult(uuid).get(timeout=WAIT) == 42
    for name in ("go_fail", "py_fail"):
        with pytest.raises(TaskError, match=r"^no luck$"):
            pair.server.send_task(new_signature(name, "no luck")).get_with_timeout(WAIT)
        assert pair.client.get(pair.client.send(signature(name, arg("string", "no luck"))))["error"] == "no luck"
    for name in ("go_swap", "py_swap"):
        assert pair.server.send_task(new_signature(name, "a", 1)).get_with_timeout(WAIT) == [1, "a"]
        swapped = pair.client.send(signature(name, arg("string", "a"), arg("int64", 1)))
        assert pair.client.values(swapped) == [1, "a"]


def workflows_of_both(pair: Fleet) -> None:
    results = pair.server.send_group(Group(*alternating(20)))
    assert [one.get_with_timeout(WAIT) for one in results] == [[number] for number in range(20)]
    assert pair.server.send_chain(Chain(*alternating(6))).get_with_timeout(WAIT) == [15]
    uuids = pair.client.must(op="send_group", signatures=of_go(20))["uuids"]
    assert [pair.client.values(uuid) for uuid in uuids] == [[number] for number in range(20)]
    chained = pair.client.must(op="send_chain", signatures=of_go(6))["uuids"]
    assert pair.client.values(chained[-1], timeout=WAIT) == [15]
    for callback in ("go_add", "py_add"):
        chord = Chord(Group(*alternating(10)), new_signature(callback))
        assert pair.server.send_chord(chord).get_with_timeout(WAIT) == [45]
        sent = pair.client.must(op="send_chord", signatures=of_go(10), callback=signature(callback))
        assert pair.client.values(sent["callback_uuid"], timeout=WAIT) == [45]


def delays_of_both(pair: Fleet) -> None:
    for name in ("go_add", "py_add"):
        due = datetime.now(timezone.utc) + timedelta(seconds=0.5)
        assert pair.server.send_task(new_signature(name, 1, eta=due)).get_with_timeout(WAIT) == [1]
        assert datetime.now(timezone.utc) >= due
        eta = (datetime.now(timezone.utc) + timedelta(seconds=0.5)).isoformat()
        assert pair.client.values(pair.client.send(signature(name, arg("int64", 2), ETA=eta))) == [2]


def test_a_lock_that_go_holds(pair: GroupFleet) -> None:
    lock = lock_for(pair.lock, pair.config(), retries=0)
    lock.lock_with_retries("lock-of-python", 2**62)
    assert pair.client.request(op="lock", key="lock-of-python", until=2**62).get("error")


def test_go_and_python_after_a_failover(pair: GroupFleet, group: RedisGroup) -> None:
    group.fail_over()

    def answered(name: str) -> bool:
        answer = pair.client.request(op="send", signature=signature(name, arg("int64", 5)))
        return "uuid" in answer and pair.client.values(answer["uuid"], timeout=WAIT) == [5]

    # Go tells its caller of the lost connection.
    wait_for(lambda: answered("py_add"), 30, "Go cannot send to Python")
    assert pair.server.send_task(new_signature("py_add", 1, 2)).get_with_timeout(WAIT) == [3]
    with closing(group.client(3)) as client:
        assert client.dbsize() > 0
