"""``celery machinery dead``: what nobody could run is listed, shown, put back and deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import amqp
import celery
import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result
from redis import Redis

from machinery_compat import Celery, Config, Server, TaskState, errors, new_signature
from machinery_compat.cli import machinery
from machinery_compat.config import AMQPConfig
from machinery_compat.transport import payloads
from tests.conftest import Names
from tests.support.python_worker import ROOT, PythonWorker
from tests.support.services import RabbitServer
from tests.support.waiting import wait_for

REDIS = pytest.param("redis", marks=pytest.mark.redis)
RABBIT = pytest.param("rabbitmq", marks=[pytest.mark.redis, pytest.mark.rabbitmq])
REASON = "it was given up after 5 redeliveries"
TASK = json.dumps(
    {"UUID": "task_good", "Name": "py_add", "Args": [{"Type": "int64", "Value": n} for n in (20, 22)]}
).encode()
GARBAGE = b"\xff no signature\x1b[31m\n2026 a line of its own"


@dataclass
class Graveyard:
    """A queue without a worker, and the dead messages beside it."""

    server: Server
    queue: str
    results: str
    rabbit: amqp.Connection | None

    @property
    def app(self) -> Celery:
        app: Celery = self.server.app
        return app

    @property
    def broker(self) -> str:
        return str(self.app.conf.broker_url)

    def put(self, *bodies: bytes, reason: str = REASON) -> None:
        name = payloads.dead_queue(self.queue)
        entries = [payloads.dead_letter(body, reason, self.queue) for body in bodies]
        self.put_raw(name, *entries)

    def put_raw(self, name: str, *entries: bytes) -> None:
        if self.rabbit is None:
            with Redis.from_url(self.results) as client:
                client.rpush(name, *entries)
            return
        with closing(self.rabbit.channel()) as channel:
            channel.queue_declare(name, durable=True, auto_delete=False)
            for entry in entries:
                channel.basic_publish_confirm(amqp.Message(entry, delivery_mode=2), routing_key=name)

    def declare(self) -> None:
        """The queue is there, as after a worker's start."""
        if self.rabbit is not None:
            with closing(self.rabbit.channel()) as channel:
                channel.queue_declare(self.queue, durable=True, auto_delete=False)

    def take(self, name: str) -> list[bytes]:
        """Everything that a queue holds."""
        if self.rabbit is None:
            with Redis.from_url(self.results) as client:
                found, _ = client.pipeline().lrange(name, 0, -1).delete(name).execute()
                return list(found)
        found = []
        with closing(self.rabbit.channel()) as channel:
            channel.queue_declare(name, durable=True, auto_delete=False)
            while (message := channel.basic_get(name, no_ack=True)) is not None:
                found.append(message.body.encode() if isinstance(message.body, str) else bytes(message.body))
        return found

    def state(self, uuid: str) -> TaskState | None:
        with Redis.from_url(self.results) as client:
            data = client.get(uuid)
        return None if data is None else TaskState.decode(data)

    def run(self, *arguments: str, answer: str = "") -> Result:
        return command(self.app, *arguments, answer=answer)

    def documents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("list", "--json").output)
        return found


def command(app: celery.Celery, *arguments: str, answer: str = "") -> Result:
    context = CLIContext(app=app, no_color=True, workdir=None)
    return CliRunner().invoke(machinery, ["dead", *arguments], obj=context, input=answer)


@pytest.fixture(params=[REDIS, RABBIT])
def graveyard(request: pytest.FixtureRequest, redis_db: str, names: Names) -> Iterator[Graveyard]:
    broker = redis_db
    with ExitStack() as stack:
        connection = None
        if request.param == "rabbitmq":
            rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
            broker = rabbit.url()
            connection = stack.enter_context(
                amqp.Connection(f"127.0.0.1:{rabbit.port}", userid="guest", password="guest", confirm_publish=True)  # noqa: S106
            )
        config = Config(
            broker=broker,
            result_backend=redis_db,
            default_queue=names.queue,
            amqp=AMQPConfig(exchange=names.exchange, binding_key=names.queue),
        )
        yield Graveyard(Server(config), names.queue, redis_db, connection)


def test_an_empty_list(graveyard: Graveyard) -> None:
    shown = graveyard.run("list")

    assert (shown.exit_code, shown.output) == (0, f"No dead messages of queue {graveyard.queue}.\n")
    assert graveyard.documents() == []
    assert graveyard.run("requeue", "--all").output == f"Requeued 0 messages to {graveyard.queue}.\n"


def test_the_list(graveyard: Graveyard) -> None:
    graveyard.put(TASK + b"  ", GARBAGE)
    graveyard.put_raw(payloads.dead_queue(graveyard.queue), b"somebody else's")

    shown = graveyard.run("list")

    head, first, second, third = shown.output.splitlines()
    assert head.split() == ["NUMBER", "TIME", "(UTC)", "TASK", "UUID", "BYTES", "REASON"]
    assert first.split()[0] == "1"
    assert first.split()[3:6] == ["py_add", "task_good", str(len(TASK) + 2)]
    assert first.endswith(REASON)
    assert second.split()[3:6] == ["-", "-", str(len(GARBAGE))]
    assert third.split()[:5] == ["3", "-", "-", "-", str(len("somebody else's"))]
    assert [one["deliveries"] for one in graveyard.documents()] == [2, 0, 0]
    assert [one["task"] for one in graveyard.documents()] == ["py_add", None, None]


def test_looking_changes_nothing(graveyard: Graveyard) -> None:
    graveyard.put(*(TASK + b" " * n for n in range(50)))

    assert [one["deliveries"] for one in graveyard.documents()] == list(range(50))
    assert graveyard.run("show", "30").exit_code == 0

    assert [one["deliveries"] for one in graveyard.documents()] == list(range(50))


def test_a_stranger_writes_no_escapes_to_the_terminal(graveyard: Graveyard) -> None:
    graveyard.put(GARBAGE, TASK.replace(b"py_add", b"py\\u001b[31m\\n"), reason="bad\x1b[31m\nline")

    shown = [graveyard.run("list"), graveyard.run("show", "1"), graveyard.run("show", "2")]

    assert all(one.exit_code == 0 for one in shown)
    assert not any("\x1b" in one.output for one in shown)
    assert len(shown[0].output.splitlines()) == 3


@pytest.mark.parametrize("body", [TASK + b" ", GARBAGE], ids=["a task", "garbage"])
def test_show(graveyard: Graveyard, body: bytes) -> None:
    graveyard.put(body)

    assert graveyard.run("show", "1", "--raw").stdout_bytes == body
    document = json.loads(graveyard.run("show", "1", "--json").output)
    assert (bytes.fromhex(document["body_hex"]) if "body_hex" in document else document["body"].encode()) == body
    text = graveyard.run("show", "1").output
    assert REASON in text
    if body is not GARBAGE:
        assert '      "Value": 20' in text


def test_requeued_as_if_just_sent(graveyard: Graveyard) -> None:
    graveyard.declare()
    graveyard.server.backend.update_states([TaskState(task_uuid="task_good", state="FAILURE", error="given up")])
    other = TASK.replace(b"task_good", b"task_other")
    graveyard.put(other, TASK + b"     ")

    shown = graveyard.run("requeue", "2")

    assert (shown.exit_code, shown.output) == (0, f"Requeued 1 message to {graveyard.queue}.\n")
    state = graveyard.state("task_good")
    assert state is not None
    assert (state.state, state.task_name, state.error) == ("PENDING", "py_add", "")
    assert graveyard.state("task_other") is None
    assert wait_for(lambda: graveyard.take(graveyard.queue)) == [TASK]
    assert [one["uuid"] for one in graveyard.documents()] == ["task_other"]


def test_what_no_worker_can_read_is_left_unless_forced(graveyard: Graveyard) -> None:
    graveyard.declare()
    graveyard.put(GARBAGE, TASK)

    left = graveyard.run("requeue", "--all")

    assert left.exit_code == 1
    assert "Requeued 1 message" in left.output
    assert "number 1: left" in left.output
    assert graveyard.take(graveyard.queue) == [TASK]
    assert graveyard.run("requeue", "1", "--force").exit_code == 0
    assert graveyard.take(graveyard.queue) == [GARBAGE]
    assert graveyard.documents() == []


@pytest.mark.parametrize("numbers", [["3"], ["--all"]])
def test_purge(graveyard: Graveyard, numbers: list[str]) -> None:
    graveyard.put(TASK, GARBAGE, TASK + b" ")

    assert graveyard.run("purge", *numbers, answer="n\n").exit_code == 1
    assert len(graveyard.documents()) == 3
    shown = graveyard.run("purge", *numbers, "--yes")

    count = "3 messages" if numbers == ["--all"] else "1 message"
    assert shown.output == f"Purged {count} from {graveyard.queue}:dead.\n"
    assert [one["deliveries"] for one in graveyard.documents()] == ([] if numbers == ["--all"] else [0, 0])


@pytest.mark.parametrize("arguments", [["show", "4"], ["requeue", "1", "4"], ["purge", "1", "4", "--yes"]])
def test_an_unknown_number(graveyard: Graveyard, arguments: list[str]) -> None:
    graveyard.put(TASK, TASK)

    refused = graveyard.run(*arguments)

    assert refused.exit_code == 1
    assert "has no number 4: it holds 1 to 2" in refused.output
    assert len(graveyard.documents()) == 2


@pytest.mark.parametrize(
    "arguments", [["requeue"], ["requeue", "1", "--all"], ["purge"], ["show", "1", "--raw", "--json"]]
)
def test_what_makes_no_sense(graveyard: Graveyard, arguments: list[str]) -> None:
    assert graveyard.run(*arguments).exit_code == 2


@pytest.mark.parametrize("graveyard", [RABBIT], indirect=True)
def test_amqp_would_drop_what_goes_to_no_queue(graveyard: Graveyard) -> None:
    graveyard.put(TASK)

    refused = graveyard.run("requeue", "--all")

    assert refused.exit_code == 1
    assert "there is no queue" in refused.output
    assert len(graveyard.documents()) == 1


@pytest.mark.parametrize("graveyard", [REDIS], indirect=True)
def test_what_somebody_else_has_taken_keeps_its_state(graveyard: Graveyard) -> None:
    graveyard.put(TASK)
    queue = graveyard.app.machinery.dead_letters()
    (entry,) = queue.entries()
    graveyard.take(payloads.dead_queue(graveyard.queue))

    with graveyard.app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.dead_entries = lambda queue: iter([entry])
        outcome = channel.requeue_dead(graveyard.queue)

    assert (outcome.moved, outcome.gone) == ([], [entry])
    assert graveyard.state("task_good") is None
    assert graveyard.take(graveyard.queue) == []


def test_the_command_line_of_celery(graveyard: Graveyard, tmp_path: Path) -> None:
    """The entry point is found, and a waiting client gets the result of the task that was put back."""
    variables = {
        "BROKER": graveyard.broker,
        "RESULT_BACKEND": graveyard.results,
        "DEFAULT_QUEUE": graveyard.queue,
        "AMQP_EXCHANGE": graveyard.app.conf.task_default_exchange,
        "AMQP_BINDING_KEY": graveyard.queue,
    }
    sent = new_signature("py_add", 20, 22)
    graveyard.put(sent.encode() + b"     ")
    graveyard.server.backend.update_states([TaskState(task_uuid=sent.uuid, state="FAILURE", error="given up")])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", "machinery_compat", "machinery", "dead", *arguments],
            env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    with PythonWorker(
        tmp_path,
        broker=graveyard.broker,
        backend=graveyard.results,
        queue=graveyard.queue,
        pool="solo",
        AMQP_EXCHANGE=variables["AMQP_EXCHANGE"],
        AMQP_BINDING_KEY=graveyard.queue,
    ):
        done = run("requeue", "--all")

        assert (done.returncode, done.stdout) == (0, f"Requeued 1 message to {graveyard.queue}.\n"), done.stderr
        wait_for(lambda: (state := graveyard.state(sent.uuid)) and state.state == "SUCCESS")


class TestErrors:
    def test_an_application_that_is_not_ours(self) -> None:
        refused = command(celery.Celery("stranger", set_as_current=False), "list")

        assert refused.exit_code == 2
        assert "'stranger' does not speak Machinery" in refused.output

    def test_a_broker_that_keeps_none(self) -> None:
        app = Celery("eager", broker="eager", backend="eager", set_as_current=False)

        refused = command(app, "list")

        assert refused.exit_code == 1
        assert "keeps no dead messages" in refused.output
        with pytest.raises(errors.BrokerError):
            list(app.machinery.dead_letters("q").entries())

    @pytest.mark.parametrize("scheme", ["redis", "amqp"])
    def test_a_broker_that_does_not_answer(self, scheme: str) -> None:
        url = f"{scheme}://user:TOP-SECRET@127.0.0.1:1/"
        app = Celery("lost", broker=url, backend="null", set_as_current=False)

        refused = command(app, "list")

        assert refused.exit_code == 1
        assert "cannot be reached" in refused.output
        assert "TOP-SECRET" not in refused.output
