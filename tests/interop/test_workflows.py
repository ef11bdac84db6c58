"""Machinery's workflows with steps in both languages."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from machinery_compat import Chain, Chord, Group, Signature, TaskError, new_signature
from tests.interop.conftest import BROKERS, Fleet
from tests.support.golang import arg, signature
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.go, pytest.mark.parametrize("fleet", BROKERS, indirect=True)]


def alternating(count: int, name: str = "add") -> list[Signature]:
    return [new_signature(f"{('go', 'py')[number % 2]}_{name}", number) for number in range(count)]


def test_a_chain_of_ten_steps_alternates(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()

    result = fleet.server.send_chain(Chain(*alternating(10)))

    assert result.get_with_timeout(20) == [45]
    assert [len(one.get_with_timeout(1)) for one in result.results] == [1] * 10


def test_a_chain_that_go_sends(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()
    steps = [signature(f"{('py', 'go')[number % 2]}_add", arg("int64", number)) for number in range(10)]

    uuids = fleet.client.must(op="send_chain", signatures=steps)["uuids"]

    assert fleet.client.values(uuids[-1], timeout=20) == [45]


def test_a_parent_that_is_immutable_passes_nothing_on(fleet: Fleet) -> None:
    fleet.python()
    first, second = new_signature("py_add", 1, immutable=True), new_signature("py_add", 5)

    assert fleet.server.send_chain(Chain(first, second)).get_with_timeout(10) == [5]


@pytest.mark.parametrize("callback", ["go_add", "py_add"])
def test_a_chord_of_200_in_both_languages(fleet: Fleet, callback: str) -> None:
    fleet.go(concurrency=4)
    fleet.python()
    progress: list[tuple[int, int]] = []

    chord = Chord(Group(*alternating(200)), new_signature(callback))
    result = fleet.server.send_chord(chord, progress=lambda sent, total: progress.append((sent, total)))

    assert result.get_with_timeout(60) == [sum(range(200))]
    assert progress[-1] == (200, 200)
    assert [one.touch() for one in result.group_results] == [[number] for number in range(200)]


def test_a_callback_gets_the_results_in_the_groups_order(fleet: Fleet) -> None:
    fleet.go(concurrency=4)
    fleet.python()
    members = [new_signature(f"{('go', 'py')[n % 2]}_echo_string", f"{n},") for n in range(30)]

    result = fleet.server.send_chord(Chord(Group(*members), new_signature("py_join")))

    assert result.get_with_timeout(30) == ["".join(f"{n}," for n in range(30))]


def test_a_hundred_chords_give_a_hundred_callbacks(fleet: Fleet) -> None:
    fleet.go(concurrency=4)
    worker = fleet.python()

    chords = [Chord(Group(*alternating(4)), new_signature(("go_add", "py_add")[n % 2])) for n in range(100)]
    results = [fleet.server.send_chord(chord) for chord in chords]

    assert [result.get_with_timeout(90) for result in results] == [[6]] * 100
    wait_for(lambda: len(worker.executions()) >= 500, message="not all tasks are in the journal")
    runs = Counter(one.uuid for one in worker.executions())
    assert [runs[chord.callback.uuid] for chord in chords] == [1] * 100


def test_go_sends_a_chord_to_both(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()
    members = [signature(f"{('py', 'go')[n % 2]}_add", arg("int64", n)) for n in range(20)]

    sent = fleet.client.must(op="send_chord", signatures=members, callback=signature("py_add"))

    assert fleet.client.values(sent["callback_uuid"], timeout=20) == [sum(range(20))]


def test_a_chord_with_retries_inside(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()
    members = [
        new_signature(f"{language}_fail_times", f"{language}-{n}", 2) for language in ("go", "py") for n in (1, 2)
    ]
    for member in members:
        member.retry_count = 2

    result = fleet.server.send_chord(Chord(Group(*members), new_signature("py_add")))

    assert result.get_with_timeout(30) == [8]


def test_a_failed_member_fails_the_chord_for_whoever_waits(fleet: Fleet) -> None:
    fleet.python()
    chord = Chord(Group(new_signature("py_add", 1), new_signature("py_fail", "no luck")), new_signature("py_add"))

    result = fleet.server.send_chord(chord)

    with pytest.raises(TaskError, match=r"^no luck$"):
        result.get_with_timeout(20)
    with pytest.raises(TaskError, match=r"^no luck$"):
        result.result.get_with_timeout(20)


@pytest.mark.parametrize(("failing", "handling"), [("go_fail", "py_concat_error"), ("py_fail", "go_echo_string")])
def test_an_error_callback_in_the_other_language(fleet: Fleet, failing: str, handling: str) -> None:
    fleet.go()
    fleet.python()
    handler = new_signature(handling)
    fleet.server.send_task(new_signature(failing, "boom", on_error=[handler]))

    assert wait_for(lambda: values(fleet, handler), 20) == ["boom"]


def test_callbacks_nest(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()
    last = new_signature("go_add", 100)
    middle = [new_signature("py_add", 10, on_success=[last]), new_signature("go_add", 20)]

    fleet.server.send_task(new_signature("go_add", 1, 2, on_success=list(middle)))

    assert wait_for(lambda: values(fleet, last), 20) == [113]
    assert wait_for(lambda: values(fleet, middle[1]), 20) == [23]


def test_a_group_of_a_thousand_is_drained_by_both(fleet: Fleet) -> None:
    fleet.go(concurrency=4)
    worker = fleet.python()

    results = fleet.server.send_group(Group(*[new_signature("mixed", number) for number in range(1000)]))

    backend, uuids = fleet.server.backend, [one.signature.uuid for one in results]
    wait_for(lambda: all(s is not None and s.state == "SUCCESS" for s in backend.task_states(uuids)), 60)
    assert [one.touch() for one in results] == [[number] for number in range(1000)]
    assert sorted(one.uuid for one in worker.executions()) == sorted(uuids)


def values(fleet: Fleet, sent: Signature) -> list[Any] | None:
    state = fleet.server.backend.task_state(sent.uuid)
    return [one.value for one in state.results or [] if one] if state is not None and state.state == "SUCCESS" else None
