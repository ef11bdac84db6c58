"""The broker and the result backend `eager`, and the backend `null`: everything without a server."""

from __future__ import annotations

import re
import threading
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

import celery
import pytest
from celery import chord, signals
from kombu import Connection as KombuConnection

from machinery_compat import (
    Arg,
    Celery,
    Chain,
    Chord,
    Config,
    Group,
    GroupMeta,
    MachineryError,
    RetryTaskLater,
    Server,
    Signature,
    TaskError,
    current_signature,
    new_signature,
)
from machinery_compat.errors import BackendError, ConfigError, EncodeError, ResultTimeout
from machinery_compat.transport.base import SERIALIZER
from tests.support.eager import add, history

# -- a task


def test_a_task_runs_where_it_is_sent(server: Server) -> None:
    threads: list[int] = []
    server.register_task("where", lambda: threads.append(threading.get_ident()))

    result = server.send_task(new_signature("where", eta=datetime.now(timezone.utc) + timedelta(hours=1)))

    assert threads == [threading.get_ident()]
    assert result.touch() == []
    assert history(server, result.signature.uuid) == ["PENDING", "RECEIVED", "STARTED", "SUCCESS"]
    assert result.get_state().task_name == "where"
    assert result.get_state().created_at > "2000"


def test_bytes_are_called_in_a_result_what_go_calls_them(server: Server) -> None:
    server.register_task("bare", lambda: b"hi")
    server.register_task("hinted", hinted)

    assert [one.type for one in server.send_task(new_signature("bare")).get_state().results or () if one] == ["[]uint8"]
    result = server.send_task(new_signature("hinted"))
    assert [one.type for one in result.get_state().results or () if one] == ["[]uint8", "[]uint8", "int64"]
    assert result.touch() == [b"hi", b"ho", 5]


def hinted() -> tuple[bytes, bytearray, int]:
    return b"hi", bytearray(b"ho"), 5


def test_a_failed_task_tells_its_error(server: Server) -> None:
    result = server.send_task(new_signature("fail", "no such file"))

    assert history(server, result.signature.uuid) == ["PENDING", "RECEIVED", "STARTED", "FAILURE"]
    with pytest.raises(TaskError, match=r"^no such file$"):
        result.get()


def test_values_arrive_as_over_the_wire(server: Server) -> None:
    seen: list[Any] = []
    server.register_task("look", lambda *values: seen.extend(values))
    args = [Arg("float64", 100.0), Arg("int64", 2**62 + 1), Arg("[]byte", b"\xff"), Arg("float32", 0.1)]

    server.send_task(Signature(name="look", args=args))
    server.app.send_task("look", [(1, 2), {"a": None}])

    assert seen == [100.0, 2**62 + 1, b"\xff", seen[3], [1, 2], {"a": None}]
    assert type(seen[0]) is float
    assert seen[3] == pytest.approx(0.1)


def test_the_body_sees_its_signature_and_nothing_of_the_senders(server: Server) -> None:
    seen: list[Signature | None] = []

    def look() -> None:
        signature = current_signature()
        assert signature is not None
        signature.name = "changed"
        seen.append(current_signature())

    server.register_task("look", look)
    sent = new_signature("look", headers={"tenant": "t1"}, priority=3)
    server.send_task(sent)

    assert seen[0] is not None
    assert seen[0].encode() == sent.encode()
    assert current_signature() is None


def test_a_task_that_is_not_registered_is_left_alone(server: Server) -> None:
    result = server.send_task(new_signature("nobody"))

    assert history(server, result.signature.uuid) == ["PENDING"]
    with pytest.raises(ResultTimeout):
        result.get_with_timeout(0.02, 0.01)


def test_what_is_no_task_is_an_error_that_shows_how_to_make_one(server: Server) -> None:
    one: Any = new_signature("add", 1)
    for send, given, made in [
        (server.send_task, "add", 'new_signature("add", 1, 2)'),
        (server.send_chain, one, "Chain(signature, signature)"),
        (server.send_group, [one], "Group(signature, signature)"),
        (server.send_chord, Group(one), "Chord(group, callback)"),
    ]:
        with pytest.raises(TypeError, match=re.escape(f"make one with {made}")):
            send(given)


def test_arguments_that_do_not_convert_fail_the_task(server: Server, app: Celery, calls: list[Any]) -> None:
    bad = Signature(uuid="task_1", name="add", args=[Arg.from_raw("int64", b'"x"')], on_error=[new_signature("note")])
    with pytest.raises(EncodeError):
        server.send_task(bad)

    with app.producer_or_acquire() as producer:
        producer.publish(bad, serializer=SERIALIZER, routing_key="machinery_tasks")

    assert history(server, "task_1") == ["PENDING", "RECEIVED", "FAILURE"]
    assert server.backend.task_state("task_1").error == "Reflect task args error: x is not int64"  # type: ignore[union-attr]
    assert calls == [("Reflect task args error: x is not int64",)]


def test_callbacks(server: Server, calls: list[Any]) -> None:
    server.send_task(new_signature("add", 1, 2, on_success=[new_signature("note", 0), None, new_signature("note")]))
    server.send_task(new_signature("fail", "boom", on_error=[new_signature("note", "x")]))
    server.send_task(new_signature("add", 1, immutable=True, on_success=[new_signature("note")]))

    assert calls == [(0, 3), (3,), ("boom", "x"), ()]


# -- retries


def test_retries_come_at_once(server: Server, calls: list[Any]) -> None:
    runs = iter(range(10))
    server.register_task("flaky", lambda: "done" if next(runs) == 2 else 1 // 0)

    result = server.send_task(new_signature("flaky", retry_count=5, on_success=[new_signature("note")]))

    assert result.touch() == ["done"]
    once = ["PENDING", "RECEIVED", "STARTED"]
    assert history(server, result.signature.uuid) == [*once, "RETRY", *once, "RETRY", *once, "SUCCESS"]
    assert calls == [("done",)]


def test_retry_task_later(server: Server) -> None:
    # So many that they must not run one inside the other.
    left = [500]

    def later() -> str:
        if left[0]:
            left[0] -= 1
            raise RetryTaskLater("not yet", timedelta(hours=4))
        return "done"

    server.register_task("later", later)

    assert server.send_task(new_signature("later")).touch() == ["done"]
    assert left == [0]


def test_a_retry_that_cannot_be_sent_is_the_failure_of_its_task(server: Server, calls: list[Any]) -> None:
    server.register_task("fail", lambda text: 1 // 0)
    sent = new_signature("fail", "x", retry_count=1, on_error=[new_signature("note")])
    sent.routing_key, sent.headers = "machinery_tasks", {}
    # Only the time of the retry is too much.
    server.app.conf.machinery_max_body_size = len(sent.encode())

    result = server.send_task(sent)

    assert history(server, result.signature.uuid)[-2:] == ["RETRY", "FAILURE"]
    with pytest.raises(TaskError, match=r"the retry cannot be sent: task fail.* machinery_max_body_size"):
        result.get()
    assert len(calls) == 1


def test_a_task_that_is_retried_for_ever_is_an_error(server: Server) -> None:
    def never() -> None:
        raise RetryTaskLater("not yet", 1)

    server.register_task("never", never)

    with pytest.raises(MachineryError, match=r"never.* has run 1000 times"):
        server.send_task(new_signature("never"))
    assert server.send_task(new_signature("add", 1)).touch() == [1]


# -- workflows


def test_chains(server: Server) -> None:
    short = Chain(new_signature("add", 2, 2), new_signature("add", 5, 6), new_signature("add", 4))
    server.register_task("count", lambda *before: len(before) + before[-1])
    long = Chain(new_signature("add", 0), *(new_signature("count") for _ in range(199)))

    assert server.send_chain(short).get() == [19]
    assert server.send_chain(long).get() == [199]


def test_a_group_and_its_order(server: Server) -> None:
    progress: list[tuple[int, int]] = []

    results = server.send_group(
        Group(*(new_signature("add", n, n, on_success=[new_signature("add", n)]) for n in range(5))),
        progress=lambda *args: progress.append(args),
    )

    assert [result.touch() for result in results] == [[0], [2], [4], [6], [8]]
    assert progress[-1] == (5, 5)
    follower = results[3].signature.on_success[0].uuid  # type: ignore[index,union-attr]
    assert history(server, follower) == ["PENDING", "RECEIVED", "STARTED", "SUCCESS"]


def test_a_chord_is_triggered_once(server: Server, calls: list[Any]) -> None:
    result = server.send_chord(Chord(Group(*(new_signature("add", n, n) for n in range(50))), new_signature("note", 1)))

    assert result.get() == []
    assert calls == [(1, *range(0, 100, 2))]


def test_a_failed_member_fails_its_chord(server: Server, calls: list[Any]) -> None:
    sent = Chord(Group(new_signature("add", 1), new_signature("fail"), new_signature("add", 2)), new_signature("note"))

    result = server.send_chord(sent)

    with pytest.raises(TaskError, match="boom"):
        result.result.get()
    assert calls == []


def test_chords_in_chords(server: Server, calls: list[Any]) -> None:
    def outer(n: int) -> int:
        inner = Chord(Group(*(new_signature("add", n, m) for m in range(3))), new_signature("add"))
        # A body may wait for what it sends: that has run when the sending returns.
        return int(server.send_chord(inner).get_with_timeout(1)[0])

    server.register_task("outer", outer)
    server.send_chord(Chord(Group(*(new_signature("outer", n) for n in range(3))), new_signature("note")))

    assert calls == [(3, 6, 9)]


def test_threads_share_the_results_and_trigger_once(server: Server, calls: list[Any]) -> None:
    barrier = threading.Barrier(8)

    def meet() -> int:
        barrier.wait(10)
        return 1

    server.register_task("meet", meet)
    sent = Chord(Group(*(new_signature("meet") for _ in range(8))), new_signature("note"))
    backend = server.backend
    for member in sent.group.tasks:
        backend.store_pending(member, "")
    uuid = sent.group.group_uuid
    backend.put_group(GroupMeta(group_uuid=uuid, task_uuids=sent.group.get_uuids()))
    threads = [threading.Thread(target=server.send_task, args=(member,)) for member in sent.group.tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert calls == [(1,) * 8]


# -- handlers and signals


def test_handlers_of_a_worker(server: Server) -> None:
    events: list[str] = []
    server.register_task("body", lambda: events.append("body"))
    server.set_pre_task_handler(lambda signature: events.append(f"publish {signature.name}"))
    worker = server.new_worker("worker", 1)
    worker.set_pre_task_handler(lambda signature: events.append(f"before {signature.name}"))
    worker.set_post_task_handler(lambda signature: events.append(f"after {signature.name}"))
    worker.set_error_handler(lambda exc: events.append(str(exc)))
    worker.launch_async()
    try:
        server.send_task(new_signature("body"))
        server.send_task(new_signature("fail"))
    finally:
        worker.quit()

    assert events == [
        *("publish body", "before body", "body", "after body"),
        *("publish fail", "before fail", "boom", "after fail"),
    ]


def test_signals(app: Celery) -> None:
    seen: list[str] = []
    watched = {"before_task_publish", "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry"}
    receivers = {name: lambda *args, _name=name, **kwargs: seen.append(_name) for name in sorted(watched)}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, weak=False)
    try:
        app.send_task("add", [1])
        app.send_task("fail")
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)

    assert seen == [
        *("before_task_publish", "task_prerun", "task_success", "task_postrun"),
        *("before_task_publish", "task_prerun", "task_failure", "task_postrun"),
    ]


# -- the broker by itself, the backends


def test_nothing_waits(server: Server) -> None:
    assert server.broker.get_pending_tasks() == []
    assert server.broker.get_delayed_tasks() == []


def test_a_connection_without_an_application_cannot_run_tasks() -> None:
    with KombuConnection("machinery+eager://") as connection, pytest.raises(ConfigError, match="enable"):
        connection.Producer().publish(new_signature("add"), serializer=SERIALIZER, routing_key="q")


def test_the_texts_of_the_eager_backend_are_gos(server: Server) -> None:
    backend = server.backend
    backend.put_group(GroupMeta(group_uuid="group_1", task_uuids=["task_1"]))

    with pytest.raises(BackendError, match=r"^Group not found: group_2$"):
        backend.group_task_states("group_2")
    with pytest.raises(BackendError, match=r"^Group not found: group_2$"):
        backend.trigger_chord("group_2")
    with pytest.raises(BackendError, match=r"^Task not found: task_1$"):
        backend.group_completed("group_1", 1)
    assert backend.as_uri() == "eager"


def test_the_null_backend_keeps_nothing() -> None:
    server = Server(Config(broker="eager", result_backend="null"))
    server.register_task("add", add)

    result = server.send_task(new_signature("add", 1))

    with pytest.raises(ResultTimeout):
        result.get_with_timeout(0.02, 0.01)
    with pytest.raises(BackendError, match=r"^Task not found: task_"):
        result.get()
    sent = server.app.send_task("add", [1])
    assert sent.state == "PENDING"
    for wait in (sent.get, server.app.GroupResult("g", [sent]).get):
        with pytest.raises(BackendError, match="keeps no results"):
            wait()
    with pytest.raises(celery.exceptions.TimeoutError):
        sent.get(timeout=0.02)
    with pytest.raises(NotImplementedError, match="null"):
        chord([server.app.signature("add")], server.app.signature("add"))()


def test_a_chord_without_results_is_sent_after_each_member_as_in_go() -> None:
    server = Server(Config(broker="eager", result_backend="null"))
    called: Counter[tuple[int, ...]] = Counter()
    server.register_tasks({"add": add, "note": lambda *args: called.update([args])})

    server.send_chord(Chord(Group(*(new_signature("add", n) for n in range(3))), new_signature("note")))

    assert called == {(): 3}
