"""A chord that nobody has sent, through Redis as broker; what holds for every store is in ``test_backend_contract``."""

from __future__ import annotations

import pytest
from redis import Redis

from machinery_compat import Chord, Config, Group, Server, Signature, TaskResult, TaskState, new_signature, watchdog
from machinery_compat.backends import redis as redis_backend
from tests.integration.conftest import QUEUE

pytestmark = pytest.mark.redis


@pytest.fixture
def chord(server: Server, store: Redis) -> Chord:
    """A chord that has been sent and whose messages are gone."""
    chord = Chord(Group(new_signature("one"), new_signature("two")), new_signature("sum"))
    server.send_chord(chord)
    store.delete(QUEUE)
    return chord


def end(server: Server, member: Signature, error: str = "") -> None:
    """Writes a member's end as a Go worker does, which looks at no chord then."""
    state = TaskState(task_uuid=member.uuid, state="FAILURE", error=error)
    if not error:
        state = TaskState(task_uuid=member.uuid, state="SUCCESS", results=[TaskResult("int64", 7)])
    server.backend.update_states([state])


def look(server: Server, store: Redis) -> list[Signature]:
    """Looks after all chords, as if it were time; gives what is in the queue then."""
    for uuid in store.zrange(redis_backend.WATCH_TIMES, 0, -1):
        store.zadd(redis_backend.WATCH_TIMES, {uuid: 1})
    watchdog.look(server.app)
    return [Signature.decode(body) for body in store.lrange(QUEUE, 0, -1)]


def nothing_is_watched(store: Redis) -> bool:
    return not store.exists(redis_backend.WATCHED, redis_backend.WATCH_TIMES)


def test_a_complete_chord_that_nobody_flagged(server: Server, store: Redis, chord: Chord) -> None:
    for member in chord.group.tasks:
        end(server, member)

    (sent,) = look(server, store)

    assert (sent.uuid, [arg.value for arg in sent.args or ()]) == (chord.callback.uuid, [7, 7])
    assert look(server, store) == [sent]
    assert nothing_is_watched(store)


def test_a_store_that_refuses_for_a_while_loses_no_chord(server: Server, store: Redis, chord: Chord) -> None:
    for member in chord.group.tasks:
        end(server, member)
    store.execute_command("ACL", "SETUSER", "default", "-get")
    try:
        assert look(server, store) == []
    finally:
        store.execute_command("ACL", "SETUSER", "default", "+get")

    (sent,) = look(server, store)
    assert sent.uuid == chord.callback.uuid


def test_nobody_looks_and_the_list_does_not_grow(redis_db: str, store: Redis) -> None:
    server = Server(Config(broker=redis_db, result_backend=redis_db, default_queue=QUEUE, results_expire_in=60))
    old = Chord(Group(new_signature("one")), new_signature("sum"))
    server.send_chord(old)
    store.zadd(redis_backend.WATCH_TIMES, {old.group.group_uuid: 1})

    new = Chord(Group(new_signature("one")), new_signature("sum"))
    server.send_chord(new)

    assert store.zrange(redis_backend.WATCH_TIMES, 0, -1) == [new.group.group_uuid.encode()]
    assert store.hkeys(redis_backend.WATCHED) == [new.group.group_uuid.encode()]
