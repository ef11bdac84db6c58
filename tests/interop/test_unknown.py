"""A task that only the other language knows waits for it, quietly and untouched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import amqp
import pytest

from machinery_compat import new_signature
from tests.interop.conftest import BROKERS, Fleet
from tests.support.golang import AMQP_FLAVORS, arg, signature
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.go

#: How many times a second an unknown task may be handed over.
FEWER_THAN = 20
#: Seconds over which the hand-overs are counted.
WINDOW = 2.0
UNKNOWN = 500


class Meter:
    """Counts how often the broker hands over what is in a queue, by the broker's own count."""

    def __init__(self, fleet: Fleet, request: pytest.FixtureRequest) -> None:
        self.fleet = fleet
        self.rabbit: RabbitServer | None = None
        if fleet.flavor in AMQP_FLAVORS:
            self.rabbit = request.getfixturevalue("rabbit_server")

    @contextmanager
    def _counting(self) -> Iterator[amqp.Channel | None]:
        if self.rabbit is None:
            yield None
            return
        # RabbitMQ's tracer publishes a copy of each message that it delivers.
        self.rabbit.ctl("trace_on")
        try:
            host = f"127.0.0.1:{self.rabbit.port}"
            with closing(amqp.Connection(host, userid="guest", password="guest")) as connection:  # noqa: S106
                connection.connect()
                channel = connection.channel()
                channel.queue_declare("meter", exclusive=True)
                channel.queue_bind("meter", "amq.rabbitmq.trace", f"deliver.{self.fleet.names.queue}")
                yield channel
        finally:
            self.rabbit.ctl("trace_off")

    def _count(self, channel: amqp.Channel | None) -> int:
        if channel is not None:
            return int(channel.queue_declare("meter", passive=True).message_count)
        # Whoever hands a task on puts it into a list or among the delayed ones.
        statistics = self.fleet.server.backend.client.info("commandstats")
        return sum(int(statistics.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("rpush", "lmove", "blmove"))

    def rate(self) -> float:
        """Hand-overs a second."""
        with self._counting() as channel:
            before, began = self._count(channel), time.monotonic()
            time.sleep(WINDOW)
            return (self._count(channel) - before) / (time.monotonic() - began)


@pytest.fixture
def meter(fleet: Fleet, request: pytest.FixtureRequest) -> Meter:
    return Meter(fleet, request)


def document(fleet: Fleet, uuid: str) -> bytes | None:
    data: bytes | None = fleet.server.backend.client.get(uuid)
    return data


def send(fleet: Fleet, name: str, sender: str) -> str:
    if sender == "go":
        return fleet.client.send(signature(name, arg("int64", 1), arg("int64", 2)))
    return fleet.server.send_task(new_signature(name, 1, 2)).signature.uuid


@pytest.mark.parametrize("sender", ["go", "python"])
def test_what_only_go_knows_waits_for_go(fleet: Fleet, meter: Meter, sender: str) -> None:
    python = fleet.python(pool="threads")
    uuid = send(fleet, "go_add", sender)
    pending = document(fleet, uuid)
    assert pending is not None
    assert b'"State":"PENDING"' in pending
    wait_for(lambda: f"go_add[{uuid}] is not registered" in python.text())

    rate = meter.rate()

    assert rate < FEWER_THAN
    assert document(fleet, uuid) == pending
    assert python.text().count(uuid) == 1, "one log line tells of it"
    assert fleet.executions() == []

    fleet.go()

    assert fleet.client.values(uuid) == [3]
    assert [(one.uuid, one.language) for one in fleet.executions()] == [(uuid, "go")]


def test_what_only_python_knows_waits_for_python(fleet: Fleet) -> None:
    """Go hands it around as fast as it can: that is Go's way, and must not keep it from Python."""
    fleet.go()
    uuid = send(fleet, "py_add", "go")
    pending = document(fleet, uuid)
    other = send(fleet, "go_add", "go")
    assert fleet.client.values(other) == [3]

    assert document(fleet, uuid) == pending

    fleet.python(pool="threads")

    assert fleet.client.values(uuid) == [3]
    assert [(one.uuid, one.language) for one in fleet.executions()] == [(other, "go"), (uuid, "py")]


@pytest.mark.parametrize("fleet", BROKERS, indirect=True)
def test_two_python_workers_hand_it_over_as_seldom(fleet: Fleet, meter: Meter) -> None:
    workers = [fleet.python(pool="solo"), fleet.python(pool="solo")]
    uuid = send(fleet, "nobody", "go")
    wait_for(lambda: any(uuid in worker.text() for worker in workers))

    assert meter.rate() < FEWER_THAN


@pytest.mark.parametrize("fleet", BROKERS, indirect=True)
def test_known_tasks_run_promptly_behind_many_unknown_ones(fleet: Fleet) -> None:
    # Go's publisher declares a queue of its own on RabbitMQ; this one makes the worker's exist.
    unknown = [fleet.server.send_task(new_signature("go_who")).signature.uuid]
    unknown += fleet.client.send_many([signature("go_who") for _ in range(UNKNOWN - 1)])
    known = fleet.client.send_many([signature("py_who") for _ in range(20)])
    fleet.python(pool="threads")

    assert [fleet.client.values(uuid) for uuid in known] == [["py"]] * len(known)
    # Those that come later, too, while the unknown ones go around.
    for _ in range(20):
        assert fleet.server.send_task(new_signature("py_who")).get_with_timeout(5, sleep=0.005) == ["py"]

    fleet.go()

    executions = wait_for(
        lambda: ran if len(ran := fleet.executions()) >= UNKNOWN + 40 else None,
        60,
        lambda: f"{len(fleet.executions())} ran",
    )
    assert sorted(one.uuid for one in executions if one.name == "go_who") == sorted(unknown)
    assert {one.language for one in executions if one.name == "go_who"} == {"go"}


@pytest.mark.parametrize("fleet", BROKERS, indirect=True)
def test_one_that_says_so_is_dropped(fleet: Fleet, meter: Meter) -> None:
    python = fleet.python(pool="solo")
    sent = new_signature("nobody", ignore_when_task_not_registered=True)

    uuid = fleet.server.send_task(sent).signature.uuid

    wait_for(lambda: f"nobody[{uuid}] is not registered here and says" in python.text())
    pending = document(fleet, uuid)
    assert pending is not None
    assert b'"State":"PENDING"' in pending
    assert fleet.server.send_task(new_signature("py_who")).get_with_timeout(10) == ["py"]
    python.stop()
    assert fleet.server.broker.get_pending_tasks() == []
    if meter.rabbit is None:
        assert fleet.server.broker.get_delayed_tasks() == []
