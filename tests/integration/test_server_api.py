"""Machinery's Server and Worker, as a Go user knows them."""

from __future__ import annotations

import logging
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from machinery_compat import (
    Config,
    RetryTaskLater,
    Server,
    Signature,
    TaskError,
    Worker,
    current_signature,
    new_signature,
    set_logger,
)
from machinery_compat.config import RedisConfig
from machinery_compat.errors import ConfigError, EncodeError, TaskNotRegistered
from machinery_compat.workflow import fibonacci_next
from tests.conftest import Names
from tests.support.processes import Process
from tests.support.python_worker import ROOT
from tests.support.waiting import wait_for

pytestmark = pytest.mark.redis

DELAYED = "delayed_tasks"


@pytest.fixture
def server(redis_db: str, names: Names) -> Iterator[Server]:
    server = Server(
        Config(
            broker=redis_db,
            result_backend=redis_db,
            default_queue=names.queue,
            redis=RedisConfig(delayed_tasks_poll_period=20, normal_tasks_poll_period=100),
        )
    )
    yield server
    server.app.close()


@pytest.fixture
def client(redis_db: str) -> Iterator[Redis]:
    with Redis.from_url(redis_db) as client:
        yield client


@pytest.fixture
def running(server: Server) -> Iterator[Worker]:
    """A worker in a thread of this process; a test gives it tasks and handlers at any time."""
    worker = server.new_worker("worker", 2)
    worker.launch_async()
    yield worker
    worker.quit()


def add(*numbers: int) -> int:
    return sum(numbers)


# -- registering


def test_registered_tasks(server: Server) -> None:
    server.register_task("add", add)
    server.register_tasks({"max": max, "concat": lambda parts: "".join(parts)})

    assert server.is_task_registered("add")
    assert not server.is_task_registered("nobody")
    assert server.get_registered_task("add")(1, 2) == 3
    assert {"add", "concat", "max"} <= set(server.get_registered_task_names())
    server.register_task("add", lambda *numbers: 7)
    assert server.get_registered_task("add")(1, 2) == 7
    with pytest.raises(TaskNotRegistered, match="nobody"):
        server.get_registered_task("nobody")
    with pytest.raises(ConfigError, match="Task must be a func type"):
        server.register_task("number", 7)  # type: ignore[arg-type]


def test_two_servers_do_not_share_tasks(server: Server, redis_db: str) -> None:
    other = Server(Config(broker=redis_db, result_backend=redis_db))

    server.register_task("mine", add)

    assert not other.is_task_registered("mine")


# -- sending and running


@pytest.mark.usefixtures("running")
def test_send_and_run(server: Server) -> None:
    server.register_task("add", add)

    result = server.send_task(new_signature("add", 1, 2))

    assert result.get_with_timeout(10) == [3]
    assert result.signature.routing_key == server.config.default_queue
    # A worker in this process does not make this a task, which must not wait.
    assert server.app.send_task("add", [1, 2]).get(timeout=10) == 3


def test_the_pre_publish_handler_sees_and_changes_each_signature(server: Server, client: Redis) -> None:
    def tenant(signature: Signature) -> None:
        signature.headers = {**(signature.headers or {}), "tenant": "t1"}

    server.set_pre_task_handler(tenant)
    server.send_task(new_signature("add", 1))
    server.app.send_task("add", [1])

    bodies = client.lrange(server.config.default_queue, 0, -1)
    assert [Signature.decode(body).headers for body in bodies] == [{"tenant": "t1"}] * 2


@pytest.mark.usefixtures("running")
def test_the_current_signature(server: Server) -> None:
    seen: list[Signature | None] = []
    server.register_task("look", lambda value: seen.append(current_signature()))
    sent = new_signature("look", 1, headers={"tenant": "t1"}, priority=3)

    server.send_task(sent).get_with_timeout(10)

    assert current_signature() is None
    assert seen[0] is not None
    assert seen[0].encode() == sent.encode()


def test_handlers(server: Server, running: Worker) -> None:
    calls: list[tuple[str, Any]] = []
    server.register_tasks({"good": lambda: calls.append(("run", "good")), "bad": lambda: 1 // 0})
    running.set_pre_task_handler(lambda signature: calls.append(("pre", signature.name)))
    running.set_post_task_handler(lambda signature: calls.append(("post", signature.name)))
    running.set_error_handler(lambda error: calls.append(("error", type(error))))

    server.send_task(new_signature("good")).get_with_timeout(10)
    wait_for(lambda: len(calls) == 3, message=lambda: str(calls))
    assert calls == [("pre", "good"), ("run", "good"), ("post", "good")]

    calls.clear()
    with pytest.raises(TaskError, match="division"):
        server.send_task(new_signature("bad")).get_with_timeout(10)
    wait_for(lambda: len(calls) == 3, message=lambda: str(calls))
    assert sorted(calls, key=lambda call: call[0]) == [("error", ZeroDivisionError), ("post", "bad"), ("pre", "bad")]


def test_an_error_handler_is_not_called_for_a_retry(server: Server, running: Worker) -> None:
    calls: list[str] = []
    attempts: list[int] = []
    server.register_task("later", lambda: attempts.append(1) or fail_first(attempts))
    running.set_error_handler(lambda error: calls.append(str(error)))

    server.send_task(new_signature("later")).get_with_timeout(10)

    assert (len(attempts), calls) == (2, [])


def fail_first(attempts: list[int]) -> None:
    if len(attempts) == 1:
        raise RetryTaskLater("once more", timedelta(milliseconds=10))


def test_nothing_is_taken_while_the_pre_consume_handler_says_no(server: Server, client: Redis) -> None:
    asked = threading.Event()
    allowed = threading.Event()
    server.register_task("add", add)
    worker = server.new_worker("worker", 1)
    worker.set_pre_consume_handler(lambda one: (asked.set(), allowed.is_set())[1] and one is worker)
    worker.launch_async()
    try:
        result = server.send_task(new_signature("add", 1, 1))
        assert asked.wait(10)
        asked.clear()
        assert asked.wait(10)  # asked again, so a round has gone by
        assert client.llen(server.config.default_queue) == 1
        allowed.set()
        assert result.get_with_timeout(10) == [2]
    finally:
        worker.quit()


def test_a_custom_queue_worker(server: Server, client: Redis) -> None:
    server.register_task("add", add)
    worker = server.new_custom_queue_worker("worker", 1, "other")
    worker.launch_async()
    try:
        default = server.send_task(new_signature("add", 1, 1))
        other = server.send_task(new_signature("add", 2, 2, routing_key="other"))
        assert other.get_with_timeout(10) == [4]
        assert client.llen(server.config.default_queue) == 1
        assert default.get_state().state == "PENDING"
    finally:
        worker.quit()


def test_workers_end_and_start_again(server: Server, client: Redis) -> None:
    server.register_task("add", add)
    failures: queue.Queue[BaseException] = queue.Queue()
    for round_number in range(2):
        workers = [server.new_worker(f"worker-{n}", 1) for n in range(2)]
        threads = [worker.launch_async(failures) for worker in workers]
        assert server.send_task(new_signature("add", round_number, 1)).get_with_timeout(10) == [round_number + 1]
        for worker in workers:
            worker.quit()
        assert not any(thread.is_alive() for thread in threads)
    assert failures.empty()
    assert client.keys("{*") == []


def test_quit_of_one_worker_leaves_the_other(server: Server) -> None:
    server.register_task("add", add)
    first, second = (server.new_worker(f"worker-{n}", 1) for n in range(2))
    first.launch_async()
    second.launch_async()
    try:
        first.quit()
        assert server.send_task(new_signature("add", 1, 1)).get_with_timeout(10) == [2]
    finally:
        second.quit()


def test_quit_lets_running_tasks_finish(server: Server, client: Redis) -> None:
    started, go_on = threading.Event(), threading.Event()
    server.register_task("hold", lambda: (started.set(), go_on.wait(10))[1])
    worker = server.new_worker("worker", 1)
    worker.launch_async()
    result = server.send_task(new_signature("hold"))
    assert started.wait(10)

    quitting = threading.Thread(target=worker.quit)
    quitting.start()
    go_on.set()
    quitting.join(20)

    assert not quitting.is_alive()
    assert result.touch() == [True]
    assert client.llen(server.config.default_queue) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_launch_ends_with_a_signal(server: Server, redis_db: str, tmp_path: Path, number: int) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    program = Path(__file__).with_name("server_program.py")
    process = Process(
        [sys.executable, program, redis_db, server.config.default_queue], tmp_path / "log", {"PYTHONPATH": str(ROOT)}
    )
    try:
        result = server.send_task(new_signature("slow", str(started), str(ended), 0.5))
        wait_for(started.exists, 20, process.tail)
        process.signal(number)
        assert process.popen.wait(20) == 0, process.tail()
    finally:
        process.kill()
    assert ended.exists()
    assert result.touch() == [str(ended)]
    assert "Worker quit gracefully" in process.tail()


# -- what waits


def test_pending_and_delayed_tasks(server: Server) -> None:
    now = datetime.now(timezone.utc)
    sent = [new_signature("add", n) for n in range(3)]
    later = [new_signature("add", n, eta=now + timedelta(hours=n)) for n in (2, 1)]
    for one in [*sent, *later, new_signature("add", 9, routing_key="other")]:
        server.send_task(one)

    assert [one.uuid for one in server.broker.get_pending_tasks()] == [one.uuid for one in sent]
    assert len(server.broker.get_pending_tasks("other")) == 1
    assert server.broker.get_pending_tasks("nobody") == []
    assert [one.uuid for one in server.broker.get_delayed_tasks()] == [later[1].uuid, later[0].uuid]


# -- retries


def test_the_fibonacci_sequence() -> None:
    assert [fibonacci_next(n) for n in (-5, 0, 1, 2, 3, 4, 5, 8, 13)] == [1, 1, 2, 3, 5, 5, 8, 13, 21]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("count", "timeout", "delays"), [(5, 0, [1, 2, 3, 5, 8]), (2, 4, [5, 8]), (1, -3, [1]), (0, 0, [])]
)
def test_retries_wait_longer_and_longer(
    server: Server, client: Redis, count: int, timeout: int, delays: list[int]
) -> None:
    server.register_task("fail", lambda: 1 // 0)
    result = server.send_task(new_signature("fail", retry_count=count, retry_timeout=timeout))

    for index, delay in enumerate(delays):
        left_retries = count - index - 1
        (waiting,) = wait_for(
            lambda left=left_retries: [one for one in server.broker.get_delayed_tasks() if one.retry_count == left]
        )
        assert waiting.retry_timeout == delay
        left = waiting.eta_time - datetime.now(timezone.utc)
        assert delay - 5 < left.total_seconds() <= delay
        assert result.get_state().state == "PENDING"
        # Due now: the test does not wait.
        (body,) = client.zrange(DELAYED, 0, -1)
        client.zadd(DELAYED, {body: 1})
    with pytest.raises(TaskError, match="division"):
        result.get_with_timeout(10)
    assert server.broker.get_delayed_tasks() == []


@pytest.mark.usefixtures("running")
def test_retry_task_later_costs_no_retry(server: Server, client: Redis) -> None:
    def later() -> None:
        raise RetryTaskLater("not yet", timedelta(hours=4))

    server.register_task("later", later)
    server.send_task(new_signature("later", retry_count=1, retry_timeout=2))

    (waiting,) = wait_for(server.broker.get_delayed_tasks)
    assert (waiting.retry_count, waiting.retry_timeout) == (1, 2)
    left = waiting.eta_time - datetime.now(timezone.utc)
    assert timedelta(hours=3, minutes=59) < left <= timedelta(hours=4)


# -- the log, strict mode


@pytest.mark.usefixtures("running")
def test_a_logger_of_ones_own(server: Server, client: Redis) -> None:
    records: queue.Queue[str] = queue.Queue()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.put(record.getMessage())

    mine = logging.Logger("mine")
    mine.addHandler(Keep())
    set_logger(mine)
    try:
        client.rpush(server.config.default_queue, "{")
        assert "dead" in records.get(timeout=10)
    finally:
        set_logger(None)


def test_strict_mode_refuses_what_machinery_has_no_type_for(server: Server, client: Redis) -> None:
    server.app.conf.machinery_strict_types = True

    for value in ({"a": 1}, None, [1, "x"], datetime.now(timezone.utc)):
        with pytest.raises(EncodeError, match="strict"):
            server.app.send_task("add", [value])
        with pytest.raises(EncodeError, match="strict"):
            server.app.send_task("add", kwargs={"value": value})
        with pytest.raises(EncodeError, match="strict"):
            server.app.send_task("add", [1], link=server.app.signature("add", [value]))
    server.app.send_task("add", [1, "x", [1, 2]])

    assert client.llen(server.config.default_queue) == 1
