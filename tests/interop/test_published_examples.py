"""Machinery's published example programs, unchanged, with our worker and with our sender.

Their servers are fixed to localhost and the usual ports, so they run in a network of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinery_compat import (
    Chain,
    Chord,
    Config,
    Group,
    GroupMeta,
    Server,
    Signature,
    TaskError,
    new_signature,
    now_text,
)
from machinery_compat.results import AsyncResult
from tests.conftest import _missing
from tests.support import golang
from tests.support.netns import private_network
from tests.support.processes import Process, Unavailable
from tests.support.python_worker import PythonWorker
from tests.support.services import RedisServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.go]

PORT = 6379
URL = f"redis://localhost:{PORT}"
QUEUE = "machinery_tasks"
FLAVORS = ("v2-redigo", "v2-goredis", "v1-redis")
#: What the example's ``send`` prints, whoever runs the tasks; the batch and the times left out.
PRINTED = """\
Single task:
1 + 1 = 2
sum([1, 2]) = 3
sum([1.5, 2.7]) = 4.2
concat(["foo", "bar"]) = foobar
split(["foo"]) = [f o o]
Group of tasks (parallel execution):
1 + 1 = 2
2 + 2 = 4
5 + 6 = 11
Group of tasks with a callback (chord):
(1 + 1) * (2 + 2) * (5 + 6) = 88
Chain of tasks:
(((1 + 1) + (2 + 2)) + (5 + 6)) * 4 = 68
Task panicked and returned error = oops
Long running task returned = []
""".splitlines()


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """A private network with a Redis on its usual port."""
    for flavor in FLAVORS:
        try:
            golang.build(golang.EXAMPLES[flavor])  # while the outer network is there
        except Unavailable as error:
            _missing(error)
    try:
        with private_network():
            server = RedisServer()
            server.port = PORT
            with server:
                yield
    except Unavailable as error:
        _missing(error)


@pytest.fixture(params=FLAVORS)
def example(request: pytest.FixtureRequest, network: None) -> Path:
    return golang.build(golang.EXAMPLES[request.param])


def lines(log: Path) -> list[str]:
    """What the example has logged, without colours, times and places."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    return [re.sub(r"^\w+: \S+ \S+ \S+:\d+\s+", "", line).strip() for line in plain.splitlines() if line.strip()]


def test_the_examples_sender_and_our_worker(example: Path, tmp_path: Path) -> None:
    worker = PythonWorker(
        tmp_path, broker=URL, backend=URL, queue=QUEUE, tasks="tests.support.example_tasks", pool="threads"
    )
    with worker:
        sender = Process([example, "send"], tmp_path / "send.log")
        wait_for(lambda: not sender.running(), 60, sender.tail)

        assert sender.stop() == 0, sender.tail()

    printed = lines(tmp_path / "send.log")
    start = printed.index(PRINTED[0])
    assert printed[start : start + len(PRINTED)] == PRINTED


@pytest.fixture
def server(example: Path, tmp_path: Path) -> Iterator[Server]:
    """A sender of ours; the example's worker runs."""
    worker = Process([example, "worker"], tmp_path / "worker.log")
    try:
        wait_for(lambda: "To exit press CTRL+C" in worker.tail() or not worker.running(), 20, worker.tail)
        yield Server(Config(broker=URL, result_backend=URL, default_queue=QUEUE))
        assert worker.running(), worker.tail()
    finally:
        print(worker.tail())
        worker.kill()


def adds() -> list[Signature]:
    return [new_signature("add", 1, 1), new_signature("add", 2, 2), new_signature("add", 5, 6)]


def send_group(server: Server, group: Group) -> list[AsyncResult]:
    """The group's document and every member's state before the first member, as Go sends it."""
    server.backend.put_group(
        GroupMeta(group_uuid=group.group_uuid, task_uuids=group.get_uuids(), created_at=now_text())
    )
    for member in group.tasks:
        server.backend.store_pending(member, URL)
    return [server.send_task(member) for member in group.tasks]


def result_of(server: Server, signature: Signature) -> list[object]:
    return AsyncResult(signature, server.backend).get_with_timeout(15, sleep=0.02)


def test_our_sender_and_the_examples_worker(server: Server) -> None:
    for name, argument, expected in [
        ("sum_ints", [1, 2], 3),
        ("sum_floats", [1.5, 2.7], 4.2),
        ("concat", ["foo", "bar"], "foobar"),
        ("split", "foo", ["f", "o", "o"]),
    ]:
        assert result_of(server, server.send_task(new_signature(name, argument)).signature) == [expected]
    with pytest.raises(TaskError, match=r"^oops$"):
        result_of(server, server.send_task(new_signature("panic_task")).signature)

    group = Group(*adds())
    assert [result.get_with_timeout(15) for result in send_group(server, group)] == [[2], [4], [11]]

    chord = Chord(Group(*adds()), new_signature("multiply"))
    send_group(server, chord.group)
    wait_for(lambda: server.backend.task_state(chord.callback.uuid))
    assert result_of(server, chord.callback) == [88]

    chain = Chain(*adds(), new_signature("multiply", 4))
    server.send_task(chain.tasks[0])
    wait_for(lambda: server.backend.task_state(chain.tasks[-1].uuid))
    assert result_of(server, chain.tasks[-1]) == [68]

    assert result_of(server, server.send_task(new_signature("long_running_task")).signature) == []


def test_our_canvas_and_the_examples_worker(server: Server) -> None:
    """Celery's API for the same single tasks."""
    app = server.app

    assert app.send_task("add", [1, 1]).get(timeout=15) == 2
    assert app.send_task("sum_floats", [[1.5, 2.7]]).get(timeout=15) == 4.2
    assert app.send_task("split", ["foo"]).get(timeout=15) == ["f", "o", "o"]
    assert app.send_task("concat", [["foo", "bar"]]).get(timeout=15) == "foobar"
    with pytest.raises(TaskError, match=r"^oops$"):
        app.send_task("panic_task").get(timeout=15)
