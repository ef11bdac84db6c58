"""A worker on RabbitMQ that loses its connection, its queue or its broker: every task ends, and it goes on."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import STARTED, Config, Server, Signature, TaskState, new_signature
from machinery_compat.backends import fence
from machinery_compat.config import AMQPConfig
from machinery_compat.transport.amqp_message import amqp_message
from machinery_compat.transport.base import redelivered
from tests.conftest import Names
from tests.support.processes import free_port
from tests.support.proxy import Proxy
from tests.support.python_worker import PythonWorker
from tests.support.services import RabbitServer, RedisServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq]

Staff = Callable[..., PythonWorker]

APP = "tests.fault.amqp_app"
SETTING = "application:set_env(rabbit, {}, {})."


def server_of(broker: str, backend: str, names: Names, separator: str = "") -> Server:
    amqp = AMQPConfig(exchange=names.exchange, binding_key=names.queue)
    config = Config(
        broker=broker,
        multiple_broker_separator=separator,
        result_backend=backend,
        default_queue=names.queue,
        amqp=amqp,
    )
    return Server(config)


@pytest.fixture
def server(rabbit_server: RabbitServer, redis_db: str, names: Names) -> Server:
    return server_of(rabbit_server.url(), redis_db, names)


@pytest.fixture
def staff(rabbit_server: RabbitServer, redis_db: str, names: Names, tmp_path: Path) -> Iterator[Staff]:
    """Starts Python workers."""
    with ExitStack() as stack:

        def start(broker: str = "", backend: str = "", ready: bool = True, **options: Any) -> PythonWorker:
            worker = PythonWorker(
                tmp_path,
                broker=broker or rabbit_server.url(),
                backend=backend or redis_db,
                queue=names.queue,
                AMQP_EXCHANGE=names.exchange,
                AMQP_BINDING_KEY=names.queue,
                **options,
            )
            stack.callback(lambda: print(worker.text()))
            if ready:
                return stack.enter_context(worker)
            stack.callback(worker.kill)
            return worker

        yield start


def send(server: Server, count: int, milliseconds: int) -> list[str]:
    return [server.send_task(new_signature("py_sleep", milliseconds)).signature.uuid for _ in range(count)]


def ended(server: Server, uuids: Sequence[str]) -> bool:
    return all(one is not None and one.state == "SUCCESS" for one in server.backend.task_states(list(uuids)))


def unacknowledged(rabbit: RabbitServer, queue: str) -> int:
    listed = json.loads(rabbit.ctl("list_queues", "--formatter", "json", "name", "messages_unacknowledged"))
    return {row["name"]: int(row["messages_unacknowledged"]) for row in listed}[queue]


def steady_connections(rabbit: RabbitServer) -> int:
    """How many have channels, when two looks agree; 0 when not.

    Those of senders of the tests before, which do not read that they are cut off, have none.
    """
    first, second = (
        sum(
            row["channels"] > 0 for row in json.loads(rabbit.ctl("list_connections", "--formatter", "json", "channels"))
        )
        for _ in range(2)
    )
    return first if first == second else 0


def expect_healthy(worker: PythonWorker) -> None:
    assert worker.process.running()
    assert "Unrecoverable" not in worker.text()
    assert "CRITICAL" not in worker.text()


def test_all_connections_are_cut_while_tasks_run(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff
) -> None:
    """Threads have taken more than they run; with processes see the broker's restart."""
    worker = staff(pool="threads")
    uuids = send(server, 16, 400)
    wait_for(lambda: worker.executions())

    for times in range(2, 4):
        rabbit_server.close_connections()
        wait_for(lambda times=times: worker.text().count("mingle: all alone") == times, 20)

    wait_for(lambda: ended(server, uuids), 30)
    wait_for(lambda: rabbit_server.list_queues()[names.queue] == 0)
    expect_healthy(worker)


def test_a_queue_that_is_deleted_is_declared_and_consumed_again(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff
) -> None:
    other = f"other-{names.queue}"
    worker = staff(arguments=("-Q", f"{names.queue},{other}"))
    long = server.send_task(new_signature("py_sleep", 2500, routing_key=other)).signature.uuid
    wait_for(lambda: worker.executions())

    rabbit_server.ctl("delete_queue", names.queue)

    wait_for(lambda: "declared and consumed again" in worker.text())
    assert server.send_task(new_signature("py_add", 1, 2)).get_with_timeout(20) == [3]
    again = server.send_task(new_signature("py_add", 2, 2, routing_key=other))
    assert again.get_with_timeout(20) == [4]
    wait_for(lambda: ended(server, [long]))
    assert [one.uuid for one in worker.executions()].count(long) == 1, "the other queue was cut off"
    assert worker.text().count("Connected to amqp") == 1
    expect_healthy(worker)


def test_prefetch_limits_what_a_worker_holds(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff
) -> None:
    uuids = send(server, 20, 300)

    worker = staff(concurrency=2, arguments=("--prefetch-multiplier", "2"))

    wait_for(lambda: len(worker.executions()) >= 2)
    assert unacknowledged(rabbit_server, names.queue) == 4
    wait_for(lambda: ended(server, uuids), 20)


def test_a_delayed_task_is_no_redelivery(server: Server, staff: Staff) -> None:
    """RabbitMQ says in x-death that it has died once in the delay queue."""
    worker = staff(app=APP, LIMIT="0")

    result = server.app.send_task("py_add", [20, 22], countdown=0.3)

    assert result.get(timeout=20) == 42
    expect_healthy(worker)


def test_what_a_running_worker_gets_again_does_not_run_twice(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff
) -> None:
    """Nor does it leave connections behind, not even the one on which a task of nobody is put aside."""
    # Those of the tests before would be counted, and not come back.
    rabbit_server.close_connections()
    worker = staff(app=APP, LIMIT="0")
    uuids = send(server, 2, 6000)
    server.send_task(new_signature("nobody"))
    wait_for(lambda: len(worker.executions()) == 2)

    server.app.pool.force_close_all()
    before = wait_for(lambda: steady_connections(rabbit_server), 20)

    for times in range(2, 4):
        rabbit_server.close_connections()
        wait_for(lambda times=times: worker.text().count("mingle: all alone") == times, 20)

    wait_for(lambda: steady_connections(rabbit_server) == before, 20, lambda: rabbit_server.ctl("list_connections"))
    wait_for(lambda: ended(server, uuids), 20)
    wait_for(lambda: unacknowledged(rabbit_server, names.queue) == 0)
    assert sorted(one.uuid for one in worker.executions()) == sorted(uuids)
    expect_healthy(worker)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_that_kills_what_runs_it_is_given_up(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff, pool: str
) -> None:
    """A process of the pool with prefork, the whole worker with threads."""
    told = new_signature("py_concat_error")
    uuid = server.send_task(new_signature("die", on_error=[told])).signature.uuid
    for _ in range(2 if pool == "threads" else 0):
        victim = staff(app=APP, pool=pool, LIMIT="1", ready=False)
        wait_for(lambda victim=victim: not victim.process.running(), 30)

    worker = staff(app=APP, pool=pool, LIMIT="1")

    wait_for(lambda: ended(server, [told.uuid]), 20)
    state = server.backend.task_state(uuid)
    assert state is not None
    assert state.state == "FAILURE"
    assert state.error.startswith("given up after 2 runs")
    assert [one.uuid for one in worker.executions()].count(uuid) == 2
    queues = rabbit_server.list_queues()
    assert queues[f"{names.queue}:dead"] == 1
    assert queues[names.queue] == 0
    expect_healthy(worker)


def test_what_was_only_fetched_is_not_counted(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff
) -> None:
    """A worker is killed with one task running and others waiting in it."""
    first = staff(concurrency=1)
    uuids = send(server, 4, 400)
    wait_for(lambda: first.executions())
    first.kill()

    second = staff(app=APP, concurrency=1, LIMIT="1")

    wait_for(lambda: ended(server, uuids), 20)
    states = server.backend.task_states(uuids)
    assert [bool(one and one.celery) for one in states].count(True) == 1, "one had begun"
    assert sorted({one.uuid for one in second.executions()}) == sorted(uuids)
    expect_healthy(second)


def test_what_a_killed_worker_ran_comes_before_the_backlog(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff
) -> None:
    first = staff(concurrency=1)
    uuids = send(server, 40, 100)
    wait_for(lambda: len(first.executions()) == 2)
    first.kill()
    begun = [one.uuid for one in first.executions()]

    second = staff(concurrency=1)

    wait_for(lambda: ended(server, uuids), 30)
    assert begun == uuids[: len(begun)]
    # Both have one journal. Only the last that had begun runs again, and what waits behind it stays there.
    assert [one.uuid for one in second.executions()] in (begun + uuids[1:], begun + uuids[len(begun) :])
    again = server.backend.task_state(begun[-1])
    assert again is not None
    assert again.celery == '{"run": 1}'
    expect_healthy(second)


def hand_back(server: Server, names: Names, signature: Signature, state: TaskState, times: int = 0) -> None:
    """Puts a message into the queue that somebody has had and given back, and its task's state into the store.

    Args:
        server: the queue's.
        names: has the queue's name.
        signature: the task.
        state: what became of it.
        times: how often the message was counted.
    """
    state.task_uuid, state.task_name = signature.uuid, signature.name
    server.backend.put_state(state)
    with server.app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.queue_declare(names.queue, durable=True, auto_delete=False)
        message = amqp_message(signature, redelivered(signature.encode(), times))
        channel.publish_confirmed(message, exchange="", routing_key=names.queue)
        fetched = wait_for(lambda: channel.basic_get(names.queue))
        channel.basic_reject(fetched.delivery_tag, requeue=True)


@pytest.mark.parametrize(
    ("state", "celery", "times", "run"),
    [
        ("STARTED", "", 0, 1),
        ("STARTED", '{"run": 1}', 0, 2),
        # Counted before, and handed back since by a worker that does not know the task, as Go does.
        ("STARTED", '{"run": 1}', 2, 2),
        # Begun by a Go worker, whose states have no number.
        ("STARTED", "", 1, 2),
        ("STARTED", '{"run": 1}', 1, 2),
        # Taken for its second run by a worker that has not begun it.
        ("RECEIVED", '{"run": 1}', 0, 1),
        ("FAILURE", '{"run": 1}', 0, 2),
        ("PENDING", "", 0, 0),
    ],
)
def test_the_run_that_follows(
    server: Server, names: Names, staff: Staff, state: str, celery: str, times: int, run: int
) -> None:
    signature = new_signature("py_sleep", 1, routing_key=names.queue)
    hand_back(server, names, signature, TaskState(state=state, celery=celery), times)

    worker = staff(app=APP, LIMIT=str(max(run, 1)))

    wait_for(lambda: ended(server, [signature.uuid]), 20)
    assert [one.uuid for one in worker.executions()] == [signature.uuid]
    stored = server.backend.task_state(signature.uuid)
    assert stored is not None
    assert stored.celery == (f'{{"run": {run}}}' if run else None)


def test_a_worker_that_does_not_know_the_task_passes_its_count_on(server: Server, names: Names, staff: Staff) -> None:
    signature = new_signature("py_sleep", 1, routing_key=names.queue)
    hand_back(server, names, signature, TaskState(state="STARTED", celery='{"run": 1}'))
    stranger = staff(tasks="json")
    wait_for(lambda: f"py_sleep[{signature.uuid}] is not registered here" in stranger.text())

    worker = staff()

    wait_for(lambda: ended(server, [signature.uuid]), 20)
    assert [one.uuid for one in worker.executions()] == [signature.uuid]


def test_a_message_waits_for_a_store_that_knows_its_run(
    rabbit_server: RabbitServer, names: Names, staff: Staff
) -> None:
    with RedisServer() as store, Proxy(store.port) as way:
        server = server_of(rabbit_server.url(), store.url(), names)
        signature = new_signature("py_sleep", 1, routing_key=names.queue)
        hand_back(server, names, signature, TaskState(state="STARTED", celery='{"run": 1}'))
        way.shut()

        worker = staff(backend=f"redis://127.0.0.1:{way.port}/0")
        wait_for(lambda: "cannot be read" in worker.text(), 20)
        assert worker.executions() == []
        way.open()

        wait_for(lambda: ended(server, [signature.uuid]), 30)
        stored = server.backend.task_state(signature.uuid)
        assert stored is not None
        assert stored.celery == '{"run": 2}'
        worker.stop()


def test_the_next_broker_is_used_when_the_first_is_down_or_dies(
    rabbit_server: RabbitServer, redis_db: str, names: Names, staff: Staff
) -> None:
    """Both addresses lead to one RabbitMQ, so that what the first has taken is there."""
    with Proxy(rabbit_server.port) as first:
        down = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
        urls = f"{down}|amqp://guest:guest@127.0.0.1:{first.port}/|{rabbit_server.url()}"
        worker = staff(broker=urls, MULTIPLE_BROKER_SEPARATOR="|")
        server = server_of(urls, redis_db, names, "|")
        uuids = send(server, 10, 300)
        wait_for(lambda: worker.executions())

        first.shut()

        uuids += send(server, 2, 10)
        wait_for(lambda: ended(server, uuids), 40)
    assert f"Connected to amqp://guest:**@127.0.0.1:{first.port}" in worker.text()
    assert f"Connected to amqp://guest:**@127.0.0.1:{rabbit_server.port}" in worker.text()
    assert "guest:guest" not in worker.text()
    expect_healthy(worker)


def test_a_broker_restarts_under_load(redis_db: str, names: Names, tmp_path: Path, staff: Staff) -> None:
    with RabbitServer() as rabbit:
        server = server_of(rabbit.url(), redis_db, names)
        worker = staff(broker=rabbit.url())
        uuids = send(server, 40, 50)
        uuids.append(server.app.send_task("py_add", [1, 2], countdown=3).id)
        wait_for(lambda: worker.executions())

        rabbit.restart()

        uuids += send(server, 10, 10)
        wait_for(lambda: ended(server, uuids), 60)
        wait_for(lambda: rabbit.list_queues()[names.queue] == 0)
        expect_healthy(worker)
        worker.stop()


def test_a_worker_goes_on_during_an_alarm(rabbit_server: RabbitServer, server: Server, staff: Staff) -> None:
    worker = staff(arguments=("-E",))
    uuids = send(server, 10, 200)

    rabbit_server.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        wait_for(lambda: ended(server, uuids), 20)
    finally:
        rabbit_server.ctl("set_vm_memory_high_watermark", "0.4")

    assert server.send_task(new_signature("py_add", 1, 2)).get_with_timeout(20) == [3]
    expect_healthy(worker)


def test_a_worker_that_was_frozen_stores_nothing_over_a_later_run(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff
) -> None:
    frozen = staff(concurrency=1)
    (uuid,) = send(server, 1, 1500)
    wait_for(lambda: frozen.executions())
    frozen.process.signal(signal.SIGSTOP)
    rabbit_server.close_connections()

    other = staff(concurrency=1)
    wait_for(lambda: ended(server, [uuid]), 30)
    state = server.backend.task_state(uuid)
    frozen.process.signal(signal.SIGCONT)

    wait_for(lambda: "another worker has been given it" in frozen.text(), 20)
    assert server.backend.task_state(uuid) == state
    assert [one.uuid for one in other.executions()] == [uuid] * 2
    wait_for(lambda: rabbit_server.list_queues()[names.queue] == 0)
    expect_healthy(frozen)
    expect_healthy(other)


def begin_elsewhere(server: Server, uuid: str, run: int) -> None:
    """Stores that another worker has begun a run of a task."""
    state = TaskState(task_uuid=uuid, state=STARTED)
    fence.sign(state, run)
    assert server.app.backend.update_states([state], run=run) == [True]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_only_message_of_a_task_is_not_lost_to_a_run_that_is_no_more(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff, pool: str
) -> None:
    """A copy that a worker without the task has made comes without the number of the run before."""
    (uuid,) = send(server, 1, 10)
    begin_elsewhere(server, uuid, 1)

    worker = staff(pool=pool)

    wait_for(lambda: ended(server, [uuid]), 20)
    wait_for(lambda: rabbit_server.list_queues()[names.queue] == 0)
    assert [one.uuid for one in worker.executions()] == [uuid]
    expect_healthy(worker)


def test_a_worker_whose_run_does_not_count_any_more_runs_what_it_gets_again(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff
) -> None:
    """Its connection was lost, another worker has begun the task and died, and the message comes back."""
    worker = staff(pool="threads")
    (uuid,) = send(server, 1, 3000)
    wait_for(lambda: worker.executions())
    begin_elsewhere(server, uuid, 1)

    rabbit_server.close_connections()

    wait_for(lambda: ended(server, [uuid]), 30)
    wait_for(lambda: rabbit_server.list_queues()[names.queue] == 0)
    assert [one.uuid for one in worker.executions()] == [uuid] * 2
    expect_healthy(worker)


@pytest.fixture
def impatient(rabbit_server: RabbitServer) -> Iterator[None]:
    """RabbitMQ closes the channel of who has not acknowledged within 1 s; its default is half an hour."""
    for name in ("consumer_timeout", "channel_tick_interval"):
        rabbit_server.ctl("eval", SETTING.format(name, 1000))
    yield
    rabbit_server.ctl("eval", SETTING.format("consumer_timeout", 1_800_000))
    rabbit_server.ctl("eval", SETTING.format("channel_tick_interval", 60_000))


@pytest.mark.usefixtures("impatient")
def test_a_task_that_is_longer_than_the_broker_waits_runs_once(
    rabbit_server: RabbitServer, server: Server, names: Names, staff: Staff
) -> None:
    worker = staff(app=APP, LIMIT="0")

    (uuid,) = send(server, 1, 5000)

    wait_for(lambda: ended(server, [uuid]), 30)
    wait_for(lambda: rabbit_server.list_queues()[names.queue] == 0, 20)
    assert [one.uuid for one in worker.executions()] == [uuid]
    assert "PRECONDITION_FAILED" in worker.text()
    expect_healthy(worker)


def test_a_burial_survives_the_loss_of_the_connection(
    rabbit_server: RabbitServer, server: Server, names: Names
) -> None:
    """Cut between the copy in the dead queue and the acknowledgement: kept twice, and never lost."""
    queue = server.app.amqp.queues[names.queue]
    found: list[Any] = []
    reason = "nobody can run it"

    def take() -> Any:
        found.clear()
        connection = server.app.connection_for_read()
        consumer = connection.Consumer(queue, on_message=found.append)
        consumer.consume()
        while not found:
            connection.drain_events(timeout=10)
        return connection, found[0]

    server.send_task(new_signature("bad"))
    connection, message = take()
    message.channel.bury(message.raw_body, reason, message.queue)
    rabbit_server.close_connections()
    with pytest.raises(connection.connection_errors):
        connection.drain_events(timeout=10)
    with pytest.raises(connection.connection_errors):
        message.ack()
    connection.release()

    connection, message = take()
    message.bury(reason)
    connection.release()

    queues = rabbit_server.list_queues()
    assert queues[f"{names.queue}:dead"] == 2
    assert queues[names.queue] == 0


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_what_follows_a_task_is_sent_though_its_process_dies_first(
    rabbit_server: RabbitServer, redis_db: str, names: Names, staff: Staff, tmp_path: Path, broker: str
) -> None:
    """SUCCESS is stored by then."""
    url = rabbit_server.url() if broker == "rabbitmq" else redis_db
    server = server_of(url, redis_db, names)
    worker = staff(broker=url, app="tests.fault.follower_app", FLAG=str(tmp_path / "flag"))
    follower = new_signature("py_multiply", 2)

    server.send_task(new_signature("py_add", 1, 2, on_success=[follower]))

    wait_for(lambda: ended(server, [follower.uuid]), 20)
    expect_healthy(worker)
