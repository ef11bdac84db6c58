"""What Go cannot do on SQS, or does otherwise, beside what Python does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import Server, new_signature
from tests.conftest import GoClientFactory, GoWorkerFactory, Names
from tests.interop.conftest import Fleet
from tests.support.golang import arg, signature
from tests.support.services import MotoServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.go, pytest.mark.redis, pytest.mark.sqs]

WAIT = 20


class SQSFleet(Fleet):
    """A queue on SQS."""

    moto: MotoServer

    def create(self, name: str, **attributes: str) -> None:
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        self.moto.client("sqs").create_queue(QueueName=name, Attributes=attributes)

    def take(self, name: str) -> list[str]:
        """Takes what is in a queue, none of which has attributes, and returns the bodies."""
        client, url = self.moto.client("sqs"), f"{self.broker}/{name}"
        found = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
        messages = found.get("Messages", [])
        for message in messages:
            assert not message.get("MessageAttributes")
            client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return [message["Body"] for message in messages]

    def put(self, name: str, body: str) -> None:
        """Past every check, as a stranger does."""
        self.moto.client("sqs").send_message(QueueUrl=f"{self.broker}/{name}", MessageBody=body)

    def counts(self, name: str) -> tuple[int, int]:
        """How many messages wait, and how many are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.moto.client("sqs").get_queue_attributes(QueueUrl=f"{self.broker}/{name}", AttributeNames=names)
        waiting, hidden = (int(answer["Attributes"][one]) for one in names)
        return waiting, hidden


@pytest.fixture
def on_sqs(
    moto_server: MotoServer,
    redis_db: str,
    names: Names,
    tmp_path: Path,
    go_worker: GoWorkerFactory,
    go_client: GoClientFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[SQSFleet]:
    variables = {**MotoServer.ENVIRONMENT, "DISABLE_STRICT_SQS_CHECK": "", "SQS_WAIT_TIME_SECONDS": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    broker = f"{moto_server.url()}/{MotoServer.ACCOUNT}"
    with ExitStack() as stack:
        fleet = SQSFleet("v2-sqs", broker, redis_db, names, tmp_path, stack, go_worker, go_client)
        fleet.moto = moto_server
        yield fleet


def in_an_hour() -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()


def test_go_refuses_a_long_delay_and_python_parks_it(on_sqs: SQSFleet) -> None:
    queue = on_sqs.names.queue
    on_sqs.create(queue)
    answer = on_sqs.client.request(op="send", signature=signature("go_add", arg("int64", 1), ETA=in_an_hour()))
    assert answer["error"].endswith("Max AWS SQS delay exceeded")
    later = new_signature("go_add", 1)
    later.set_eta(datetime.now(timezone.utc) + timedelta(hours=1))
    on_sqs.server.send_task(later)
    assert on_sqs.counts(queue) == (0, 0)
    assert on_sqs.server.backend.task_state(later.uuid).state == "PENDING"


def test_a_parked_task_of_go_is_sent_to_go_when_it_is_due(on_sqs: SQSFleet) -> None:
    queue, theirs = on_sqs.names.queue, f"{on_sqs.names.queue}-go"
    for name in (queue, theirs, f"{queue}-delayed"):
        on_sqs.create(name)
    due = datetime.now(timezone.utc) + timedelta(seconds=1)
    task = new_signature("go_add", 40, 2, routing_key=theirs)
    task.set_eta(due)
    on_sqs.moto.client("sqs").send_message(
        QueueUrl=f"{on_sqs.broker}/{queue}-delayed", MessageBody=task.encode().decode()
    )
    on_sqs.go(queue=theirs)
    on_sqs.python(pool="solo")
    assert on_sqs.client.values(task.uuid, timeout=WAIT) == [42]
    assert datetime.now(timezone.utc) >= due


def test_go_hides_what_it_does_not_know_and_python_gives_it_back(on_sqs: SQSFleet) -> None:
    queue = on_sqs.names.queue
    on_sqs.create(queue, VisibilityTimeout="600")
    worker = on_sqs.go()
    task = new_signature("py_add", 1)
    on_sqs.server.send_task(task)
    wait_for(lambda: "task py_add is not registered" in worker.text(), WAIT, "Go does not take it")
    assert on_sqs.counts(queue) == (0, 1)
    worker.kill()
    # Another queue: the server may still give a message to the open call of a worker that was killed.
    shared = f"{queue}-shared"
    on_sqs.create(shared, VisibilityTimeout="600")
    python = on_sqs.python(queue=shared, pool="solo")
    known = on_sqs.server.send_task(new_signature("py_add", 2, routing_key=shared))
    assert known.get_with_timeout(WAIT) == [2]
    other = new_signature("go_add", 3, routing_key=shared)
    on_sqs.server.send_task(other)
    wait_for(lambda: "go_add" in python.text(), WAIT, "Python does not take it")
    on_sqs.go(queue=shared)
    assert on_sqs.client.values(other.uuid, timeout=WAIT) == [3]


def test_go_loses_a_retry_on_a_fifo_queue_and_python_does_not(on_sqs: SQSFleet) -> None:
    ours, theirs = f"{on_sqs.names.queue}-py.fifo", f"{on_sqs.names.queue}-go.fifo"
    for name in (ours, theirs):
        on_sqs.create(name)
    on_sqs.go(queue=theirs)
    on_sqs.python(queue=ours, pool="solo")

    def failing(language: str, queue: str) -> Any:
        key = f"{on_sqs.names.queue}-{language}"
        more = {"routing_key": queue, "broker_message_group_id": "group", "retry_count": 3}
        return new_signature(f"{language}_fail_times", key, 2, **more)

    server: Server = on_sqs.server
    lost, kept = failing("go", theirs), failing("py", ours)
    server.send_task(lost)
    assert server.send_task(kept).get_with_timeout(WAIT) == [2]
    # The row of the group goes on behind it.
    behind = new_signature("go_add", 1, routing_key=theirs, broker_message_group_id="group")
    assert server.send_task(behind).get_with_timeout(WAIT) == [1]
    runs = [one.uuid for one in on_sqs.executions()]
    assert (runs.count(lost.uuid), runs.count(kept.uuid)) == (1, 2)
    assert server.backend.task_state(lost.uuid).state == "PENDING"
    refused = on_sqs.client.request(op="send", signature=signature("go_add", RoutingKey=theirs))
    assert "please specify BrokerMessageGroupId" in refused["error"]


def test_both_keep_a_failed_task_that_asks_for_it(on_sqs: SQSFleet) -> None:
    for language in ("go", "py"):
        queue = f"{on_sqs.names.queue}-{language}"
        on_sqs.create(queue, VisibilityTimeout="600")
        on_sqs.go(queue=queue) if language == "go" else on_sqs.python(queue=queue, pool="solo")
        more = {"RoutingKey": queue, "StopTaskDeletionOnError": True}
        uuid = on_sqs.client.send(signature(f"{language}_fail", arg("string", "no luck"), **more))
        assert on_sqs.client.get(uuid)["error"] == "no luck"
        uuid = on_sqs.client.send(signature(f"{language}_add", arg("int64", 1), **more))
        assert on_sqs.client.values(uuid) == [1]
        wait_for(lambda queue=queue: on_sqs.counts(queue) == (0, 1), WAIT, "the wrong ones are kept")


def test_the_bodies_are_byte_for_byte_those_of_go(on_sqs: SQSFleet) -> None:
    queue, text = on_sqs.names.queue, 'a "quoted" <b>&\u2028 😀'
    on_sqs.create(queue)
    for routing_key, retries in (("", 0), (queue, 3)):
        fields = {"UUID": "task_1", "Headers": {}, "RoutingKey": routing_key, "RetryCount": retries}
        on_sqs.client.send(signature("go_join", arg("string", text), arg("int64", 1), **fields))
        more: dict[str, Any] = {"uuid": "task_1", "routing_key": routing_key, "retry_count": retries}
        on_sqs.server.send_task(new_signature("go_join", text, 1, **more))
    bodies = on_sqs.take(queue)
    assert len(bodies) == 4
    assert len(set(bodies)) == 2
    # The default queue is named only where it was named by who sent the task.
    assert sorted(json.loads(body)["RoutingKey"] for body in bodies) == ["", "", queue, queue]


def test_a_group_keeps_its_order_whoever_sends_and_whoever_runs(on_sqs: SQSFleet) -> None:
    queue = f"{on_sqs.names.queue}.fifo"
    on_sqs.create(queue)
    uuids = []
    for number in range(4):
        fields: dict[str, Any] = {"RoutingKey": queue, "BrokerMessageGroupId": "group"}
        uuids.append(on_sqs.client.send(signature("add", arg("int64", number), **fields)))
        task = new_signature("add", number, routing_key=queue, broker_message_group_id="group")
        uuids.append(on_sqs.server.send_task(task).signature.uuid)
    on_sqs.go(queue=queue)
    on_sqs.python(queue=queue)
    assert [on_sqs.client.values(uuid, timeout=WAIT) for uuid in uuids] == [[number // 2] for number in range(8)]
    assert [one.uuid for one in on_sqs.executions()] == uuids


def test_go_deletes_what_is_no_task_and_python_keeps_it(on_sqs: SQSFleet) -> None:
    theirs, ours = f"{on_sqs.names.queue}-go", f"{on_sqs.names.queue}-py"
    for queue in (theirs, ours):
        on_sqs.create(queue)
        on_sqs.put(queue, "{nonsense")
    on_sqs.go(queue=theirs)
    on_sqs.python(queue=ours, pool="solo")
    for queue, kept in ((theirs, []), (ours, [b"{nonsense"])):
        wait_for(lambda queue=queue: on_sqs.counts(queue) == (0, 0), WAIT, f"{queue} is not empty")
        dead = on_sqs.server.app.machinery.dead_letters(queue)
        assert [entry.body for entry in dead.entries()] == kept


def test_go_reads_a_retry_that_python_has_sent_to_a_fifo_queue(on_sqs: SQSFleet) -> None:
    fifo, theirs, ours = (f"{on_sqs.names.queue}{end}" for end in (".fifo", "-go", "-py"))
    for queue in (fifo, theirs, ours):
        on_sqs.create(queue)
    more = {"routing_key": fifo, "broker_message_group_id": "group", "retry_count": 1}
    task = new_signature("py_fail_times", on_sqs.names.queue, 2, **more)
    on_sqs.python(queue=ours, pool="solo")
    # It is received from one queue, and sent again to the one that its RoutingKey names, which nobody reads.
    on_sqs.put(ours, task.encode().decode())

    retries = wait_for(lambda: on_sqs.take(fifo), WAIT, "the retry is not there")
    assert json.loads(retries[0])["RetryCount"] == 0
    assert json.loads(retries[0])["SQSReceiptHandle"]

    on_sqs.go(queue=theirs)
    on_sqs.put(theirs, retries[0].replace('"py_fail_times"', '"go_fail_times"'))
    assert on_sqs.client.values(task.uuid, timeout=WAIT) == [2]
