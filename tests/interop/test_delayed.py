"""Delayed tasks reach their queue on time and run once, whoever sends them and whoever moves them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any

import amqp
import pytest

from machinery_compat import Server, Signature, new_signature
from machinery_compat.config import AMQPConfig
from tests.conftest import Names
from tests.interop.conftest import Fleet
from tests.support.golang import AMQP_FLAVORS, signature
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.go

#: How late a task may run, in seconds; the machine may be busy with other things.
LATEST = 5.0
#: A Go worker on Redis moves one task a poll, so the default of 500 ms would take a minute for a hundred.
GO_POLL_MS = 5
MANY = 100
REDIS = [pytest.param(flavor, marks=pytest.mark.redis) for flavor in ("v2-redigo", "v2-goredis", "v1-redis")]
AMQP = [pytest.param("v2-amqp", marks=[pytest.mark.redis, pytest.mark.rabbitmq])]
TEAMS = ("python", "go", "both")


def staff(fleet: Fleet, team: str, **options: Any) -> None:
    """Starts those who work on the queue."""
    variables = {"AMQP_DELAYED_QUEUE": options["delayed_queue"]} if "delayed_queue" in options else {}
    if team in ("go", "both"):
        fleet.go(delayed_poll_ms=GO_POLL_MS, concurrency=4, **options)
    if team in ("python", "both"):
        fleet.python(pool="threads", **variables)


def server_of(fleet: Fleet, delayed_queue: str = "") -> Server:
    if not delayed_queue:
        return fleet.server
    config = fleet.config()
    config.amqp = AMQPConfig(
        exchange=fleet.names.exchange, binding_key=fleet.names.binding_key, delayed_queue=delayed_queue
    )
    return Server(config)


def soon(seconds: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def expect_on_time(fleet: Fleet, due: dict[str, datetime]) -> list[str]:
    """Watches the journal until every task has run; returns them in the order in which they began."""
    seen: list[str] = []

    def all_ran() -> bool:
        seen[:] = [one.uuid for one in fleet.executions()]
        now = datetime.now(timezone.utc)
        early = [uuid for uuid in seen if due[uuid] > now]
        assert not early, f"{len(early)} ran before their time"
        return len(seen) >= len(due)

    last = max(due.values())
    wait_for(
        all_ran, (last - datetime.now(timezone.utc)).total_seconds() + LATEST, lambda: f"{len(seen)} of {len(due)} ran"
    )
    return seen


def expect_once(fleet: Fleet, due: dict[str, datetime], rabbit: RabbitServer | None) -> None:
    """Nothing is left that could run again, and each task ran once."""
    backend = fleet.server.backend
    wait_for(lambda: all(one is not None and one.state == "SUCCESS" for one in backend.task_states(list(due))))
    if rabbit is None:
        client = backend.client
        wait_for(lambda: not client.zcard("delayed_tasks") and not client.llen(fleet.names.queue))
        wait_for(lambda: not client.keys(f"{{{fleet.names.queue}}}:inflight:*"))
    else:
        wait_for(lambda: rabbit.list_queues().get(fleet.names.queue) == 0, message="the queue is not empty")
    assert sorted(one.uuid for one in fleet.executions()) == sorted(due)


@pytest.fixture
def rabbit(fleet: Fleet, request: pytest.FixtureRequest) -> RabbitServer | None:
    if fleet.flavor not in AMQP_FLAVORS:
        return None
    server: RabbitServer = request.getfixturevalue("rabbit_server")
    return server


def send_from_everywhere(fleet: Fleet, server: Server, seconds: list[float]) -> dict[str, datetime]:
    """Sends one task for each delay by each way of sending; returns when each is due."""
    due: dict[str, datetime] = {}
    for delay in seconds:
        eta = soon(delay)
        due[server.send_task(new_signature("who", eta=eta)).signature.uuid] = eta
        due[server.app.send_task("who", eta=eta).id] = eta
        due[fleet.client.send(signature("who", ETA=eta.isoformat()))] = eta
        eta = soon(delay)
        due[server.app.send_task("who", countdown=delay).id] = eta
    return due


@pytest.mark.parametrize("fleet", [*REDIS, *AMQP], indirect=True)
@pytest.mark.parametrize("team", TEAMS)
def test_every_sender_and_every_team(fleet: Fleet, team: str, rabbit: RabbitServer | None) -> None:
    staff(fleet, team)

    due = send_from_everywhere(fleet, fleet.server, [0.3, 1.0, 1.0, 0.6])

    expect_on_time(fleet, due)
    expect_once(fleet, due, rabbit)
    if rabbit is not None:
        wait_for(
            lambda: not delay_queues(rabbit, fleet.names), 20, lambda: f"left: {delay_queues(rabbit, fleet.names)}"
        )


@pytest.mark.parametrize("fleet", [*REDIS, *AMQP], indirect=True)
@pytest.mark.parametrize("team", TEAMS)
def test_many_due_within_one_second(fleet: Fleet, team: str, rabbit: RabbitServer | None) -> None:
    staff(fleet, team)
    due: dict[str, datetime] = {}

    for seconds in (2.0, 10.0):
        start = soon(seconds)
        etas = [start + timedelta(seconds=index / MANY) for index in range(MANY)]
        random.shuffle(etas)
        half = MANY // 2
        due |= {fleet.server.send_task(new_signature("who", eta=eta)).signature.uuid: eta for eta in etas[:half]}
        sent = fleet.client.send_many([signature("who", ETA=eta.isoformat()) for eta in etas[half:]])
        due |= dict(zip(sent, etas[half:], strict=True))
        if datetime.now(timezone.utc) < start:
            break  # else the machine was busy, and none of them had to wait
    assert datetime.now(timezone.utc) < start, "sending took longer than the delay"

    expect_on_time(fleet, due)
    expect_once(fleet, due, rabbit)


@pytest.mark.redis
@pytest.mark.parametrize("fleet", [REDIS[0]], indirect=True)
def test_the_earliest_first_when_only_python_moves_them(fleet: Fleet) -> None:
    """More than one round of the mover, all of them due already when the worker starts, and none when it was sent."""
    start = soon(3)
    etas = [start + timedelta(milliseconds=index) for index in range(250)]
    random.shuffle(etas)
    due = {fleet.server.send_task(new_signature("who", eta=eta)).signature.uuid: eta for eta in etas}
    wait_for(lambda: datetime.now(timezone.utc) > max(etas))

    fleet.python(pool="solo")

    order = expect_on_time(fleet, due)
    assert order == sorted(order, key=due.__getitem__)


@pytest.mark.parametrize("fleet", AMQP, indirect=True)
@pytest.mark.parametrize("team", TEAMS)
def test_one_delay_queue_for_all(fleet: Fleet, team: str, rabbit_server: RabbitServer) -> None:
    """Later ones behind earlier ones: RabbitMQ looks at the head of a queue only."""
    delayed_queue = f"delayed-{fleet.names.queue}"
    staff(fleet, team, delayed_queue=delayed_queue)
    server = server_of(fleet, delayed_queue)
    client = fleet.start_client(**{**fleet.options(), "delayed_queue": delayed_queue})

    due: dict[str, datetime] = {}
    for delay in (0.5, 0.8, 1.1):
        eta = soon(delay)
        due[server.send_task(new_signature("who", eta=eta)).signature.uuid] = eta
        due[client.send(signature("who", ETA=eta.isoformat()))] = eta
        due[server.app.send_task("who", eta=eta).id] = eta

    assert delayed_queue in rabbit_server.list_queues()
    expect_on_time(fleet, due)
    expect_once(fleet, due, rabbit_server)
    assert not delay_queues(rabbit_server, fleet.names)


@pytest.mark.parametrize("fleet", AMQP, indirect=True)
@pytest.mark.parametrize("delayed_queue", ["", "one-for-all"])
def test_a_delayed_message_keeps_its_priority(fleet: Fleet, delayed_queue: str, rabbit_server: RabbitServer) -> None:
    delayed_queue = delayed_queue and f"{delayed_queue}-{fleet.names.queue}"
    server = server_of(fleet, delayed_queue)

    sent = server.send_task(new_signature("who", eta=soon(0.2), priority=7))

    message = next(arriving(rabbit_server, fleet.names.queue))
    assert message.properties["priority"] == 7
    body = Signature.decode(bytes(message.body))
    assert (body.uuid, body.priority) == (sent.signature.uuid, 7)


@pytest.mark.redis
@pytest.mark.parametrize("fleet", [REDIS[0]], indirect=True)
def test_priorities_hold_among_what_is_due_at_once(fleet: Fleet) -> None:
    eta = soon(0.3)
    due = {}
    for priority in (0, 3, 9, 0, 5):
        sent = fleet.server.send_task(new_signature("who", eta=eta, priority=priority)).signature
        due[sent.uuid] = priority
    wait_for(lambda: datetime.now(timezone.utc) > eta)

    fleet.python(pool="solo")

    ran = wait_for(lambda: executions if len(executions := fleet.executions()) == len(due) else None)
    assert [due[one.uuid] for one in ran] == [9, 5, 3, 0, 0]


def test_an_eta_in_the_past_is_due_now(fleet: Fleet) -> None:
    fleet.python(pool="solo")
    began = time.monotonic()

    for eta in ("0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", soon(-5).isoformat(), soon(0.001).isoformat()):
        assert fleet.server.send_task(new_signature("who", eta=eta)).get_with_timeout(10) == ["py"]
    assert time.monotonic() - began < LATEST


def delay_queues(rabbit: RabbitServer, names: Names) -> list[str]:
    return [name for name in rabbit.list_queues() if name.startswith("delay.") and names.exchange in name]


def arriving(rabbit: RabbitServer, queue: str) -> Iterator[amqp.Message]:
    """The messages of a queue, as they come."""
    host = f"127.0.0.1:{rabbit.port}"
    with closing(amqp.Connection(host, userid="guest", password="guest")) as connection:  # noqa: S106
        connection.connect()
        with closing(connection.channel()) as channel:
            while True:
                yield wait_for(lambda: channel.basic_get(queue, no_ack=True))
