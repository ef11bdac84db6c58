"""A chord whose callback nobody has sent is found and its callback sent, once."""

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


def test_a_chord_that_is_not_complete_is_left_alone(server: Server, store: Redis, chord: Chord) -> None:
    end(server, chord.group.tasks[0])

    assert look(server, store) == look(server, store) == []
    assert not nothing_is_watched(store)


def test_a_complete_chord_that_nobody_flagged(server: Server, store: Redis, chord: Chord) -> None:
    for member in chord.group.tasks:
        end(server, member)

    (sent,) = look(server, store)

    assert (sent.uuid, [arg.value for arg in sent.args or ()]) == (chord.callback.uuid, [7, 7])
    assert look(server, store) == [sent]
    assert nothing_is_watched(store)


def test_a_chord_that_was_flagged_and_not_sent(server: Server, store: Redis, chord: Chord) -> None:
    for member in chord.group.tasks:
        end(server, member)
    assert server.backend.trigger_chord(chord.group.group_uuid)

    # The first time somebody may be about to send it.
    assert look(server, store) == []
    (sent,) = look(server, store)

    assert sent.uuid == chord.callback.uuid
    assert look(server, store) == [sent]
    assert nothing_is_watched(store)


def test_a_chord_that_go_has_sent_is_forgotten(server: Server, store: Redis, chord: Chord) -> None:
    for member in chord.group.tasks:
        end(server, member)
    server.backend.trigger_chord(chord.group.group_uuid)
    server.backend.put_state(TaskState(task_uuid=chord.callback.uuid, state="PENDING"))

    assert look(server, store) == []
    assert nothing_is_watched(store)


def test_a_python_worker_that_died_while_it_sent(server: Server, store: Redis, chord: Chord) -> None:
    for member in chord.group.tasks:
        end(server, member)
    server.backend.trigger_chord(chord.group.group_uuid)
    server.backend.watch_chord(chord.group.group_uuid, chord.callback, began=True)
    # Its PENDING state is written before the message goes out.
    server.backend.put_state(TaskState(task_uuid=chord.callback.uuid, state="PENDING"))

    assert look(server, store) == []
    (sent,) = look(server, store)

    assert sent.uuid == chord.callback.uuid
    assert nothing_is_watched(store)


def test_the_last_member_failed_in_go(server: Server, store: Redis, chord: Chord) -> None:
    end(server, chord.group.tasks[0])
    end(server, chord.group.tasks[1], "no luck")

    assert look(server, store) == []

    state = server.backend.task_state(chord.callback.uuid)
    assert state is not None
    assert (state.state, state.error) == ("FAILURE", "no luck")
    assert nothing_is_watched(store)


def test_a_chord_that_has_expired_is_forgotten(server: Server, store: Redis, chord: Chord) -> None:
    store.delete(chord.group.group_uuid)

    assert look(server, store) == []
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


def test_what_is_watched_need_not_be_a_signature(server: Server, store: Redis, chord: Chord) -> None:
    store.hset(redis_backend.WATCHED, chord.group.group_uuid, b"{nonsense")
    for member in chord.group.tasks:
        end(server, member)

    assert look(server, store) == []
    assert nothing_is_watched(store)
