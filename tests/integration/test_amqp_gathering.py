"""A busy worker on RabbitMQ: messages wait a moment for each other, and none waits for long or is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import Config, Server, Signature, new_signature
from machinery_compat.config import AMQPConfig
from machinery_compat.transport.border import OPTION, Border
from machinery_compat.transport.reconnect import PersistentConnection
from tests.conftest import Names
from tests.support.python_worker import PythonWorker
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]

PREFETCH = 8
SLOTS = 2
#: Half of the reserve of such a worker.
ENOUGH = 3


class Busy(Border):
    """An application with more than enough to do, until it is told otherwise."""

    enabled = True
    tasks = SLOTS + 1

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def held(self) -> int:
        return self.tasks

    def received(self, signatures: Sequence[Signature], runs: Sequence[int] = ()) -> None:
        self.batches.append([one.name for one in signatures])


class Timers:
    """The part of an event loop that a transport uses; time passes when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], Any]] = []

    def call_later(self, seconds: float, callback: Callable[[], Any]) -> Timers:
        self.waiting.append(callback)
        return self

    def cancel(self) -> None:
        self.waiting.clear()

    def fire(self) -> None:
        due, self.waiting = self.waiting, []
        for callback in due:
            callback()


class Place:
    """A consumer on a queue, without a worker."""

    def __init__(self, url: str, queue: str) -> None:
        self.border, self.timers = Busy(), Timers()
        self.names: list[str] = []
        self.queue = queue
        self.connection = PersistentConnection(
            url, transport="machinery_compat.transport.amqp:Transport", transport_options={OPTION: self.border}
        )
        self.channel = self.connection.default_channel
        self.channel.slots = lambda: SLOTS
        self.channel.queue_declare(queue, durable=True, auto_delete=False)
        self.channel.basic_qos(0, PREFETCH, False)
        self.connection.transport.call_later = self.timers.call_later
        self.publishing = self.connection.clone()
        self.channel.basic_consume(queue, "tag", callback=self._on_message)

    def _on_message(self, raw: Any) -> None:
        message = self.channel.message_to_python(raw)
        self.names.append(message.signature.name)

    def send(self, *names: str) -> None:
        """Sends tasks and reads them, each at once."""
        for name in names:
            signature = new_signature(name, routing_key=self.queue)
            self.publishing.default_channel.basic_publish(signature, "", self.queue)
            self.connection.drain_events(timeout=5)


@pytest.fixture
def place(rabbit_server: RabbitServer, names: Names) -> Iterator[Place]:
    place = Place(rabbit_server.url(), names.queue)
    yield place
    place.publishing.release()
    place.connection.release()


def test_several_are_received_at_once_and_in_order(place: Place) -> None:
    place.send("a", "b")
    assert place.names == []

    place.send("c")

    assert place.names == ["a", "b", "c"]
    assert place.border.batches == [["a", "b", "c"]]
    assert place.timers.waiting == []


def test_a_worker_with_nothing_else_to_do_gets_each_at_once(place: Place) -> None:
    place.send("a")
    assert place.names == []
    place.border.tasks = SLOTS

    place.send("b", "c")

    assert place.names == ["a", "b", "c"]
    assert place.border.batches == [["a", "b"], ["c"]]


def test_the_timer_delivers_what_nothing_follows(place: Place) -> None:
    place.send("a", "b")

    place.timers.fire()

    assert place.names == ["a", "b"]
    place.send("c")
    assert place.names == ["a", "b"]
    place.timers.fire()
    assert place.names == ["a", "b", "c"]


def test_what_is_not_delivered_goes_back(place: Place) -> None:
    place.send("a", "b")

    place.channel.basic_cancel("tag")
    place.channel.give_back_undelivered()

    assert place.names == []
    assert place.timers.waiting == []
    wait_for(lambda: [one.name for one in place.publishing.default_channel.pending_tasks(place.queue)] == ["a", "b"])


def test_a_lost_connection_delivers_nothing_more(place: Place) -> None:
    place.send("a", "b")

    place.connection.collect()
    place.timers.fire()

    assert place.names == []
    wait_for(lambda: len(place.publishing.default_channel.pending_tasks(place.queue)) == 2)


def test_a_busy_worker_says_soon_that_it_has_a_task(
    rabbit_server: RabbitServer, redis_db: str, names: Names, tmp_path: Path
) -> None:
    amqp = AMQPConfig(exchange=names.exchange, binding_key=names.queue)
    config = Config(broker=rabbit_server.url(), result_backend=redis_db, default_queue=names.queue, amqp=amqp)
    server = Server(config)
    gate = tmp_path / "gate"

    def states(sent: Sequence[Signature]) -> list[str]:
        return [state.state if state else "" for state in server.backend.task_states([one.uuid for one in sent])]

    with PythonWorker(
        tmp_path,
        broker=rabbit_server.url(),
        backend=redis_db,
        queue=names.queue,
        AMQP_EXCHANGE=names.exchange,
        AMQP_BINDING_KEY=names.queue,
        concurrency=SLOTS,
        tasks="tests.integration.tasks",
    ):
        sent: list[Signature] = []
        for number in range(PREFETCH):
            sent.append(server.send_task(new_signature("until", str(gate))).signature)
            expected = "STARTED" if number < SLOTS else "RECEIVED"
            wait_for(lambda: states(sent)[-1] == expected)  # noqa: B023
        gate.touch()
        wait_for(lambda: states(sent) == ["SUCCESS"] * PREFETCH)
