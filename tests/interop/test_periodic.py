"""Periodic workflows that Go and Python processes share."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from machinery_compat import Signature, new_signature
from tests.conftest import GoClientFactory, Names
from tests.interop.conftest import BROKERS, Fleet
from tests.support import golang
from tests.support.golang import GoClient, arg, signature
from tests.support.processes import Process
from tests.support.python_worker import ROOT
from tests.support.services import RedisServer
from tests.support.ticks import NAME, SPEC, Ticks
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.go, pytest.mark.redis]


@pytest.fixture
def lock(redis_server: RedisServer) -> str:
    """Database 0, which is that of every lock in v1, written so that v1 can read it."""
    url = redis_server.url(0).removesuffix("/0")
    client = redis_server.client(0)
    for key in client.scan_iter("machinery_lock_*"):
        client.delete(key)
    return url


@pytest.fixture
def go(redis_db: str, lock: str, names: Names, go_client: GoClientFactory, request: pytest.FixtureRequest) -> GoClient:
    return go_client(flavor=request.param, broker=redis_db, backend=redis_db, queue=names.queue, lock=lock)


@pytest.fixture
def pythons(redis_db: str, lock: str, names: Names, tmp_path: Path) -> Iterator[list[Process]]:
    """Two programs that send the same task as the Go program."""
    environment = {
        "BROKER": redis_db,
        "RESULT_BACKEND": redis_db,
        "LOCK": lock,
        "DEFAULT_QUEUE": names.queue,
        "PROGRAM": golang.build(golang.CLIENT).name,
        "PYTHONPATH": str(ROOT),
    }
    with ExitStack() as stack:
        running = []
        for number in range(2):
            command = [sys.executable, "-m", "tests.support.periodic_app"]
            process = Process(command, tmp_path / f"python-{number}.log", environment, stdin=-1)
            stack.callback(process.kill)
            stack.callback(lambda process=process: print(process.tail()))
            running.append(process)
        for process in running:
            wait_for(lambda process=process: "ready" in process.tail(), 20, process.tail)
        yield running


@pytest.mark.parametrize(("go", "count"), [("v2-redigo", 30), ("v1-redis", 10)], indirect=["go"])
def test_two_python_servers_and_a_go_server_send_once_a_tick(
    go: GoClient, count: int, pythons: list[Process], redis_db: str, redis_server: RedisServer, names: Names
) -> None:
    go.must(op="periodic", kind="task", spec=SPEC, name=NAME, signatures=[signature("beat")])
    ticks = Ticks(redis_db)
    wait_for(lambda: ticks.states(), 10)

    seconds = ticks.wait(count)

    assert dict(seconds) == dict.fromkeys(seconds, 1)
    assert len(seconds) == count
    # One lock, with the name that Go gives it.
    keys = list(redis_server.client(0).scan_iter("machinery_lock_*"))
    assert keys in ([], [f"machinery_lock_{golang.build(golang.CLIENT).name}{NAME}{SPEC}".encode()])
    # Go goes on alone, if with a tick lost now and then, as it does by itself.
    for process in pythons:
        process.kill()
    assert ticks.wait(3).total() >= 2
    queue = redis_server.client(int(redis_db.rpartition("/")[2])).lrange(names.queue, 0, -1)
    sent = [Signature.decode(body) for body in queue]
    assert {one.name for one in sent} == {"beat"}
    assert len({one.uuid for one in sent}) == len(sent)


@pytest.mark.parametrize("go", ["v2-redigo"], indirect=True)
def test_python_goes_on_when_go_ends(go: GoClient, pythons: list[Process], redis_db: str) -> None:
    go.must(op="periodic", kind="task", spec=SPEC, name=NAME, signatures=[signature("beat")])
    ticks = Ticks(redis_db)
    wait_for(lambda: ticks.states(), 10)
    go.process.kill()
    assert set(ticks.wait(4).values()) == {1}


def sums(fleet: Fleet, task: str) -> Counter[int]:
    """How often each sum has been computed: 1, 2 of the members, 3 of the chain, 13 of the chord."""
    states = [state for state in Ticks(fleet.backend).states() if state["State"] == "SUCCESS"]
    assert {state["TaskName"] for state in states} <= {task}
    return Counter(state["Results"][0]["Value"] for state in states)


@pytest.mark.parametrize("fleet", BROKERS, indirect=True)
def test_go_runs_what_python_sends_again_and_again(fleet: Fleet) -> None:
    fleet.go()
    one, two, ten = (new_signature("go_add", number) for number in (1, 2, 10))
    fleet.server.register_periodic_task(SPEC, "task", one)
    fleet.server.register_periodic_chain(SPEC, "chain", one, two)
    fleet.server.register_periodic_group(SPEC, "group", 0, one, two)
    fleet.server.register_periodic_chord(SPEC, "chord", 0, ten, one, two)
    try:
        wait_for(lambda: sums(fleet, "go_add")[13] >= 2 and sums(fleet, "go_add")[3] >= 2, 20)
    finally:
        fleet.server.periodic.stop()
    assert set(sums(fleet, "go_add")) == {1, 2, 3, 13}


@pytest.mark.parametrize("fleet", BROKERS, indirect=True)
def test_python_runs_what_go_sends_again_and_again(fleet: Fleet) -> None:
    fleet.python()
    one, two, ten = (signature("py_add", arg("int64", number)) for number in (1, 2, 10))
    for kind in ("task", "chain", "group", "chord"):
        fleet.client.must(op="periodic", kind=kind, spec=SPEC, name=kind, signatures=[one, two], callback=ten)
    wait_for(lambda: sums(fleet, "py_add")[13] >= 2 and sums(fleet, "py_add")[3] >= 2, 20)
    fleet.client.process.kill()
    assert set(sums(fleet, "py_add")) == {1, 2, 3, 13}
