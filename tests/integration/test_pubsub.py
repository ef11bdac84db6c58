"""Google Pub/Sub as a broker, with Python workers; Go's part is in tests/interop."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from redis import Redis

from machinery_compat import Celery, Chain, Config, Server, errors, new_signature
from machinery_compat.config import GCPPubSubConfig
from machinery_compat.transport.base import redelivered
from tests.conftest import Names
from tests.integration.apps import PUBSUB_LEASE
from tests.support.python_worker import PythonWorker
from tests.support.services import PubSubServer
from tests.support.waiting import wait_for
from tests.support.workers import read_journal

pytestmark = [pytest.mark.pubsub, pytest.mark.redis]

WAIT = 25
TASKS = "tests.fault.tasks,tests.integration.tasks"


class Fleet:
    """A queue on Pub/Sub and its Python workers."""

    def __init__(self, pubsub: PubSubServer, results: str, queue: str, directory: Path, stack: ExitStack) -> None:
        self.pubsub, self.results, self.queue, self.directory, self.stack = pubsub, results, queue, directory, stack
        self.journal = directory / "journal"
        self.server = Server(self.config())
        pubsub.make(queue)

    def config(self, **options: Any) -> Config:
        broker = self.pubsub.url(self.queue)
        return Config(broker=broker, result_backend=self.results, default_queue=self.queue, **options)

    @property
    def app(self) -> Celery:
        app: Celery = self.server.app
        return app

    def worker(self, **options: Any) -> PythonWorker:
        given: dict[str, Any] = {
            "app": "tests.integration.apps:pubsub",
            "tasks": TASKS,
            "queue": self.queue,
            "broker": self.pubsub.url(self.queue),
            **options,
        }
        worker = PythonWorker(self.directory, self.journal, backend=self.results, **given)
        self.stack.callback(lambda: print(f"--- {worker.log.name}\n{worker.process.tail()}"))
        # A stop in order waits for Pub/Sub's longest look; the tests of stopping call it themselves.
        self.stack.callback(worker.kill)
        return worker.wait_ready()

    def runs(self) -> Counter[str]:
        return Counter(one.uuid for one in read_journal(self.journal))

    def document(self, uuid: str) -> dict[str, Any]:
        with Redis.from_url(self.results) as client:
            found: dict[str, Any] = json.loads(client.get(uuid))
            return found

    def close(self) -> None:
        self.app.close()


@pytest.fixture
def fleet(pubsub_server: PubSubServer, redis_db: str, names: Names, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        made = Fleet(pubsub_server, redis_db, names.queue, tmp_path, stack)
        stack.callback(made.close)
        yield made


# -- connecting


def test_a_topic_that_is_not_there_is_one_clear_error(fleet: Fleet) -> None:
    app = Celery("x", broker=fleet.pubsub.url("none"), set_as_current=False)
    app.conf.task_default_queue = "none"
    with pytest.raises(errors.ConfigError, match=r"^topic does not exist, instead got none; create it: gcloud pubsub"):
        app.connection().connect()
    with pytest.raises(errors.BrokerError, match=r"^topic does not exist, instead got elsewhere; create it: gcloud"):
        fleet.server.send_task(new_signature("py_add", 1, routing_key="elsewhere"))


def test_a_worker_without_its_subscription_ends_with_one_clear_error(fleet: Fleet) -> None:
    with pytest.raises(AssertionError, match="ended at its start"):
        fleet.worker(broker=fleet.pubsub.url("another"))
    (log,) = fleet.directory.glob("python-worker-*.log")
    command = f"gcloud pubsub subscriptions create another --topic={fleet.queue} --project={fleet.pubsub.PROJECT}"
    assert f"subscription does not exist, instead got another; create it: {command}" in log.read_text()


def test_what_pubsub_cannot_do_is_an_error_that_says_so(fleet: Fleet) -> None:
    with pytest.raises(errors.BrokerError, match="carries tasks only"):
        fleet.app.control.ping(timeout=0.1)
    with pytest.raises(errors.BrokerError, match="neither counts nor lists"):
        fleet.app.control.purge()
    channel = fleet.app.connection().default_channel
    for listing in (lambda: channel.pending_tasks(fleet.queue), channel.delayed_tasks):
        with pytest.raises(errors.BrokerError, match="Not implemented"):
            listing()
    with pytest.raises(errors.EncodeError, match="machinery_max_body_size is"):
        fleet.server.send_task(new_signature("py_echo", "x" * 10_000_001))
    fleet.app.conf.machinery_max_body_size = 0
    unbounded = Server(fleet.config())
    unbounded.app.conf.machinery_max_body_size = 0
    with pytest.raises(errors.EncodeError, match="Pub/Sub takes 10000000 at most"):
        unbounded.send_task(new_signature("py_echo", "x" * 10_000_001))


def test_a_client_of_ones_own(fleet: Fleet) -> None:
    """Google's own clients, which speak gRPC, in a program without a pool of processes."""
    from google.cloud import pubsub_v1

    made = []

    def clients() -> tuple[Any, Any]:
        made.append((pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()))
        return made[-1]

    server = Server(fleet.config(gcp_pubsub=GCPPubSubConfig(client=clients)))
    server.register_task("double", lambda x: 2 * x)
    worker = server.new_worker("own", 1)
    worker.launch_async()
    try:
        assert server.send_task(new_signature("double", 21)).get_with_timeout(WAIT) == [42]
        due = datetime.now(timezone.utc) + timedelta(seconds=0.5)
        assert server.send_task(new_signature("double", 4, eta=due)).get_with_timeout(WAIT) == [8]
        assert datetime.now(timezone.utc) >= due
    finally:
        worker.quit()
        for publisher, subscriber in made:
            publisher.transport.close()
            subscriber.close()
    assert len(made) > 1


def test_a_client_that_cannot_be_made_again_is_refused(fleet: Fleet) -> None:
    server = Server(fleet.config(gcp_pubsub=GCPPubSubConfig(client=object())))
    with pytest.raises(errors.ConfigError, match="a function without arguments"):
        server.send_task(new_signature("py_add", 1))


# -- what a worker does


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_each_pool_runs_tasks_and_ends_in_order(fleet: Fleet, pool: str) -> None:
    worker = fleet.worker(pool=pool, arguments=("-E",))
    results = [fleet.app.send_task("py_add", [n, 1]) for n in range(20)]
    assert [one.get(timeout=WAIT) for one in results] == list(range(1, 21))
    chain = Chain(*[new_signature("py_add", n) for n in range(4)])
    assert fleet.server.send_chain(chain).get_with_timeout(WAIT) == [6]
    assert worker.stop() == 0
    assert fleet.pubsub.take(fleet.queue) == []
    assert set(fleet.runs().values()) == {1}


def test_processes_that_are_forked_later_send_too(fleet: Fleet) -> None:
    fleet.worker(arguments=("--max-tasks-per-child", "1"), concurrency=1)
    fleet.pubsub.make("sent_by_the_second")
    steps = [new_signature("py_add", n) for n in range(2)]
    fleet.server.send_chain(Chain(*steps, new_signature("py_add", 2, routing_key="sent_by_the_second")))
    wait_for(lambda: fleet.pubsub.take("sent_by_the_second"), WAIT)
    assert [fleet.runs()[one.uuid] for one in steps] == [1, 1]


def test_a_warm_shutdown_gives_back_what_has_not_begun(fleet: Fleet, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = fleet.worker(concurrency=1)
    running = fleet.app.send_task("until", [str(gate)])
    wait_for(lambda: running.state == "STARTED", WAIT)
    waiting = [fleet.app.send_task("py_add", [n, 0]) for n in range(3)]
    wait_for(lambda: all(one.state == "RECEIVED" for one in waiting), WAIT)

    os.kill(first.process.pid, signal.SIGTERM)
    second = fleet.worker(concurrency=1)

    # The first one still runs its task.
    assert [one.get(timeout=WAIT) for one in waiting] == [0, 1, 2]
    gate.touch()
    assert running.get(timeout=WAIT) == str(gate)
    assert first.process.popen.wait(WAIT) == 0
    assert second.stop() == 0
    assert set(fleet.runs().values()) == {1}


def test_a_long_task_is_not_run_twice_and_a_killed_workers_is(fleet: Fleet, tmp_path: Path) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()
    first = fleet.worker(concurrency=1, arguments=("--prefetch-multiplier", "1"))
    result = fleet.app.send_task("held", ["a", str(gates)])
    wait_for(lambda: len(list(gates.iterdir())) == 1, WAIT)
    fleet.worker()
    # Several leases pass.
    delayed = fleet.app.send_task("py_add", [1, 1], countdown=2.5 * PUBSUB_LEASE)
    assert delayed.get(timeout=WAIT) == 2
    assert fleet.runs()[result.id] == 1

    first.kill()
    wait_for(lambda: len(list(gates.iterdir())) == 2, WAIT)
    (gates / "open").touch()

    assert result.get(timeout=WAIT) == "a"
    assert fleet.runs()[result.id] == 2
    assert '"run": 1' in fleet.document(result.id)["Celery"]


def test_a_task_that_kills_its_process_is_given_up(fleet: Fleet) -> None:
    worker = fleet.worker(concurrency=1)
    result = fleet.app.send_task("killer", ["kill"])
    wait_for(lambda: result.state == "FAILURE", WAIT)
    assert "given up after 2 runs" in str(result.result)
    assert fleet.runs()[result.id] == 2
    wait_for(lambda: f"kept in {fleet.queue}-dead" in worker.text(), WAIT)
    (entry,) = fleet.app.machinery.dead_letters().entries()
    assert entry.deliveries == 1
    assert "given up after 2 runs" in entry.reason
    assert fleet.app.send_task("py_add", [1, 2]).get(timeout=WAIT) == 3


def test_a_task_may_put_its_message_back_as_often_as_it_likes(fleet: Fleet) -> None:
    fleet.worker(concurrency=1)
    assert fleet.app.send_task("hesitant", [8]).get(timeout=WAIT) == [False] + [True] * 8


def test_a_lost_acknowledgement_runs_nothing_again(fleet: Fleet) -> None:
    fleet.worker()
    result = fleet.app.send_task("py_add", [1, 2])
    assert result.get(timeout=WAIT) == 3
    body = new_signature("py_add", 1, 2)
    body.uuid = result.id
    fleet.pubsub.publish(fleet.queue, body.encode())
    assert fleet.app.send_task("py_add", [2, 2]).get(timeout=WAIT) == 4
    assert fleet.runs()[result.id] == 1


def test_what_was_counted_before_runs_once_more(fleet: Fleet) -> None:
    signature = new_signature("py_add", 1, 2)
    fleet.server.backend.store_pending(signature, "elsewhere")
    fleet.pubsub.publish(fleet.queue, redelivered(signature.encode(), 2))
    fleet.worker()
    result = fleet.app.AsyncResult(signature.uuid)
    assert result.get(timeout=WAIT) == 3
    assert '"run": 2' in fleet.document(signature.uuid)["Celery"]


def test_an_unknown_task_goes_to_a_worker_that_knows_it(fleet: Fleet) -> None:
    first = fleet.worker(tasks="tests.support.tasks")
    known_later = fleet.app.send_task("number", [7])
    wait_for(lambda: "is not registered here: put back" in first.text(), WAIT)
    assert known_later.state == "PENDING"
    dropped = new_signature("nobody", ignore_when_task_not_registered=True)
    fleet.server.send_task(dropped)
    wait_for(lambda: "IgnoreWhenTaskNotRegistered: dropped" in first.text(), WAIT)
    fleet.worker(VALUES=str(fleet.directory / "values"))
    assert known_later.get(timeout=WAIT) == 7


def test_poison_is_kept_listed_put_back_and_deleted(fleet: Fleet) -> None:
    worker = fleet.worker()
    fleet.pubsub.publish(fleet.queue, b"\xff no signature", b"{}", b'{"Name": "py_add", "UUID": "task_x", "Args": 3}')
    wait_for(lambda: worker.text().count(f"kept in {fleet.queue}-dead") == 3, WAIT)
    assert fleet.app.send_task("py_add", [1, 2]).get(timeout=WAIT) == 3
    dead = fleet.app.machinery.dead_letters()
    entries = list(dead.entries())
    assert [one.number for one in entries] == [1, 2, 3]
    assert {one.body for one in entries} >= {b"\xff no signature", b"{}"}
    assert all(one.queue == fleet.queue and "unmarshal" in one.reason for one in entries)
    assert len(dead.requeue().unreadable) == 3
    assert dead.purge([1, 2]) == 2
    assert len(list(dead.entries())) == 1
    assert dead.purge() == 1
    assert list(dead.entries()) == []


def test_a_dead_task_goes_back_to_its_queue(fleet: Fleet) -> None:
    worker = fleet.worker()
    bad = fleet.server.send_task(new_signature("py_add", "not a number"))
    raw = {"UUID": bad.signature.uuid, "Name": "py_add", "Args": [{"Type": "int64", "Value": "x"}]}
    fleet.pubsub.publish(fleet.queue, json.dumps(raw).encode())
    wait_for(lambda: "kept in" in worker.text(), WAIT)
    dead = fleet.app.machinery.dead_letters()
    (entry,) = dead.entries()
    assert entry.signature is not None
    worker.stop()
    assert [one.signature.uuid for one in dead.requeue().moved if one.signature] == [bad.signature.uuid]
    assert fleet.app.AsyncResult(bad.signature.uuid).state == "PENDING"
    wait_for(lambda: fleet.pubsub.take(fleet.queue), WAIT)


# -- delays


def test_a_delayed_task_waits_where_only_python_looks(fleet: Fleet) -> None:
    result = fleet.app.send_task("py_add", [1, 2], countdown=2)
    assert fleet.pubsub.take(fleet.queue) == []
    due = datetime.now(timezone.utc) + timedelta(seconds=7)
    later = fleet.app.send_task("py_add", [3, 4], eta=due)
    worker = fleet.worker()
    fleet.pubsub.publish(f"{fleet.queue}-delayed", b"no signature")
    assert result.get(timeout=WAIT) == 3
    assert later.get(timeout=WAIT) == 7
    assert datetime.now(timezone.utc) >= due
    assert "Could not unmarshal a delayed task" in worker.text()


def test_another_queue_has_a_subscription_of_its_own(fleet: Fleet) -> None:
    other = f"{fleet.queue}-b"
    fleet.pubsub.make(other)
    fleet.worker(arguments=("-Q", f"{fleet.queue},{other}"))
    sent = [new_signature("py_add", 1, 2, routing_key=key) for key in ("", other)]
    assert [fleet.server.send_task(one).get_with_timeout(WAIT) for one in sent] == [[3], [3]]
    delayed = new_signature("py_add", 2, 2, routing_key=other, eta=datetime.now(timezone.utc) + timedelta(seconds=0.5))
    assert fleet.server.send_task(delayed).get_with_timeout(WAIT) == [4]


def test_a_broker_that_goes_away_and_comes_back(redis_db: str, names: Names, tmp_path: Path) -> None:
    with PubSubServer() as pubsub, ExitStack() as stack:
        fleet = Fleet(pubsub, redis_db, names.queue, tmp_path, stack)
        stack.callback(fleet.close)
        worker = fleet.worker()
        assert fleet.app.send_task("py_add", [1, 2]).get(timeout=WAIT) == 3
        pubsub.kill()
        wait_for(lambda: "nothing can be taken" in worker.text(), WAIT)
        with pytest.raises((OperationalError, OSError)):
            fleet.app.send_task("py_add", [1, 2], retry=False)
        pubsub.start()
        # It has forgotten everything, and the fake begins to count anew.
        pubsub.make("other")
        pubsub.publish("other", b"x", b"x")
        pubsub.make(fleet.queue)
        assert fleet.app.send_task("py_add", [2, 2]).get(timeout=2 * WAIT) == 4
