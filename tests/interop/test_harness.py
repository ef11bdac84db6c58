"""The harness itself: Go sends to Go, with each version and broker."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from tests.conftest import GoClientFactory, GoWorkerFactory, Names
from tests.support.golang import AMQP_FLAVORS, REDIS_FLAVORS, Execution, GoClient, GoWorker, arg, signature
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.go

FLAVORS = [
    *(pytest.param(flavor, marks=pytest.mark.redis) for flavor in REDIS_FLAVORS),
    *(pytest.param(flavor, marks=[pytest.mark.redis, pytest.mark.rabbitmq]) for flavor in AMQP_FLAVORS),
]


@dataclass(frozen=True)
class Pair:
    worker: GoWorker
    client: GoClient


@pytest.fixture(params=FLAVORS)
def pair(
    request: pytest.FixtureRequest,
    redis_db: str,
    names: Names,
    go_worker: GoWorkerFactory,
    go_client: GoClientFactory,
) -> Pair:
    """A worker and a client of one flavor on a queue of their own."""
    broker = redis_db
    if request.param in AMQP_FLAVORS:
        server: RabbitServer = request.getfixturevalue("rabbit_server")
        broker = server.url()
    options = {
        "flavor": request.param,
        "broker": broker,
        "backend": redis_db,
        "queue": names.queue,
        "exchange": names.exchange,
    }
    return Pair(go_worker(**options), go_client(**options))


def test_a_task_runs_once_and_its_result_comes_back(pair: Pair) -> None:
    uuid = pair.client.send(signature("go_add", arg("int64", 1), arg("int64", 2)))

    assert pair.client.get(uuid) == {"results": [{"type": "int64", "json": 3}]}
    assert pair.worker.executions() == [Execution(uuid, "go_add", "go")]


def test_a_delayed_task_waits_for_its_eta(pair: Pair) -> None:
    eta = datetime.now(timezone.utc) + timedelta(seconds=1)
    uuid = pair.client.send(signature("go_who", ETA=eta.isoformat()))

    assert pair.client.state(uuid)["State"] == "PENDING"
    assert pair.client.values(uuid) == ["go"]
    assert datetime.now(timezone.utc) >= eta


def test_a_failure_keeps_its_text(pair: Pair) -> None:
    uuid = pair.client.send(signature("go_fail", arg("string", "no luck <&>")))

    assert pair.client.get(uuid) == {"results": None, "error": "no luck <&>"}


def test_retries_are_counted_in_redis(pair: Pair) -> None:
    uuid = pair.client.send(
        signature("go_retry_later", arg("string", pair.worker.connection.queue), arg("int64", 3), arg("int64", 50))
    )

    assert pair.client.values(uuid) == [3]
    assert [execution.uuid for execution in pair.worker.executions()] == [uuid] * 3


def test_a_chord_gets_the_results_of_its_group(pair: Pair) -> None:
    pairs = [(1, 1), (2, 2), (5, 6)]
    sums = [signature("add", arg("int64", left), arg("int64", right)) for left, right in pairs]
    sent = pair.client.must(op="send_chord", signatures=sums, callback=signature("multiply"))

    assert pair.client.values(sent["callback_uuid"]) == [88]
    assert len(pair.worker.executions()) == 4


def test_a_worker_that_is_told_to_ends_gracefully(pair: Pair) -> None:
    uuid = pair.client.send(signature("go_sleep", arg("int64", 300)))
    wait_for(pair.worker.executions, message="the task did not begin")

    assert pair.worker.stop() == 0
    assert pair.client.values(uuid) == [300]
