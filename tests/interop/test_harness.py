"""The harness itself: Go sends to Go, with each version and broker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from tests.conftest import GoClientFactory, GoWorkerFactory, Names
from tests.support.golang import AMQP_FLAVORS, REDIS_FLAVORS, GoClient, GoWorker, arg, signature
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for
from tests.support.workers import Execution

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


def test_a_chain_passes_its_results_on(pair: Pair) -> None:
    steps = [
        signature("add", arg("int64", 2), arg("int64", 2)),
        signature("add", arg("int64", 5), arg("int64", 6)),
        signature("multiply", arg("int64", 4)),
    ]
    uuids = pair.client.must(op="send_chain", signatures=steps)["uuids"]

    assert pair.client.values(uuids[-1]) == [60]


def test_a_task_knows_its_signature(pair: Pair) -> None:
    uuid = pair.client.send(signature("go_headers", Headers={"tenant": "blue"}))
    assert [json.loads(text) for text in pair.client.values(uuid)] == [{"tenant": "blue"}]

    uuid = pair.client.send(signature("go_signature", Priority=3))
    [seen] = [json.loads(text) for text in pair.client.values(uuid)]
    assert (seen["UUID"], seen["Name"], seen["Priority"]) == (uuid, "go_signature", 3)


SCALARS = {
    "bool": True,
    "string": "ä<&>\u2028",
    **dict.fromkeys(["int", "int8", "int16", "int32", "int64"], -128),
    **dict.fromkeys(["uint", "uint8", "uint16", "uint32", "uint64"], 255),
    **dict.fromkeys(["float32", "float64"], 0.5),
}


@pytest.mark.redis
def test_every_type_comes_back(redis_db: str, go_worker: GoWorkerFactory, go_client: GoClientFactory) -> None:
    go_worker(broker=redis_db, backend=redis_db)
    client = go_client(broker=redis_db, backend=redis_db)
    cases = {f"go_echo_{kind}": (kind, value) for kind, value in SCALARS.items()}
    cases |= {f"go_echo_slice_{kind}": (f"[]{kind}", [value, value]) for kind, value in SCALARS.items()}
    cases["go_echo_slice_uint8"] = ("[]uint8", "AP8=")
    cases["go_echo_bytes"] = ("[]byte", "AP8=")

    uuids = client.send_many([signature(name, arg(kind, value)) for name, (kind, value) in cases.items()])

    answers = {name: client.get(uuid) for name, uuid in zip(cases, uuids, strict=True)}
    assert answers == {
        name: {"results": [{"type": kind.replace("byte", "uint8"), "json": value}]}
        for name, (kind, value) in cases.items()
    }


@pytest.mark.redis
def test_the_remaining_tasks(redis_db: str, go_worker: GoWorkerFactory, go_client: GoClientFactory) -> None:
    go_worker(broker=redis_db, backend=redis_db)
    client = go_client(broker=redis_db, backend=redis_db)

    def run(name: str, *args: dict[str, object], **fields: object) -> object:
        answer = client.get(client.send(signature(name, *args, **fields)))
        return answer.get("error") or [result["json"] for result in answer["results"]]

    assert run("go_nothing") == []
    assert run("go_panic") == "go_panic"
    assert run("go_swap", arg("string", "a"), arg("int64", 1)) == [1, "a"]
    assert run("go_concat", arg("[]string", ["foo", "bar"])) == ["foobar"]
    assert run("go_fail_times", arg("string", "key"), arg("int64", 2), RetryCount=1) == [2]
    assert run("mixed", arg("int64", 7)) == [7]
    assert run("who") == ["go"]
    assert run("go_add", arg("string", "1")) == "reflect: cannot use string as type int64 in Call"
    assert run("go_swap") == "reflect: Call with too few input arguments"


@pytest.mark.redis
def test_delayed_and_pending_tasks_can_be_listed(redis_db: str, go_client: GoClientFactory) -> None:
    client = go_client(broker=redis_db, backend=redis_db)
    client.send(signature("who", ETA="2999-01-01T00:00:00Z"))
    client.send(signature("mixed", arg("int64", 1)))

    assert [task["Name"] for task in client.must(op="delayed")["signatures"]] == ["who"]
    assert [task["Name"] for task in client.must(op="pending")["signatures"]] == ["mixed"]


@pytest.mark.redis
def test_values_that_go_could_not_have_sent_are_refused_unless_literal(
    redis_db: str, go_client: GoClientFactory
) -> None:
    client = go_client(broker=redis_db, backend=redis_db)
    wrong = signature("mixed", arg("int64", "text"))

    assert client.request(op="send", signature=wrong)["error"] == "argument 0 of mixed: text is not int64"
    assert client.must(op="send", signature=wrong, literal=True)["uuid"]


@pytest.mark.redis
def test_two_workers_share_a_journal(redis_db: str, go_worker: GoWorkerFactory, go_client: GoClientFactory) -> None:
    first = go_worker(broker=redis_db, backend=redis_db)
    go_worker(broker=redis_db, backend=redis_db, journal=first.journal)
    client = go_client(broker=redis_db, backend=redis_db)

    uuids = client.send_many([signature("mixed", arg("int64", number)) for number in range(200)])

    for uuid in uuids:
        client.values(uuid)
    assert sorted(execution.uuid for execution in first.executions()) == sorted(uuids)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("flavor", AMQP_FLAVORS)
def test_results_can_be_kept_in_rabbitmq(
    flavor: str, rabbit_server: RabbitServer, names: Names, go_worker: GoWorkerFactory, go_client: GoClientFactory
) -> None:
    url = rabbit_server.url()
    go_worker(flavor=flavor, broker=url, backend=url, queue=names.queue, exchange=names.exchange)
    client = go_client(flavor=flavor, broker=url, backend=url, queue=names.queue, exchange=names.exchange)

    assert client.values(client.send(signature("add", arg("int64", 1), arg("int64", 2)))) == [3]
