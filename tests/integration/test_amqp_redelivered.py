"""What RabbitMQ delivers again: which run of its task begins with it, and when it is given up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import amqp
import pytest

from machinery_compat import FAILURE, STARTED, SUCCESS, Config, Server, Signature, TaskState, new_signature
from machinery_compat.config import AMQPConfig
from machinery_compat.transport.base import deliveries, redelivered
from tests.conftest import Names
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]

LIMIT = 5


class Desk:
    """A queue with a worker's place at it: messages are taken, and lost with their connection."""

    def __init__(self, server: Server, queue: str) -> None:
        self.server = server
        self.queue = queue
        self.taken: list[Any] = []
        self._connection: Any = None

    @property
    def signature(self) -> Signature:
        return new_signature("py_task", uuid="task_1")

    def send(self, count: int = 0, signature: Signature | None = None) -> None:
        """Sends a message of the task, so often counted."""
        body = redelivered((signature or self.signature).encode(), count)
        with self.server.app.connection_for_write() as connection:
            self.server.app.amqp.queues[self.queue](connection.default_channel).declare()
            connection.default_channel.publish_confirmed(
                amqp.Message(body, delivery_mode=2), exchange="", routing_key=self.queue, mandatory=True
            )

    def look(self) -> None:
        """Takes a worker's place."""
        self._connection = self.server.app.connection_for_read()
        queue = self.server.app.amqp.queues[self.queue]
        self._connection.Consumer(queue, on_message=self.taken.append).consume()

    def _drain(self) -> bool:
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=0.05)
        return True

    def take(self) -> int:
        """Takes the next message; returns the number of the run that it begins."""
        self.taken.clear()
        if self._connection is None:
            self.look()
        wait_for(lambda: self._drain() and self.taken)
        return deliveries(self.taken[-1].raw_body)

    def lose(self) -> None:
        """Loses the connection; what was taken and not settled will be delivered again."""
        self._connection.release()
        self._connection = None

    def store(self, state: str, run: int = 0) -> None:
        """Stores what a run of the task has come to."""
        backend, raw = self.server.app.backend, redelivered(self.signature.encode(), run)
        request = SimpleNamespace(id="task_1", task="py_task", machinery=raw, chord=None, ignore_result=False)
        backend.store_result("task_1", None if state != FAILURE else ValueError("no"), state, request=request)

    def state(self) -> TaskState:
        state = self.server.backend.task_state("task_1")
        assert state is not None
        return state

    def waiting(self, queue: str = "") -> int:
        with self.server.app.connection_for_write() as connection:
            return int(connection.default_channel.queue_declare(queue or self.queue, passive=True).message_count)

    def buried(self) -> dict[str, Any]:
        """The one entry of the dead queue, once it is there; nothing is delivered meanwhile."""
        self.taken.clear()
        self.look()
        with self.server.app.connection_for_write() as connection:
            channel = connection.default_channel
            channel.queue_declare(f"{self.queue}:dead", durable=True, auto_delete=False)
            found = wait_for(lambda: self._drain() and channel.basic_get(f"{self.queue}:dead", no_ack=True))
        assert self.taken == []
        self.lose()
        assert self.waiting() == 0
        entry: dict[str, Any] = json.loads(found.body)
        return entry


@pytest.fixture(params=["results on Redis", "results on RabbitMQ"])
def desk(request: pytest.FixtureRequest, rabbit_server: RabbitServer, redis_db: str, names: Names) -> Iterator[Desk]:
    settings = AMQPConfig(exchange=names.exchange, binding_key=names.queue)
    broker = rabbit_server.url()
    results = redis_db if request.param == "results on Redis" else broker
    server = Server(Config(broker=broker, result_backend=results, default_queue=names.queue, amqp=settings))
    server.register_task("py_task", lambda: None)
    desk = Desk(server, names.queue)
    yield desk
    if desk._connection is not None:
        desk.lose()


def test_what_had_begun_runs_again_at_once(desk: Desk) -> None:
    """Before what waits behind it; the state keeps the number of the run."""
    desk.send()
    assert desk.take() == 0
    desk.store(STARTED)
    desk.lose()
    desk.send(signature=new_signature("py_task", uuid="task_2"))

    assert desk.take() == 1

    assert desk.taken[0].signature.uuid == "task_1"
    assert desk.state().celery == '{"run": 1}'


def test_what_had_begun_twice_goes_behind_the_others_with_its_count(desk: Desk) -> None:
    desk.send()
    desk.take()
    desk.store(STARTED, 1)
    desk.lose()
    desk.send(signature=new_signature("py_task", uuid="task_2"))

    assert desk.take() == 0
    assert desk.taken[0].signature.uuid == "task_2"
    assert desk.take() == 2
    assert desk.taken[0].signature.uuid == "task_1"


def test_what_has_not_begun_since_keeps_the_number_of_its_run(desk: Desk) -> None:
    desk.send()
    desk.take()
    desk.store(STARTED)
    for _ in range(3):
        desk.lose()
        assert desk.take() == 1


def test_who_loses_each_worker_is_given_up(desk: Desk) -> None:
    desk.send()
    for run in range(LIMIT + 1):
        assert desk.take() == run
        desk.store(STARTED, run)
        desk.lose()

    entry = desk.buried()

    assert entry["reason"].startswith(f"given up after {LIMIT + 1} runs")
    assert deliveries(entry["body"].encode()) == LIMIT
    assert desk.state().state == FAILURE
    assert desk.state().error == entry["reason"]


def test_a_go_worker_that_dies_in_between_is_counted_too(desk: Desk) -> None:
    """The documents that it writes say nothing of runs."""
    desk.send(count=3)
    desk.take()
    desk.server.backend.update_states([TaskState(task_uuid="task_1", state=STARTED)])
    desk.lose()

    assert desk.take() == 4


@pytest.mark.parametrize("state", [SUCCESS, FAILURE])
def test_a_message_that_never_began_is_not_counted_for_the_end_of_its_task(desk: Desk, state: str) -> None:
    """Go has sent a chord's callback twice. One message has run; the workers that had fetched the other died."""
    twin = new_signature("py_task", uuid="task_1", on_success=[new_signature("py_told")])
    desk.store(state)
    desk.send(signature=twin)
    desk.take()

    for _ in range(LIMIT + 2):
        desk.lose()
        assert desk.take() == 1

    assert desk.state().state == state


def test_a_counted_message_that_has_not_begun_is_not_counted_again(desk: Desk) -> None:
    desk.store(FAILURE, 1)
    desk.send(count=2)
    desk.take()
    desk.lose()

    assert desk.take() == 2


def test_what_always_ends_and_is_never_acknowledged_is_kept_and_its_state_stays(desk: Desk) -> None:
    """As when the user's code that follows a task's end kills the worker."""
    desk.send()
    for run in range(LIMIT + 2):
        assert desk.take() == run
        desk.store(STARTED, run)
        desk.store(FAILURE, run)
        desk.lose()
    end = desk.state()

    entry = desk.buried()

    assert "its state is FAILURE" in entry["reason"]
    assert desk.state() == end
    assert end.error == "no"


def test_a_success_without_followers_is_acknowledged(desk: Desk) -> None:
    desk.send()
    desk.take()
    desk.store(STARTED)
    desk.store(SUCCESS)
    desk.lose()

    desk.send(signature=new_signature("py_task", uuid="task_2"))
    desk.take()

    assert desk.taken[0].signature.uuid == "task_2"
    desk.taken[0].ack()
    desk.lose()
    assert desk.waiting() == 0
