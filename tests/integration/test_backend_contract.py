"""What every store of results does, whatever it is made of: one class, run over all of them."""

from __future__ import annotations

import json
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from bson import Binary, Decimal128, encode
from celery import chain, chord, group, states
from celery.exceptions import TimeoutError
from celery.result import GroupResult, ResultSet

from machinery_compat import (
    Arg,
    Celery,
    Chain,
    Chord,
    Group,
    GroupMeta,
    Server,
    Signature,
    TaskError,
    TaskState,
    new_signature,
    watchdog,
)
from machinery_compat.backends.base import Backend
from machinery_compat.errors import BackendError
from machinery_compat.wire import TaskResult, gotime, now_text
from tests.conftest import Names
from tests.integration.conftest import TASKS
from tests.support.python_worker import PythonWorker
from tests.support.services import MotoServer, RedisServer
from tests.support.services import Server as ServerProcess
from tests.support.stores import DYNAMODB, RawStore, dynamodb_environment, raw_store
from tests.support.waiting import wait_for

KINDS = [
    pytest.param("redis", marks=pytest.mark.redis),
    "eager",
    pytest.param("memcache", marks=pytest.mark.memcache),
    pytest.param("mongodb", marks=pytest.mark.mongodb),
    pytest.param("dynamodb", marks=pytest.mark.dynamodb),
]
#: Those that can list what they keep, and so remember the chords whose callback is not sent.
WATCHING = [
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("mongodb", marks=pytest.mark.mongodb),
    pytest.param("dynamodb", marks=pytest.mark.dynamodb),
]
#: Results of each type, as Type and JSON text.
RESULTS = [
    ("bool", b"true"),
    *((f"int{bits}", b"%d" % -(2 ** (bits - 1))) for bits in (8, 16, 32, 64)),
    ("int", b"%d" % (2**63 - 1)),
    *((f"uint{bits}", b"%d" % (2**bits - 1)) for bits in (8, 16, 32, 64)),
    ("uint", b"0"),
    ("float32", b"0.1"),
    ("float64", b"100"),
    ("float64", b"1e+21"),
    ("float64", b"5e-324"),
    ("string", b'""'),
    ("string", b'"null"'),
    ("string", b'"{\\"a\\": [1, 2]} "'),
    ("string", '"a \\"quoted\\" \\u003cb\\u003e\\u0026\\u2028 😀 \\u0000\\u001f"'.encode()),
    ("[]bool", b"[true,false]"),
    ("[]int8", b"[-128,127]"),
    ("[]int64", b"[]"),
    ("[]int64", b"null"),
    ("[]uint8", b'"AAH/"'),
    ("[]uint8", b'"12345678"'),
    ("[]byte", b'""'),
    ("[]uint64", b"[18446744073709551615,0]"),
    ("[]float32", b"[0.1,0.5]"),
    ("[]float64", b"[0.1,1e-7,100]"),
    ("[]string", b'["foo","\\u003cb\\u003e",""]'),
]


SERVERS = {
    "redis": "redis_server",
    "memcache": "memcached_server",
    "mongodb": "mongo_server",
    "dynamodb": "moto_server",
}


@pytest.fixture(scope="module", params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[RawStore]:
    if request.param == "eager":
        yield raw_store("eager", "eager")
        return
    server: ServerProcess = request.getfixturevalue(SERVERS[request.param])
    if isinstance(server, MotoServer):
        with dynamodb_environment(server):
            store = raw_store("dynamodb", DYNAMODB)
            store.server().backend.create_tables()
            yield store
        return
    # Of 16 databases of Redis the last but one; the others are emptied by other tests.
    yield raw_store(request.param, server.url(14) if isinstance(server, RedisServer) else server.url())


@pytest.fixture(scope="module")
def server(store: RawStore) -> Iterator[Server]:
    server = store.server()
    yield server
    server.app.close()


@pytest.fixture
def backend(server: Server) -> Backend:
    found: Backend = server.backend
    return found


@pytest.fixture
def uuid(names: Names) -> str:
    return f"task_{names.queue}"


def pending(backend: Backend, uuid: str, name: str = "add") -> TaskState:
    state = TaskState(task_uuid=uuid, task_name=name, state="PENDING", created_at=now_text())
    backend.put_state(state)
    return state


def update(backend: Backend, uuid: str, state: str, only_over: str = "", **fields: Any) -> None:
    backend.update_states([TaskState(task_uuid=uuid, state=state, **fields)], only_over=only_over)


def same_time(one: TaskState, other: TaskState) -> bool:
    """Whether both were created in the same millisecond, which is what MongoDB keeps."""
    first, second = (gotime.time_ns(state.created_at) // 1_000_000 for state in (one, other))
    return first == second


def made_group(backend: Backend, uuid: str, count: int) -> list[str]:
    members = [f"{uuid}-{number}" for number in range(count)]
    backend.put_group(GroupMeta(group_uuid=uuid, task_uuids=members, created_at=now_text()))
    backend.put_pending([Signature(uuid=member, name="add") for member in members])
    return members


class TestTasks:
    def test_a_task_that_nobody_has_sent(self, backend: Backend, uuid: str) -> None:
        assert backend.task_state(uuid) is None
        assert backend.task_states([uuid, f"{uuid}-2"]) == [None, None]

    def test_name_and_time_of_creation_stay(self, backend: Backend, uuid: str) -> None:
        sent = pending(backend, uuid, 'a "name" <x>')
        for state in ("RECEIVED", "STARTED", "RETRY", "SUCCESS"):
            update(backend, uuid, state, results=[] if state == "SUCCESS" else None)
            found = backend.task_state(uuid)
            assert (found.state, found.task_name, found.error) == (state, 'a "name" <x>', "")
            assert same_time(found, sent)

    @pytest.mark.parametrize(("kind", "raw"), RESULTS, ids=[f"{kind} {raw!r}"[:40] for kind, raw in RESULTS])
    def test_a_result_of_each_type(self, backend: Backend, uuid: str, kind: str, raw: bytes) -> None:
        update(backend, uuid, "SUCCESS", results=[TaskResult.from_raw(kind, raw)])

        (result,) = backend.task_state(uuid).results
        assert (result.type, result.raw) == (kind, raw)
        assert result.value == TaskResult.from_raw(kind, raw).value

    def test_several_results_and_none(self, backend: Backend, uuid: str) -> None:
        several = [TaskResult.from_raw("int64", b"1"), TaskResult.from_raw("string", b'"{}"', celery="celery:json")]
        update(backend, uuid, "SUCCESS", results=several)
        assert backend.task_state(uuid).results == several
        update(backend, uuid, "SUCCESS", results=[])
        assert backend.task_state(uuid).results == []

    def test_a_failure_and_what_python_says_of_it(self, backend: Backend, uuid: str) -> None:
        pending(backend, uuid)
        update(backend, uuid, "FAILURE", error="no <luck>", celery='{"traceback": "…"}')

        found = backend.task_state(uuid)
        assert (found.state, found.error, found.celery) == ("FAILURE", "no <luck>", '{"traceback": "…"}')
        assert found.results is None

    def test_a_task_that_is_sent_again_begins_anew(self, backend: Backend, uuid: str) -> None:
        update(backend, uuid, "FAILURE", error="e", celery="{}")
        pending(backend, uuid, "other")

        found = backend.task_state(uuid)
        assert (found.state, found.task_name, found.error, found.celery) == ("PENDING", "other", "", None)
        update(backend, uuid, "SUCCESS", results=[])
        assert (backend.task_state(uuid).celery, backend.task_state(uuid).error) == (None, "")

    def test_a_state_that_is_written_only_over_another(self, backend: Backend, uuid: str) -> None:
        update(backend, uuid, "RETRY", only_over="PENDING")
        assert backend.task_state(uuid) is None
        pending(backend, uuid)
        update(backend, uuid, "RETRY", only_over="PENDING")
        assert backend.task_state(uuid).state == "RETRY"
        update(backend, uuid, "SUCCESS", results=[])
        update(backend, uuid, "RETRY", only_over="PENDING")
        assert backend.task_state(uuid).state == "SUCCESS"

    @pytest.mark.parametrize("end", ["SUCCESS", "FAILURE"])
    def test_received_does_not_replace_an_end(self, backend: Backend, uuid: str, end: str) -> None:
        pending(backend, uuid)
        others = [f"{uuid}-1", f"{uuid}-2"]
        update(backend, uuid, end, results=[TaskResult.from_raw("int64", b"1")] if end == "SUCCESS" else None)

        received = [TaskState(task_uuid=one, state="RECEIVED") for one in (others[0], uuid, others[1])]
        assert list(backend.update_states(received, run=0)) == [True, False, True]
        assert list(backend.update_states(received[1:2], run=1)) == [False]

        assert [one.state for one in backend.task_states([others[0], uuid, others[1]])] == ["RECEIVED", end, "RECEIVED"]
        assert backend.update_states([TaskState(task_uuid=uuid, state="STARTED")], run=1)[0]

    def test_many_states_keep_their_order(self, backend: Backend, uuid: str) -> None:
        uuids = [f"{uuid}-{number}" for number in range(1500)]
        backend.put_pending([Signature(uuid=one, name=f"n{number}") for number, one in enumerate(uuids)])
        backend.update_states([TaskState(task_uuid=one, state="RECEIVED") for one in uuids[:50]])

        found = backend.task_states([*uuids, f"{uuid}-x"])
        assert [one.task_name for one in found[:-1]] == [f"n{number}" for number in range(1500)]
        assert [one.state for one in found[48:52]] == ["RECEIVED", "RECEIVED", "PENDING", "PENDING"]
        assert found[-1] is None

    def test_purge(self, backend: Backend, store: RawStore, uuid: str) -> None:
        pending(backend, uuid)
        backend.purge(uuid)
        backend.purge(uuid)
        assert (backend.task_state(uuid), store.get(uuid)) == (None, None)

    def test_threads_that_write_one_state_lose_nothing(self, backend: Backend, uuid: str) -> None:
        sent = pending(backend, uuid)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: update(backend, uuid, ("STARTED", "RETRY")[number % 2]), range(80)))

        found = backend.task_state(uuid)
        assert found.task_name == "add"
        assert same_time(found, sent)


class TestGroups:
    def test_a_group_and_its_members(self, backend: Backend, uuid: str) -> None:
        members = made_group(backend, uuid, 3)

        meta = backend.group_meta(uuid)
        assert (meta.group_uuid, meta.task_uuids, meta.chord_triggered, meta.lock) == (uuid, members, False, False)
        assert [one.task_uuid for one in backend.group_task_states(uuid)] == members

    def test_a_group_is_complete_with_its_last_member(self, backend: Backend, uuid: str) -> None:
        members = made_group(backend, uuid, 3)
        for number, member in enumerate(reversed(members)):
            assert not backend.group_completed(uuid, 3)
            update(backend, member, ("SUCCESS", "FAILURE")[number % 2])
        assert backend.group_completed(uuid, 3)

    def test_a_group_that_is_sent_again_is_not_complete(self, backend: Backend, uuid: str) -> None:
        members = made_group(backend, uuid, 2)
        for sent_at in (1_000_000_000, 2_000_000_000):
            backend.put_pending([Signature(uuid=member, name="add") for member in members])
            meta = GroupMeta(group_uuid=uuid, task_uuids=members, created_at=gotime.time_from_ns(sent_at))
            backend.begin_group(meta)
            update(backend, members[0], "SUCCESS", results=[])
            assert not backend.group_completed(uuid, 2)
            update(backend, members[1], "SUCCESS", results=[])
            assert backend.group_completed(uuid, 2)
            assert backend.trigger_chord(uuid)

    def test_a_group_or_a_member_that_is_missing(self, backend: Backend, uuid: str) -> None:
        with pytest.raises(BackendError, match=uuid):
            backend.group_completed(uuid, 2)
        with pytest.raises(BackendError, match=uuid):
            backend.trigger_chord(uuid)
        first, second = made_group(backend, uuid, 2)
        update(backend, first, "SUCCESS", results=[])
        backend.purge(second)
        with pytest.raises(BackendError, match=second):
            backend.group_completed(uuid, 2)

    def test_of_many_threads_one_triggers_the_chord(self, backend: Backend, uuid: str) -> None:
        for number in range(5):
            made_group(backend, f"{uuid}{number}", 1)
            together = threading.Barrier(8)

            def trigger(_: int, number: int = number, together: threading.Barrier = together) -> bool:
                together.wait()
                return bool(backend.trigger_chord(f"{uuid}{number}"))

            with ThreadPoolExecutor(8) as pool:
                assert sorted(pool.map(trigger, range(8))) == [False] * 7 + [True]
            assert backend.group_meta(f"{uuid}{number}").chord_triggered
            assert not backend.trigger_chord(f"{uuid}{number}")

    def test_a_group_that_grows(self, backend: Backend, uuid: str) -> None:
        members = made_group(backend, uuid, 2)
        for member in members:
            update(backend, member, "SUCCESS", results=[])
        assert backend.group_completed(uuid, 2)
        more = [f"{uuid}-more-{number}" for number in range(8)]
        backend.put_pending([Signature(uuid=member, name="add") for member in more])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda member: backend.add_member(uuid, member, '[["x", null], null]'), more))

        assert sorted(backend.group_meta(uuid).task_uuids) == sorted([*members, *more])
        assert not backend.group_completed(uuid, 2)
        for member in more:
            update(backend, member, "SUCCESS", results=[])
        assert backend.group_completed(uuid, 2)
        with pytest.raises(BackendError, match=f"{uuid}-none"):
            backend.add_member(f"{uuid}-none", members[0], "[]")

    def test_purge(self, backend: Backend, store: RawStore, uuid: str) -> None:
        made_group(backend, uuid, 1)
        backend.purge(uuid)
        assert (backend.group_meta(uuid), store.get(uuid, "group_metas")) == (None, None)


@pytest.mark.parametrize("store", WATCHING, indirect=True, scope="module")
class TestWatchedChords:
    """Chords that are complete, and whose callback nobody has sent."""

    @pytest.fixture(autouse=True)
    def chord(self, store: RawStore, server: Server, uuid: str) -> None:
        """A chord of two whose members have ended; its callback, and how that was called."""
        self.store, self.server, self.backend, self.uuid = store, server, server.backend, uuid
        self.sent: list[str] = []
        server.register_task(f"sum-{uuid}", lambda *numbers: self.sent.append(f"{numbers}"))
        self.callback = new_signature(f"sum-{uuid}", uuid=f"{uuid}-callback")
        self.members = made_group(self.backend, uuid, 2)
        for member in self.members:
            update(self.backend, member, "SUCCESS", results=[TaskResult.from_raw("int64", b"7")])
        self.backend.watch_chord(uuid, self.callback)

    def look(self) -> bool:
        """Looks after the chord, as if it were time; whether it is watched then."""
        self.store.let_be_due([self.uuid])
        watchdog.look(self.server.app)
        return self.uuid in self.store.watched_chords()

    def test_a_complete_chord_that_nobody_flagged_is_sent_once(self) -> None:
        watchdog.look(self.server.app)
        assert self.sent == []
        assert (self.look(), self.look(), self.sent) == (False, False, ["(7, 7)"])

    def test_a_chord_that_was_flagged_and_not_sent(self) -> None:
        assert self.backend.trigger_chord(self.uuid)
        # The first time somebody may be about to send it.
        assert (self.look(), self.sent) == (True, [])
        assert (self.look(), self.look(), self.sent) == (False, False, ["(7, 7)"])

    def test_a_python_worker_that_died_while_it_sent(self) -> None:
        assert self.backend.trigger_chord(self.uuid)
        self.backend.watch_chord(self.uuid, self.callback, began=True)
        # Its PENDING state is written before the message goes out.
        pending(self.backend, self.callback.uuid)

        assert (self.look(), self.sent) == (True, [])
        assert (self.look(), self.sent) == (False, ["(7, 7)"])

    def test_a_chord_that_go_has_sent_is_forgotten(self) -> None:
        assert self.backend.trigger_chord(self.uuid)
        pending(self.backend, self.callback.uuid)

        assert (self.look(), self.look(), self.sent) == (True, False, [])

    def test_a_python_worker_that_begins_to_send_during_a_look_and_dies(self) -> None:
        assert self.backend.trigger_chord(self.uuid)
        pending(self.backend, self.callback.uuid)
        assert (self.look(), self.sent) == (True, [])

        self.backend.watch_chord(self.uuid, self.callback, began=True)

        assert (self.look(), self.sent) == (False, ["(7, 7)"])

    def test_a_member_that_runs_again_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("machinery_compat.workflow.RUNS_AGAIN", 0.1)
        assert self.backend.group_completed(self.uuid, 2)
        # Its worker died before it acknowledged the message.
        update(self.backend, self.members[1], "STARTED")
        for _ in range(3):
            self.server.app.machinery.workflow.check_group(self.uuid, 2, self.callback)
            assert (self.look(), self.sent) == (True, [])
        assert self.backend.task_state(self.callback.uuid) is None

        update(self.backend, self.members[1], "SUCCESS", results=[TaskResult.from_raw("int64", b"8")])

        self.server.app.machinery.workflow.check_group(self.uuid, 2, self.callback)
        while self.look():
            assert self.sent == []
        assert self.sent == ["(7, 8)"]

    def test_a_chord_that_is_not_complete_is_left_alone(self) -> None:
        update(self.backend, self.members[1], "PENDING")
        assert (self.look(), self.look(), self.sent) == (True, True, [])

    def test_the_last_member_failed_in_go(self) -> None:
        update(self.backend, self.members[1], "FAILURE", error="no luck")

        assert (self.look(), self.sent) == (False, [])
        state = self.backend.task_state(self.callback.uuid)
        assert (state.state, state.error) == ("FAILURE", "no luck")

    def test_a_chord_that_has_expired_is_forgotten(self) -> None:
        self.backend.purge(self.uuid)
        assert (self.look(), self.sent) == (False, [])

    def test_what_is_watched_need_not_be_a_signature(self) -> None:
        self.store.spoil_chord(self.uuid)
        assert (self.look(), self.sent) == (False, [])

    def test_each_chord_is_given_to_one_caller(self) -> None:
        more = [f"{self.uuid}-{number}-more" for number in range(20)]
        for one in more:
            self.backend.watch_chord(one, self.callback)
        self.store.let_be_due([self.uuid, *more])
        together = threading.Barrier(4)

        def overdue(_: int) -> list[str]:
            together.wait()
            return [one.group_uuid for one in self.backend.overdue_chords()]

        with ThreadPoolExecutor(4) as pool:
            found = [one for share in pool.map(overdue, range(4)) for one in share]

        assert sorted(one for one in found if one.startswith(self.uuid)) == sorted([self.uuid, *more])
        assert not {self.uuid, *more} & {one.group_uuid for one in self.backend.overdue_chords()}
        for one in more:
            self.backend.unwatch_chord(one)


class TestExpiry:
    def test_an_ended_task_goes(self, store: RawStore, uuid: str) -> None:
        if store.kind == "eager":
            # Go's never expires either.
            assert store.server(results_expire_in=1).backend.expiry == 1
            return
        backend = store.server(results_expire_in=1).backend
        pending(backend, uuid)
        update(backend, uuid, "SUCCESS", results=[])
        if store.kind == "dynamodb":
            # It deletes when it has time; until then Go reads the item, too.
            assert int(json.loads(store.get(uuid))["TTL"]["N"]) - time.time() <= 1
            assert backend.task_state(uuid).state == "SUCCESS"
            return
        wait_for(lambda: backend.task_state(uuid) is None, 15)

    @pytest.mark.parametrize("seconds", [60 * 86_400, -1], ids=["two months", "never"])
    def test_a_long_life(self, store: RawStore, uuid: str, seconds: int) -> None:
        backend = store.server(results_expire_in=seconds).backend
        pending(backend, uuid)
        update(backend, uuid, "SUCCESS", results=[])
        made_group(backend, f"{uuid}-g", 1)
        assert backend.trigger_chord(f"{uuid}-g")
        # Memcached takes more than 30 days for a time since 1970, which is long past.
        assert backend.task_state(uuid).state == "SUCCESS"
        assert backend.group_meta(f"{uuid}-g").chord_triggered


class TestCelery:
    """The same through Celery's own calls."""

    def test_get_and_states(self, server: Server, backend: Backend, uuid: str) -> None:
        result = server.app.AsyncResult(uuid)
        assert (result.state, result.ready()) == (states.PENDING, False)
        with pytest.raises(TimeoutError):
            result.get(timeout=0.05)
        backend.store_result(uuid, {"a": [1, None]}, states.SUCCESS)
        assert result.get(timeout=5) == {"a": [1, None]}
        backend.store_result(uuid, KeyError("a", 1), states.FAILURE)
        again = server.app.AsyncResult(uuid)
        with pytest.raises(KeyError) as caught:
            again.get(timeout=5)
        assert caught.value.args == ("a", 1)
        again.forget()
        assert server.app.AsyncResult(uuid).state == states.PENDING

    def test_get_many(self, server: Server, backend: Backend, uuid: str) -> None:
        uuids = [f"{uuid}-{number}" for number in range(120)]
        for number, one in enumerate(uuids):
            backend.store_result(one, number, states.SUCCESS)
        results = ResultSet([server.app.AsyncResult(one) for one in uuids], app=server.app)
        assert results.join_native(timeout=10) == list(range(120))
        waiting = ResultSet([server.app.AsyncResult(one) for one in (uuids[0], f"{uuid}-x")], app=server.app)
        with pytest.raises(TimeoutError):
            waiting.join_native(timeout=0.1)

    def test_a_group_result(self, server: Server, backend: Backend, uuid: str) -> None:
        children = [server.app.AsyncResult(f"{uuid}-{number}") for number in range(3)]
        result = GroupResult(f"{uuid}-g", children, app=server.app)
        result.save()
        assert GroupResult.restore(result.id, app=server.app) == result
        result.delete()
        assert GroupResult.restore(result.id, app=server.app) is None

    def test_a_state_of_the_users_own(self, server: Server, backend: Backend, uuid: str) -> None:
        backend.store_result(uuid, {"done": 3}, "PROGRESS")
        found = server.app.AsyncResult(uuid)
        assert (found.state, found.info) == ("PROGRESS", {"done": 3})
        assert backend.task_state(uuid).state == "STARTED"

    def test_a_backend_that_is_pickled_finds_its_server_again(self, server: Server, backend: Backend) -> None:
        server.app.set_current()
        again = pickle.loads(pickle.dumps(backend))  # noqa: S301
        assert (type(again), again.as_uri()) == (type(backend), backend.as_uri())

    def test_a_forked_process_has_connections_of_its_own(self, backend: Backend, uuid: str, store: RawStore) -> None:
        pending(backend, uuid)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                update(backend, uuid, "STARTED")
                os.write(writing, backend.task_state(uuid).state.encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() == b"STARTED"
        assert os.waitpid(child, 0)[1] == 0
        # The eager store is the memory of one process.
        assert backend.task_state(uuid).state == ("PENDING" if store.kind == "eager" else "STARTED")


def mongo(**fields: Any) -> bytes:
    return encode(fields)


JSON_HOSTILE = {
    "no JSON": b"{",
    "nothing": b"",
    "another shape": b"[1]",
    "no document": b"{}",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"State":"SUCCESS","Error":"\xff',
    "a state nobody knows": b'{"TaskUUID":"t","State":"DONE"}',
    "a type nobody knows": b'{"TaskUUID":"t","State":"SUCCESS","Results":[{"Type":"complex","Value":1}]}',
    "a value of another type": b'{"TaskUUID":"t","State":"SUCCESS","Results":[{"Type":"int64","Value":"x"}]}',
    "results of another shape": b'{"TaskUUID":"t","State":"SUCCESS","Results":7}',
    "a null as a result": b'{"TaskUUID":"t","State":"SUCCESS","Results":[null]}',
    "an extra that is no JSON": b'{"TaskUUID":"t","State":"FAILURE","Celery":"{"}',
}
EXTRA = {"state": "FAILURE", "error": "", "extra": "{"}
BSON_HOSTILE = {
    "no document": mongo(),
    "a state nobody knows": mongo(state="DONE"),
    "a state that is no text": mongo(state=7),
    "a name that is no text": mongo(state="STARTED", task_name={"a": 1}),
    "a time that is none": mongo(state="STARTED", created_at="yesterday"),
    "an error that is no text": mongo(state="FAILURE", error=[1]),
    "a type nobody knows": mongo(state="SUCCESS", results=[{"type": "complex", "value": 1}]),
    "a value of another type": mongo(state="SUCCESS", results=[{"type": "int64", "value": "x"}]),
    "a number of MongoDB's own": mongo(state="SUCCESS", results=[{"type": "int64", "value": Decimal128("1")}]),
    "no number": mongo(state="SUCCESS", results=[{"type": "float64", "value": float("nan")}]),
    "binary data for a text": mongo(state="SUCCESS", results=[{"type": "int64", "value": Binary(b"x", 5)}]),
    "results of another shape": mongo(state="SUCCESS", results=7),
    "a result that is none": mongo(state="SUCCESS", results=[7]),
    "a null as a result": mongo(state="SUCCESS", results=[None]),
    "an extra that is no JSON": mongo(state="FAILURE", celery=EXTRA),
    "an extra of another shape": mongo(state="FAILURE", error="", celery={"state": "FAILURE", "error": "", "extra": 7}),
}


def dynamo(state: Any = "SUCCESS", **attributes: Any) -> bytes:
    """The attributes of an item; texts may stand without their type."""
    given = {"State": state, **attributes}
    return json.dumps(
        {name: value if isinstance(value, dict) else {"S": value} for name, value in given.items()}
    ).encode()


def of_type(kind: Any, value: Any) -> dict[str, Any]:
    """A result of DynamoDB's, in a list."""
    return {"L": [{"M": {"Type": {"S": kind}, "Value": value}}]}


DYNAMO_HOSTILE = {
    "no document": b"{}",
    "a state nobody knows": dynamo("DONE"),
    "a state that is no text": dynamo({"N": "7"}),
    "a name that is no text": dynamo("STARTED", TaskName={"M": {}}),
    "a time that is none": dynamo("STARTED", CreatedAt="yesterday"),
    "a time of another type": dynamo("STARTED", CreatedAt={"N": "7"}),
    "an expiry that is none": dynamo(TTL={"N": "1.5"}),
    "an error that is no text": dynamo("FAILURE", Error={"BOOL": True}),
    "a type nobody knows": dynamo(Results=of_type("complex", {"N": "1"})),
    "a type that is no text": dynamo(Results={"L": [{"M": {"Type": {"N": "1"}, "Value": {"N": "1"}}}]}),
    "a value of another type": dynamo(Results=of_type("int64", {"S": "x"})),
    "a number for a text": dynamo(Results=of_type("string", {"N": "1"})),
    "a fraction": dynamo(Results=of_type("int64", {"N": "1.5"})),
    "a huge number": dynamo(Results=of_type("int64", {"N": "1e125"})),
    "too many digits": dynamo(Results=of_type("int64", {"S": "9" * 5000})),
    "no number": dynamo(Results=of_type("float64", {"S": "NaN"})),
    "an endless number": dynamo(Results=of_type("float64", {"S": "+Inf"})),
    "no list": dynamo(Results=of_type("[]int64", {"S": "1 2"})),
    "a list of something else": dynamo(Results=of_type("[]int64", {"S": "[a b]"})),
    "no bytes": dynamo(Results=of_type("[]byte", {"S": "[300]"})),
    "a map": dynamo(Results=of_type("int64", {"M": {"a": {"NULL": True}}})),
    "a set": dynamo(Results=of_type("[]string", {"SS": ["a"]})),
    "binary data for a number": dynamo(Results=of_type("int64", {"B": "eA=="})),
    "results of another shape": dynamo(Results={"N": "7"}),
    "a result that is none": dynamo(Results={"L": [{"N": "7"}]}),
    "a null as a result": dynamo(Results={"L": [{"NULL": True}]}),
    "an extra that is no JSON": dynamo(
        "FAILURE",
        Error="",
        Celery={"M": {"State": {"S": "FAILURE"}, "Error": {"S": "e3b0c44298fc1c14"}, "Extra": {"S": "{"}}},
    ),
    "an extra of another shape": dynamo("STARTED", Celery={"M": {"State": {"S": "STARTED"}, "Extra": {"N": "7"}}}),
    "an extra whose state is no text": dynamo("STARTED", Celery={"M": {"State": {"N": "7"}}}),
}
HOSTILE = {"mongodb": BSON_HOSTILE, "dynamodb": DYNAMO_HOSTILE}
#: What a sender writes and a worker leaves, as Go does.
KEPT = {"a name that is no text", "a time that is none", "a time of another type"}
READERS: dict[str, Callable[[Celery, str], Any]] = {
    "get": lambda app, uuid: app.AsyncResult(uuid).get(timeout=5),
    "state": lambda app, uuid: app.AsyncResult(uuid).state,
    "join": lambda app, uuid: ResultSet([app.AsyncResult(uuid)], app=app).join_native(timeout=5),
}


class TestHostile:
    @pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
    def test_a_document_that_no_worker_has_written_is_one_clear_error(
        self, server: Server, store: RawStore, uuid: str, reader: Callable[[Celery, str], Any]
    ) -> None:
        for what, document in HOSTILE.get(store.kind, JSON_HOSTILE).items():
            store.put(uuid, document)
            with pytest.raises(BackendError, match=uuid):
                pytest.fail(f"{what}: {reader(server.app, uuid)!r}")

    def test_a_worker_writes_over_it(self, backend: Backend, store: RawStore, uuid: str) -> None:
        if store.kind == "eager":
            # It holds what this process has written, and nothing else.
            return
        for what, document in HOSTILE.get(store.kind, JSON_HOSTILE).items():
            if what in KEPT:
                continue
            store.put(uuid, document)
            update(backend, uuid, "SUCCESS", results=[TaskResult.from_raw("int64", b"1")])
            assert backend.task_state(uuid).state == "SUCCESS"

    def test_a_group_that_no_worker_has_written(self, server: Server, store: RawStore, uuid: str) -> None:
        hostile = (b"{", b"[1]", b'{"GroupUUID":"g","TaskUUIDs":7}', b'{"GroupUUID":"g","Celery":"{"}')
        if store.kind == "mongodb":
            hostile = tuple(mongo(**one) for one in ({"task_uuids": 7}, {"task_uuids": [1]}, {"celery": "{"}))
        if store.kind == "dynamodb":
            hostile = tuple(
                json.dumps(one).encode()
                for one in (
                    {"TaskUUIDs": {"N": "7"}},
                    {"TaskUUIDs": {"L": [{"N": "1"}]}},
                    {"TaskUUIDs": {"L": []}, "CreatedAt": {"S": "now"}},
                    {"Celery": {"S": "{"}},
                    {"Celery": {"N": "1"}},
                )
            )
        for document in hostile:
            store.put(uuid, document, "group_metas")
            with pytest.raises(BackendError, match=uuid):
                GroupResult.restore(uuid, app=server.app)


@pytest.fixture(scope="module")
def running(
    store: RawStore, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str]]:
    """A Server whose tasks are run: by a prefork worker, or of the eager store where they are sent."""
    if store.kind == "eager":
        from tests.support import tasks

        server = store.server()
        server.app.loader.import_task_module(tasks.__name__)
        server.app.finalize()
        yield server, ""
        return
    queue = f"contract-{store.kind}"
    broker = redis_server.url(14)
    with PythonWorker(
        tmp_path_factory.mktemp("worker"), broker=broker, backend=store.url, queue=queue, counter=broker, tasks=TASKS
    ) as worker:
        server = store.server(broker, default_queue=queue)
        yield server, str(worker.log)
        server.app.close()


class TestWorker:
    """Through a real worker with processes."""

    def test_values_failures_and_nothing(self, running: tuple[Server, str]) -> None:
        app = running[0].app
        assert app.send_task("py_add", [20, 22]).get(timeout=15) == 42
        assert app.send_task("py_swap", ["a", 1]).get(timeout=15) == (1, "a")
        assert app.send_task("py_nothing").get(timeout=15) is None
        with pytest.raises(ValueError, match=r"^boom$"):
            app.send_task("py_fail", ["boom"]).get(timeout=15)

    def test_machinerys_workflows(self, running: tuple[Server, str]) -> None:
        server = running[0]
        result = server.send_task(new_signature("py_fail", "boom"))
        with pytest.raises(TaskError, match=r"^boom$"):
            result.get_with_timeout(15)
        steps = [new_signature("py_add", number) for number in range(4)]
        assert server.send_chain(Chain(*steps)).get_with_timeout(15) == [6]
        members = [new_signature("py_add", number, number) for number in range(10)]
        sent = server.send_group(Group(*members))
        assert [one.get_with_timeout(15) for one in sent] == [[2 * number] for number in range(10)]
        texts = [new_signature("py_echo_string", Arg("string", f"{number},")) for number in range(10)]
        joined = server.send_chord(Chord(Group(*texts), new_signature("py_join")))
        assert joined.get_with_timeout(15) == ["".join(f"{number}," for number in range(10))]

    def test_celerys_canvas(self, running: tuple[Server, str]) -> None:
        app = running[0].app
        add = app.signature("py_add", app=app)
        one, two = add.clone((1, 1)), add.clone((2, 2))
        assert chain(one, add.clone((10,)), app=app).apply_async().get(timeout=15) == 12
        assert group([one, two], app=app).apply_async().get(timeout=15) == [2, 4]

    def test_a_celery_chord(self, running: tuple[Server, str]) -> None:
        app = running[0].app
        members = [app.signature("py_echo", (f"{number}",), app=app) for number in range(5)]
        body = app.signature("py_concat", app=app)
        assert chord(members, body, app=app).apply_async().get(timeout=15) == "01234"
