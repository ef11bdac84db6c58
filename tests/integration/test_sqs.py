"""Amazon SQS as the broker, as moto plays it, with ``celery worker`` as a user starts it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import chord as celery_chord
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from machinery_compat import Celery, Chain, Chord, Config, Group, Server, Signature, TaskError, TaskState, new_signature
from machinery_compat.backends import fence
from machinery_compat.cli import machinery
from machinery_compat.config import SQSConfig
from machinery_compat.errors import BrokerError, EncodeError, MachineryError
from machinery_compat.transport.base import SERIALIZER, deliveries, redelivered
from tests.conftest import Names
from tests.integration.conftest import TASKS
from tests.support.processes import free_port
from tests.support.python_worker import PythonWorker
from tests.support.services import MotoServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.sqs, pytest.mark.redis]

WAIT = 20


class Recording:
    """A user's own client that notes what is sent."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.sent: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def send_message(self, **options: Any) -> Any:
        self.sent.append(options)
        return self.client.send_message(**options)


@dataclass
class Broker:
    """A queue of its own on SQS, with results on Redis."""

    url: str
    redis: str
    queue: str
    client: Any
    directory: Path
    stack: ExitStack
    attributes: dict[str, str] = field(default_factory=dict)

    def create(self, name: str = "", **attributes: str) -> str:
        """Makes a queue and returns its URL."""
        name = name or self.queue
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        self.client.create_queue(QueueName=name, Attributes=attributes)
        return self.url_of(name)

    def url_of(self, name: str = "") -> str:
        return f"{self.url}/{name or self.queue}"

    def server(self, queue: str = "", **sqs: Any) -> Server:
        server = Server(
            Config(
                broker=self.url,
                result_backend=self.redis,
                default_queue=queue or self.queue,
                sqs=SQSConfig(**{"receive_wait_time_seconds": 1, **sqs}),
            )
        )
        self.stack.callback(server.app.close)
        return server

    def worker(self, **options: Any) -> PythonWorker:
        options = {"SQS_WAIT_TIME_SECONDS": "1", **options}
        queue = options.pop("queue", self.queue)
        worker = PythonWorker(self.directory, broker=self.url, backend=self.redis, queue=queue, **options)
        self.stack.callback(lambda: print(f"--- {worker.log.name}\n{worker.process.tail()}"))
        self.stack.callback(worker.kill)
        return worker.wait_ready()

    def counts(self, name: str = "") -> tuple[int, int]:
        """How many messages wait in a queue, and how many somebody has."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.client.get_queue_attributes(QueueUrl=self.url_of(name), AttributeNames=names)["Attributes"]
        waiting, taken = (int(answer[one]) for one in names)
        return waiting, taken

    def take(self, name: str = "", hidden: int = 60) -> list[dict[str, Any]]:
        """Some of the messages of a queue; none while a worker has not made it."""
        try:
            answer = self.client.receive_message(
                QueueUrl=self.url_of(name),
                MaxNumberOfMessages=10,
                VisibilityTimeout=hidden,
                MessageAttributeNames=["All"],
                AttributeNames=["All"],
            )
        except self.client.exceptions.QueueDoesNotExist:
            return []
        return list(answer.get("Messages", ()))

    def put(self, body: str, name: str = "") -> None:
        """Past every check, as a stranger does."""
        self.client.send_message(QueueUrl=self.url_of(name), MessageBody=body)


@pytest.fixture
def broker(
    moto_server: MotoServer, redis_db: str, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Broker]:
    for name, value in {**MotoServer.ENVIRONMENT, "DISABLE_STRICT_SQS_CHECK": ""}.items():
        monkeypatch.setenv(name, value)
    url = f"{moto_server.url()}/{MotoServer.ACCOUNT}"
    with ExitStack() as stack:
        yield Broker(url, redis_db, names.queue, moto_server.client("sqs"), tmp_path, stack)


def due_in(seconds: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


# -- what is sent


def test_a_task_is_sent_as_go_sends_it(broker: Broker) -> None:
    broker.create()
    broker.create(f"{broker.queue}-other")
    server = broker.server()
    task = new_signature("py_add", 1, 2)
    server.send_task(task)
    (message,) = broker.take()
    # Go fills in the name of the default queue after it has encoded the task.
    assert task.routing_key == broker.queue
    assert json.loads(message["Body"])["RoutingKey"] == ""
    assert Signature.decode(message["Body"].encode()).encode() == message["Body"].encode()
    assert "MessageAttributes" not in message

    server.send_task(new_signature("py_add", 1, routing_key=f"{broker.queue}-other"))
    server.app.send_task("py_add", [1], queue=f"{broker.queue}-other")
    elsewhere = broker.take(f"{broker.queue}-other")
    assert [json.loads(one["Body"])["RoutingKey"] for one in elsewhere] == [f"{broker.queue}-other"] * 2


def test_a_delay_is_never_too_short_and_a_long_one_waits_where_go_does_not_look(broker: Broker) -> None:
    broker.create()
    client = Recording(broker.client)
    server = broker.server(client=client)
    for seconds in (-5, 0.5, 60, 899.5, 7200):
        server.send_task(new_signature("py_add", 1, eta=due_in(seconds)))
    assert [one.get("DelaySeconds") for one in client.sent] == [None, 1, 60, 900, 900]
    names = [one["QueueUrl"].rpartition("/")[2] for one in client.sent]
    assert names == [broker.queue] * 4 + [f"{broker.queue}-delayed"]


def test_a_fifo_queue_needs_a_group(broker: Broker) -> None:
    queue = f"{broker.queue}.fifo"
    broker.create(queue)
    client = Recording(broker.client)
    server = broker.server(queue, client=client)
    task = new_signature("py_add", 1)
    with pytest.raises(EncodeError, match="please specify BrokerMessageGroupId"):
        server.send_task(task)
    assert server.backend.task_state(task.uuid) is None
    task.broker_message_group_id = "group"
    # There are no delays of single messages: it is due at once, as in Go.
    task.set_eta(due_in(3600))
    server.send_task(task)
    server.app.send_task("py_add", [1], task_id="by-celery", MessageGroupId="other")
    sent = [(one["MessageDeduplicationId"], one["MessageGroupId"]) for one in client.sent]
    assert sent == [(task.uuid, "group"), ("by-celery", "other")]
    assert not any("DelaySeconds" in one for one in client.sent)


def test_what_is_too_large_is_refused_before_anything_is_sent(broker: Broker) -> None:
    broker.create()
    server = broker.server()
    task = new_signature("py_echo", "x" * 262_144)
    with pytest.raises(EncodeError, match="bytes and SQS takes 262144"):
        server.send_task(task)
    assert server.backend.task_state(task.uuid) is None
    assert broker.counts() == (0, 0)


def test_a_queue_that_is_not_there_is_one_clear_error(broker: Broker) -> None:
    with pytest.raises(BrokerError, match=f"there is no SQS queue {broker.queue} .* create it"):
        broker.server().send_task(new_signature("py_add", 1))
    worker = PythonWorker(broker.directory, broker=broker.url, backend=broker.redis, queue=broker.queue)
    broker.stack.callback(worker.kill)
    wait_for(lambda: not worker.process.running(), 40, "the worker goes on")
    assert f"there is no SQS queue {broker.queue}" in worker.text()


def test_tasks_are_not_listed(broker: Broker) -> None:
    broker.create()
    with pytest.raises(MachineryError, match="SQS cannot list"):
        broker.server().broker.get_pending_tasks(broker.queue)


@pytest.mark.parametrize("form", ["several", "bare"])
def test_other_ways_to_name_the_broker(broker: Broker, form: str) -> None:
    broker.create()
    task = new_signature("py_add", 1)
    if form == "several":
        # The first of several does not answer; Kombu goes on to the next.
        app = Celery(broker=f"http://127.0.0.1:{free_port()}/1;{broker.url}", backend="null")
        app.conf.task_default_queue = broker.queue
        app.send_task("py_add", [1])
    else:
        with kombu.Connection(f"machinery+{broker.url}") as connection:
            connection.Producer().publish(task, exchange="", routing_key=broker.queue, serializer=SERIALIZER)
    (message,) = broker.take()
    assert json.loads(message["Body"])["Name"] == "py_add"


# -- what workers do


def test_a_worker_runs_whatever_a_server_sends(broker: Broker) -> None:
    broker.create()
    worker, server = broker.worker(arguments=("-E",)), broker.server()
    results = [server.send_task(new_signature("py_add", number)) for number in range(30)]
    assert [one.get_with_timeout(WAIT) for one in results] == [[number] for number in range(30)]
    assert server.app.send_task("py_again", [1, 2]).get(timeout=WAIT) == 5
    members = [new_signature("py_add", number) for number in range(10)]
    assert server.send_chord(Chord(Group(*members), new_signature("py_add"))).get_with_timeout(WAIT) == [45]
    assert server.send_chain(Chain(new_signature("py_add", 1), new_signature("py_add", 2))).get_with_timeout(WAIT) == [
        3
    ]
    app = server.app
    assert celery_chord(app.signature("py_add", (n,)) for n in range(5))(app.signature("py_concat_error")).id
    begin = due_in(0.5)
    assert server.send_task(new_signature("py_add", 7, eta=begin)).get_with_timeout(WAIT) == [7]
    assert datetime.now(timezone.utc) >= begin
    assert server.send_task(new_signature("py_retry_later", broker.queue, 2, 30)).get_with_timeout(WAIT) == [2]
    with pytest.raises(TaskError, match="no luck"):
        server.send_task(new_signature("py_fail", "no luck")).get_with_timeout(WAIT)
    wait_for(lambda: broker.counts() == (0, 0), WAIT, "messages are left")
    # There is no fanout: nobody answers, and nobody is hurt.
    assert app.control.inspect(timeout=0.2).ping() is None
    assert worker.stop() == 0
    assert "CRITICAL" not in worker.text()
    assert "Exception ignored" not in worker.text()


def test_a_task_that_takes_longer_than_the_visibility_timeout_runs_once(broker: Broker) -> None:
    broker.create(VisibilityTimeout="1")
    one, two = broker.worker(concurrency=1), broker.worker(pool="solo")
    assert broker.server().send_task(new_signature("py_sleep", 2300)).get_with_timeout(WAIT) == [2300]
    wait_for(lambda: broker.counts() == (0, 0), WAIT, "the message is left")
    assert len(one.executions()) == 1
    assert two.process.running()


def test_what_a_worker_has_not_begun_goes_back_at_once_when_it_is_stopped(broker: Broker) -> None:
    broker.create(VisibilityTimeout="600")
    gate = broker.directory / "gate"
    worker, server = broker.worker(concurrency=1, tasks=TASKS), broker.server()
    running = server.send_task(new_signature("until", str(gate)))
    wait_for(lambda: len(worker.executions()) == 1, WAIT, "it does not begin")
    for number in range(3):
        server.send_task(new_signature("py_add", number))
    wait_for(lambda: broker.counts() == (0, 4), WAIT, "the worker does not take them")
    # The worker itself, and not the processes of its pool.
    os.kill(worker.process.pid, signal.SIGTERM)
    wait_for(lambda: broker.counts() == (3, 1), WAIT, "they do not come back")
    assert worker.process.running()
    assert len(worker.executions()) == 1
    gate.touch()
    assert running.get_with_timeout(WAIT) == [str(gate)]
    wait_for(lambda: not worker.process.running(), WAIT, "it does not end")
    assert broker.counts() == (3, 0)


def test_a_failed_task_is_kept_for_the_redrive_policy_if_it_asks_for_it(broker: Broker) -> None:
    dead = f"{broker.queue}-redrive"
    broker.create(dead)
    arn = self_arn(broker, dead)
    broker.create(RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "2"}))
    worker, server = broker.worker(SQS_VISIBILITY_TIMEOUT="1", pool="solo"), broker.server()
    kept = new_signature("py_fail", "no luck", stop_task_deletion_on_error=True)
    for task in (kept, new_signature("py_fail", "no luck")):
        with pytest.raises(TaskError, match="no luck"):
            server.send_task(task).get_with_timeout(WAIT)
    server.send_task(new_signature("py_add", 1, stop_task_deletion_on_error=True))
    (message,) = wait_for(lambda: broker.take(dead), WAIT, "it does not come to the other queue")
    assert Signature.decode(message["Body"].encode()).uuid == kept.uuid
    wait_for(lambda: broker.counts() == (0, 0), WAIT, "messages are left")
    assert sorted(one.name for one in worker.executions()) == ["py_add", "py_fail", "py_fail", "py_fail"]


def self_arn(broker: Broker, name: str) -> str:
    asked = broker.client.get_queue_attributes(QueueUrl=broker.url_of(name), AttributeNames=["QueueArn"])
    return str(asked["Attributes"]["QueueArn"])


def test_an_unknown_task_waits_for_a_worker_that_knows_it(broker: Broker) -> None:
    broker.create()
    worker, server = broker.worker(), broker.server()
    server.send_task(new_signature("unheard_of", ignore_when_task_not_registered=True))
    waiting = server.send_task(new_signature("py_kill"))
    wait_for(lambda: worker.text().count("is not registered here") == 2, WAIT, "nothing is said")
    assert server.send_task(new_signature("py_add", 1)).get_with_timeout(WAIT) == [1]
    wait_for(lambda: sum(broker.counts()) == 1, WAIT, "the one that may be dropped is not")
    (message,) = wait_for(broker.take, WAIT, "it does not come back")
    assert Signature.decode(message["Body"].encode()).uuid == waiting.signature.uuid
    assert message["Body"].rstrip(" ") == message["Body"]
    assert server.backend.task_state(waiting.signature.uuid).state == "PENDING"


def test_a_task_that_kills_its_process_is_given_up(broker: Broker) -> None:
    broker.create()
    broker.worker(concurrency=1, app="tests.integration.apps:impatient", tasks="tests.integration.sqs_tasks")
    seen = broker.server().send_task(new_signature("py_handle")).get_with_timeout(WAIT)
    assert len(str(seen[0])) > 20
    result = broker.server().send_task(new_signature("py_kill"))
    with pytest.raises(TaskError, match="given up after 2 runs"):
        result.get_with_timeout(WAIT)
    (message,) = wait_for(lambda: broker.take(f"{broker.queue}-dead"), WAIT, "it is not kept")
    assert message["Body"].endswith(" ")
    assert "given up after 2 runs" in message["MessageAttributes"]["reason"]["StringValue"]
    wait_for(lambda: broker.counts() == (0, 0), WAIT, "the message is left")


def test_a_task_may_put_its_message_back_as_often_as_it_likes(broker: Broker) -> None:
    broker.create()
    broker.worker(concurrency=1, tasks="tests.integration.tasks")
    result = broker.server().send_task(new_signature("hesitant", 8))
    assert result.get_with_timeout(WAIT) == [[False] + [True] * 8]


def test_the_task_of_a_killed_worker_is_run_by_another_and_counted(broker: Broker) -> None:
    broker.create(VisibilityTimeout="2")
    first, server = broker.worker(concurrency=1), broker.server()
    result = server.send_task(new_signature("py_sleep", 1500))
    wait_for(lambda: len(first.executions()) == 1, WAIT, "it does not begin")
    first.kill()
    second = broker.worker(concurrency=1, loglevel="DEBUG")
    assert result.get_with_timeout(WAIT) == [1500]
    assert len(second.executions()) == 2
    wait_for(lambda: broker.counts() == (0, 0), WAIT, "the message is left")
    stored = server.backend.task_state(result.signature.uuid)
    assert stored.state == "SUCCESS"


def test_a_retry_on_a_fifo_queue_is_not_taken_for_the_same_message(broker: Broker) -> None:
    queue = f"{broker.queue}.fifo"
    broker.create(queue)
    worker, server = broker.worker(queue=queue), broker.server(queue)
    task = new_signature("py_fail_times", broker.queue, 3, retry_count=3, broker_message_group_id="group")
    assert server.send_task(task).get_with_timeout(WAIT) == [3]
    later = new_signature("py_retry_later", f"{broker.queue}-later", 3, 0, broker_message_group_id="group")
    assert server.send_task(later).get_with_timeout(WAIT) == [3]
    for number in range(4):
        one = new_signature("py_add", number, broker_message_group_id="group")
        last = server.send_task(one)
    assert last.get_with_timeout(WAIT) == [3]
    # One group is one row.
    begun = [one.uuid for one in worker.executions() if one.name == "py_add"]
    assert len(begun) == 4
    assert begun[-1] == last.signature.uuid


def test_a_long_delay_ends_with_a_worker(broker: Broker) -> None:
    broker.create()
    server = broker.server()
    server.send_task(new_signature("py_add", 1, eta=due_in(7200)))
    due = due_in(2)
    later = new_signature("py_add", 2, eta=due)
    broker.put(later.encode().decode(), f"{broker.queue}-delayed")
    broker.put("no task", f"{broker.queue}-delayed")
    worker = broker.worker(pool="solo")
    wait_for(lambda: [one.uuid for one in worker.executions()] == [later.uuid], WAIT, "it is not run")
    assert datetime.now(timezone.utc) >= due
    (message,) = wait_for(lambda: broker.take(f"{broker.queue}-dead"), WAIT, "the other is not kept")
    assert message["Body"] == "no task"


# -- what nobody can run


def invoke(broker: Broker, *arguments: str) -> Result:
    context = CLIContext(app=broker.server().app, no_color=True, workdir=None)
    return CliRunner().invoke(machinery, ["dead", *arguments], obj=context, catch_exceptions=False)


def test_poison_is_kept_listed_put_back_and_purged(broker: Broker) -> None:
    broker.create()
    worker = broker.worker()
    good = new_signature("py_add", 20, 22)
    bad_argument = json.loads(new_signature("py_add", 1).encode())
    bad_argument["Args"][0]["Type"] = "no such type"
    for body in ("no task", "{}", json.dumps(bad_argument)):
        broker.put(body)
    dead = f"{broker.queue}-dead"
    wait_for(lambda: dead_count(broker, dead) == 3, WAIT, "they are not kept")
    assert broker.server().send_task(good).get_with_timeout(WAIT) == [42]
    assert worker.stop() == 0
    broker.client.send_message(QueueUrl=broker.url_of(dead), MessageBody=new_signature("py_add", 1).encode().decode())
    listed = invoke(broker, "list").output
    assert "Could not unmarshal into a task signature" in listed
    assert "Reflect task args error" in listed
    assert "no task" in invoke(broker, "show", "1", "--raw").output + invoke(broker, "show", "1").output
    assert invoke(broker, "requeue", "9").exit_code != 0
    moved = invoke(broker, "requeue", "4")
    assert moved.exit_code == 0, moved.output
    assert broker.counts()[0] == 1
    purged = invoke(broker, "purge", "--all", "--yes")
    assert purged.exit_code == 0, purged.output
    assert dead_count(broker, dead) == 0


def dead_count(broker: Broker, name: str) -> int:
    try:
        return sum(broker.counts(name))
    except broker.client.exceptions.QueueDoesNotExist:
        return 0


def test_a_server_that_is_away_for_a_while_ends_no_worker(redis_db: str, names: Names, tmp_path: Path) -> None:
    with MotoServer() as moto, pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in {**MotoServer.ENVIRONMENT, "DISABLE_STRICT_SQS_CHECK": ""}.items():
            patch.setenv(name, value)
        url = f"{moto.url()}/{MotoServer.ACCOUNT}"
        broker = Broker(url, redis_db, names.queue, moto.client("sqs"), tmp_path, stack)
        broker.create()
        worker = broker.worker(pool="solo")
        moto.kill()
        wait_for(lambda: "trying again" in worker.text(), WAIT, "nothing is said")
        with (
            broker.server().app.connection_for_write() as connection,
            pytest.raises(kombu.exceptions.OperationalError, match="SQS cannot be reached"),
        ):
            connection.ensure_connection(max_retries=1)
        moto.start()
        broker.create()
        assert broker.server().send_task(new_signature("py_add", 3)).get_with_timeout(30) == [3]
        assert worker.process.running()


def test_a_counted_message_that_has_not_begun_is_not_counted_again(broker: Broker) -> None:
    """The state is that of the run before: it had ended, and its worker died before it had deleted the message."""
    url, server = broker.create(), broker.server()
    server.register_task("py_task", lambda: None)
    signature = new_signature("py_task", uuid="task_1")
    state = TaskState(task_uuid="task_1", state="FAILURE", error="no")
    fence.sign(state, 1)
    server.app.backend.update_states([state])
    broker.client.send_message(QueueUrl=url, MessageBody=redelivered(signature.encode(), 2).decode())
    assert broker.take(hidden=0)
    found: list[Any] = []

    with server.app.connection_for_read() as connection:
        connection.Consumer(server.app.amqp.queues[broker.queue], on_message=found.append).consume()
        wait_for(lambda: drained(connection) and found, WAIT)

    assert deliveries(found[0].raw_body) == 2


def drained(connection: Any) -> bool:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.2)
    return True
