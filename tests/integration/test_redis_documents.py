"""The documents that Python writes to Redis beside those that Go writes: each byte, each expiry."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis

from machinery_compat import Config, Server, Signature, TaskState, new_signature
from tests.interop.conftest import Fleet
from tests.support.waiting import wait_for

pytestmark = pytest.mark.redis

#: What runs the same in both languages, as name and arguments, and the states that it goes through.
CASES: dict[str, tuple[str, list[Any], list[str]]] = {
    "a value": ("add", [1, 2], ["PENDING", "RECEIVED", "STARTED", "SUCCESS"]),
    "several values": ("swap", ["<a>", 1], ["PENDING", "RECEIVED", "STARTED", "SUCCESS"]),
    "no value": ("nothing", [], ["PENDING", "RECEIVED", "STARTED", "SUCCESS"]),
    "a failure": ("fail", ['no "luck" & <more>'], ["PENDING", "RECEIVED", "STARTED", "FAILURE"]),
    "a retry": (
        "fail_times",
        ["KEY", 2],
        ["PENDING", "RECEIVED", "STARTED", "RETRY", "PENDING", "RECEIVED", "STARTED", "SUCCESS"],
    ),
    "a later retry": (
        "retry_later",
        ["KEY", 2, 30],
        ["PENDING", "RECEIVED", "STARTED", "RETRY", "PENDING", "RECEIVED", "STARTED", "SUCCESS"],
    ),
}
#: The extra member with which Python tells Python the type of an exception.
EXTRA = re.compile(rb',"Celery":"(?:[^"\\]|\\.)*"}$')


class Writes:
    """Every SET of one key, as the server saw it, also those of scripts."""

    def __init__(self, client: Redis, db: int) -> None:
        self._client = client
        self._db = db
        self._seen: list[list[bytes]] = []
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        # The client's own parser of MONITOR does not undo the server's quoting.
        connection = self._client.connection_pool.get_connection()
        connection.send_command("MONITOR")
        connection.read_response()
        self._ready.set()
        while not self._stop.is_set():
            if connection.can_read(timeout=0.05):
                line = connection.read_response()
                words = [_unquoted(word) for word in re.findall(rb'"((?:[^"\\]|\\.)*)"', line)]
                if f"[{self._db} ".encode() in line and words[0].upper() == b"SET":
                    self._seen.append(words)
        connection.disconnect()

    def of(self, uuid: str) -> list[list[bytes]]:
        return [words[2:] for words in self._seen if words[1] == uuid.encode()]

    @contextmanager
    def watched(self) -> Iterator[Writes]:
        self._thread.start()
        assert self._ready.wait(5)
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()


def _unquoted(word: bytes) -> bytes:
    return word.decode("latin-1").encode("latin-1").decode("unicode_escape").encode("latin-1")


@pytest.fixture
def writes(fleet: Fleet) -> Iterator[Writes]:
    with (
        Redis.from_url(fleet.backend) as client,
        Writes(client, int(fleet.backend.rsplit("/", 1)[1])).watched() as writes,
    ):
        yield writes


def run(fleet: Fleet, writes: Writes, name: str, args: list[Any], states: list[str]) -> list[list[bytes]]:
    sent = new_signature(name, *(name if value == "KEY" else value for value in args))
    sent.retry_count = 1 if "fail_times" in name else 0
    fleet.server.send_task(sent)
    wait_for(lambda: len(writes.of(sent.uuid)) >= len(states), 15, lambda: str(writes.of(sent.uuid)))
    return writes.of(sent.uuid)


def plain(document: bytes, uuid: str, name: str) -> bytes:
    """A document without what differs between two tasks."""
    document = document.replace(uuid.encode(), b"UUID").replace(f'"{name}"'.encode(), b'"NAME"')
    return re.sub(rb'"CreatedAt":"[^"]*"', b'"CreatedAt":"*"', EXTRA.sub(b"}", document))


@pytest.mark.go
@pytest.mark.parametrize("fleet", ["v2-redigo"], indirect=True)
def test_states_are_written_as_go_writes_them(fleet: Fleet, writes: Writes) -> None:
    fleet.go()
    fleet.python()

    for case, (name, args, states) in CASES.items():
        seen = {}
        for language in ("go", "py"):
            written = run(fleet, writes, f"{language}_{name}", args, states)
            seen[language] = [
                [plain(document, TaskState.decode(document).task_uuid, f"{language}_{name}"), *options]
                for document, *options in written
            ]
            assert [TaskState.decode(document).state for document, *_ in written] == states, case
            assert all([option.upper() for option in options] == [b"EX", b"3600"] for _, *options in written), case
        assert seen["py"] == seen["go"], case


@pytest.mark.go
@pytest.mark.parametrize("fleet", ["v2-redigo"], indirect=True)
def test_the_whole_document(fleet: Fleet, writes: Writes) -> None:
    fleet.python()

    written = run(fleet, writes, "py_swap", ["<a>", 1], CASES["several values"][2])

    uuid = TaskState.decode(written[0][0]).task_uuid
    created = TaskState.decode(written[0][0]).created_at
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", created)
    assert (
        written[-1][0]
        == (
            f'{{"TaskUUID":"{uuid}","TaskName":"py_swap","State":"SUCCESS","Results":[{{"Type":"int64","Value":1}},'
            f'{{"Type":"string","Value":"\\u003ca\\u003e"}}],"Error":"","CreatedAt":"{created}","TTL":0}}'
        ).encode()
    )


@pytest.mark.parametrize(("configured", "expected"), [(0, 3600), (90, 90)])
@pytest.mark.parametrize("fleet", ["v2-redigo"], indirect=True)
def test_every_write_expires(fleet: Fleet, writes: Writes, configured: int, expected: int) -> None:
    server = Server(fleet.config(results_expire_in=configured))
    server.register_task("add", lambda *numbers: sum(numbers))
    backend = server.backend

    sent = server.send_task(new_signature("add", 1, 1)).signature
    backend.store_received([sent])
    backend.mark_as_started(sent.uuid)
    backend.store_result(sent.uuid, {"done": 1}, "PROGRESS")
    backend.mark_as_retry(sent.uuid, ValueError("again"))
    backend.mark_as_failure(sent.uuid, ValueError("boom"))
    backend.mark_as_done(sent.uuid, 2)

    expires = [b"EX", str(expected).encode()]
    wait_for(lambda: len(writes.of(sent.uuid)) >= 6, message=lambda: str(writes.of(sent.uuid)))
    assert [options for _, *options in writes.of(sent.uuid)] == [expires] * len(writes.of(sent.uuid))
    assert 0 < backend.client.ttl(sent.uuid) <= expected


def backend_of(url: str) -> Any:
    return Server(Config(broker=url, result_backend=url)).backend


def test_name_and_time_of_creation_are_carried_over(redis_db: str) -> None:
    backend = backend_of(redis_db)
    odd = Signature(uuid="task_1", name='a "quoted" <name>","State":"FAILURE" \\ é')
    backend.store_pending(odd, redis_db)
    created = backend.task_state("task_1").created_at

    for store in (
        lambda: backend.store_received([odd]),
        lambda: backend.mark_as_started("task_1"),
        lambda: backend.mark_as_failure("task_1", ValueError('","TaskName":"x","CreatedAt":"y"')),
        lambda: backend.mark_as_done("task_1", '","TaskName":"x","CreatedAt":"y"'),
    ):
        store()
        state = backend.task_state("task_1")
        assert (state.task_name, state.created_at) == (odd.name, created), state


def test_without_an_older_document_name_and_time_are_zero(redis_db: str) -> None:
    backend = backend_of(redis_db)

    backend.mark_as_done("task_1", 2)

    assert backend.client.get("task_1") == (
        b'{"TaskUUID":"task_1","TaskName":"","State":"SUCCESS","Results":[{"Type":"int64","Value":2}],'
        b'"Error":"","CreatedAt":"0001-01-01T00:00:00Z","TTL":0}'
    )


def test_a_document_of_gos_json_in_another_spelling_is_carried_over(redis_db: str) -> None:
    backend = backend_of(redis_db)
    created = "2024-01-02T03:04:05.5Z"
    backend.client.set(
        "task_1", f'{{ "TaskUUID": "task_1", "TaskName": "n", "State": "PENDING", "CreatedAt": "{created}" }}'
    )

    backend.mark_as_done("task_1", 2)

    state = backend.task_state("task_1")
    assert (state.state, state.task_name, state.created_at) == ("SUCCESS", "n", created)


def test_a_group_is_complete_whatever_blanks_its_members_states_have(redis_db: str) -> None:
    backend = backend_of(redis_db)
    backend.client.set("group_1", '{"GroupUUID": "group_1", "TaskUUIDs": ["task_1", "task_2"]}')
    backend.client.set("task_1", '{"TaskUUID": "task_1", "TaskName": "\\"State\\": \\"SUCCESS\\"", "State": "STARTED"}')
    backend.client.set("task_2", '{ "TaskUUID" : "task_2" , "State" : "FAILURE" }')

    assert not backend.group_completed("group_1", 2)
    backend.mark_as_done("task_1", 2)
    assert backend.group_completed("group_1", 2)
