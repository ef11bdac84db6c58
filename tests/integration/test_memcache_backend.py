"""What only Memcached has: several servers, Go's lock in the group's document, items of a limited size."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pymemcache.client.base import Client

from machinery_compat import Celery, Config, GroupMeta, Server, Signature, TaskError, TaskState, errors, new_signature
from machinery_compat.backends import memcache
from machinery_compat.backends.base import Backend
from machinery_compat.backends.limits import TooLarge
from machinery_compat.wire import TaskResult, now_text
from tests.conftest import Names
from tests.support.processes import free_port
from tests.support.services import MemcachedServer

pytestmark = pytest.mark.memcache


@pytest.fixture
def raw(memcached_server: MemcachedServer) -> Iterator[Client]:
    client = Client(("127.0.0.1", memcached_server.port), default_noreply=False)
    yield client
    client.close()


@pytest.fixture
def server(memcached_server: MemcachedServer) -> Iterator[Server]:
    server = Server(Config(broker="eager", result_backend=memcached_server.url()))
    yield server
    server.app.close()


@pytest.fixture
def backend(server: Server) -> Backend:
    found: Backend = server.backend
    return found


@pytest.fixture
def group(names: Names) -> GroupMeta:
    return GroupMeta(group_uuid=f"group_{names.queue}", task_uuids=["a"], created_at=now_text())


def backend_of(url: str, **options: Any) -> Backend:
    app = Celery(config=Config(broker="eager", result_backend=url), set_as_current=False)
    app.conf.result_backend_transport_options = options
    backend: Backend = app.backend
    return backend


# -- the chord's mark, beside Go's workers that compare nothing


def written_by_go(group: GroupMeta, triggered: bool, lock: bool) -> bytes:
    group.chord_triggered, group.lock = triggered, lock
    return group.encode()


def test_a_group_that_go_has_locked_is_waited_for(backend: Backend, raw: Client, group: GroupMeta) -> None:
    raw.set(group.group_uuid, written_by_go(group, False, True))
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(backend.trigger_chord(group.group_uuid)))
    waiting.start()
    raw.replace(group.group_uuid, written_by_go(group, True, True))
    waiting.join(10)

    assert answers == [False]


def test_the_lock_of_a_dead_worker_does_not_hold(
    backend: Backend, raw: Client, group: GroupMeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memcache, "LOCK_LIFE", 0.05)
    raw.set(group.group_uuid, written_by_go(group, False, True))

    assert backend.trigger_chord(group.group_uuid)
    found = backend.group_meta(group.group_uuid)
    assert (found.chord_triggered, found.lock) == (True, False)


def test_go_that_writes_over_the_mark_sends_the_callback_alone(
    backend: Backend, raw: Client, group: GroupMeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.set(group.group_uuid, written_by_go(group, False, False))
    store = backend.client.store

    def then_go(*args: Any) -> bool:
        # Go had read the group before, and goes on to write what it has read.
        stored = store(*args)
        raw.set(group.group_uuid, written_by_go(group, False, True))
        raw.replace(group.group_uuid, written_by_go(group, True, True))
        raw.set(group.group_uuid, written_by_go(group, True, False))
        return bool(stored)

    monkeypatch.setattr(backend.client, "store", then_go)

    assert not backend.trigger_chord(group.group_uuid)


def test_a_mark_whose_answer_was_lost_is_known_again(
    backend: Backend, raw: Client, group: GroupMeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.set(group.group_uuid, written_by_go(group, False, False))
    store = backend.client.store
    monkeypatch.setattr(backend.client, "store", lambda *args: store(*args) and False)

    assert backend.trigger_chord(group.group_uuid)


def test_a_state_of_a_later_run_stays(backend: Backend, names: Names) -> None:
    uuid = names.queue
    assert backend.update_states([TaskState(task_uuid=uuid, state="STARTED", celery='{"run": 1}')], run=1) == [True]
    late = TaskState(task_uuid=uuid, state="SUCCESS", results=[])
    other = TaskState(task_uuid=f"{uuid}-2", state="SUCCESS", results=[])

    assert backend.update_states([late, other], run=0) == [False, True]

    assert backend.task_state(uuid).state == "STARTED"
    assert backend.update_states([late], run=1) == [True]


# -- servers


def test_keys_are_spread_over_the_servers_of_a_url(memcached_server: MemcachedServer) -> None:
    with MemcachedServer() as second:
        backend = backend_of(f"{memcached_server.url()},127.0.0.1:{second.port}")
        uuids = [f"task_{number}" for number in range(100)]
        backend.put_pending([Signature(uuid=uuid, name="add") for uuid in uuids])
        assert [one.task_uuid for one in backend.task_states(uuids)] == uuids
        # By CRC-32 of the key, as in Go; an odd one is on the second server.
        client = Client(("127.0.0.1", second.port))
        assert (client.get("task_4"), client.get("task_1")) == (None, backend.task_state("task_1").encode())
        client.close()


def test_a_server_that_was_restarted_is_found_again() -> None:
    with MemcachedServer() as server:
        backend = backend_of(server.url())
        backend.put_state(TaskState(task_uuid="t", state="STARTED"))
        server.restart()
        assert backend.task_state("t") is None
        server.restart()
        backend.update_states([TaskState(task_uuid="t", state="STARTED")])
        assert backend.task_state("t").state == "STARTED"


def test_a_server_that_is_not_there_is_an_error_that_celery_may_retry() -> None:
    backend = backend_of(f"memcache://127.0.0.1:{free_port()}")
    with pytest.raises(OSError, match="refused") as caught:
        backend.task_state("t")
    assert backend.exception_safe_to_retry(caught.value)
    assert not backend.exception_safe_to_retry(errors.BackendError("x"))


def test_a_server_that_does_not_answer_is_an_error(names: Names) -> None:
    with MemcachedServer() as server:
        backend = backend_of(server.url(), timeout=0.2)
        server.pause()
        with pytest.raises(OSError, match="timed out"):
            backend.task_state("t")
        server.resume()
        assert backend.task_state("t") is None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("memcache://", "memcache://host:port"),
        ("memcache://h:1,,h:2", "memcache://host:port"),
        ("memcache://h:x", "memcache://host:port"),
        ("memcache://h:70000", "memcache://host:port"),
        ("memcache://h:11211/0", "databases"),
        ("memcache://user:secret@h:11211", "users"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_error_without_its_password(url: str, text: str) -> None:
    with pytest.raises(errors.ConfigError, match=text) as caught:
        backend_of(url)
    assert "secret" not in str(caught.value)


def test_an_option_that_nobody_knows() -> None:
    with pytest.raises(errors.ConfigError, match="conect_timeout"):
        backend_of("memcache://h:1", conect_timeout=1)


# -- keys and values


@pytest.mark.parametrize("uuid", ["", "a b", "a\nb", "x" * 251, "\ud800"])
def test_what_cannot_be_a_key_is_one_clear_error(server: Server, uuid: str) -> None:
    with pytest.raises(errors.BackendError, match="key of memcached"):
        server.backend.task_state(uuid)


def test_a_key_may_be_any_text_of_250_bytes(backend: Backend) -> None:
    uuid = "é" * 125
    backend.put_state(TaskState(task_uuid=uuid, state="STARTED"))
    assert backend.task_state(uuid).task_uuid == uuid


def test_a_result_that_is_too_large_fails_its_task(server: Server, names: Names) -> None:
    server.register_task("large", lambda: "x" * 2_000_000)

    result = server.send_task(new_signature("large"))

    with pytest.raises(TaskError, match=r"2000\d\d\d bytes, more than the memcached server takes"):
        result.get_with_timeout(5)


def test_a_document_that_is_too_large_says_which(backend: Backend, names: Names) -> None:
    large = TaskState(
        task_uuid=names.queue, state="SUCCESS", results=[TaskResult.from_raw("string", b'"%s"' % (b"x" * 2_000_000))]
    )
    for write in (backend.put_state, lambda state: backend.update_states([state])):
        with pytest.raises(TooLarge, match=names.queue):
            write(large)
    backend.put_state(TaskState(task_uuid=names.queue, state="STARTED"))
    with pytest.raises(TooLarge, match=names.queue):
        backend.update_states([large])
