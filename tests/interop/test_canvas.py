"""Celery's canvas with steps in both languages: Go runs any plain step of a chain, and any task with a link."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group

from machinery_compat import TaskError
from tests.interop.conftest import BROKERS, Fleet
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.go, pytest.mark.parametrize("fleet", BROKERS, indirect=True)]


@pytest.fixture
def step(fleet: Fleet) -> Any:
    """Makes steps by name; workers of both languages run."""
    fleet.go()
    fleet.python()

    def make(name: str, *args: Any, **options: Any) -> Any:
        return fleet.server.app.signature(name, args, **options)

    return make


def test_a_chain_goes_on_after_go(step: Any) -> None:
    result = chain(step("go_add", 1, 2), step("py_add", 3), step("go_add", 4), step("py_add", 5)).apply_async()

    assert result.get(timeout=20) == 15
    assert result.parent.get(timeout=5) == 10
    assert result.parent.parent.parent.get(timeout=5) == 3


def test_python_puts_the_result_first_and_go_appends_it(step: Any) -> None:
    assert chain(step("go_echo_string", "a"), step("py_join", "b", "c")).apply_async().get(timeout=20) == "abc"
    # go_swap(text, number): its own text, then what is passed on.
    assert chain(step("py_add", 1), step("go_swap", "x")).apply_async().get(timeout=20) == (1, "x")


def test_several_results_and_none_are_one_argument(step: Any) -> None:
    described = chain(step("go_swap", "a", 1), step("py_describe")).apply_async()
    assert described.get(timeout=20) == "list: [1, 'a']"
    assert chain(step("go_nothing"), step("py_describe")).apply_async().get(timeout=20) == "NoneType: None"


def test_a_step_that_is_immutable(step: Any) -> None:
    alone = step("go_add", 5, immutable=True)
    assert chain(step("go_add", 1, 2), alone, step("py_add", 1)).apply_async().get(timeout=20) == 6
    alone = step("py_add", 7, immutable=True)
    assert chain(step("go_add", 1, 2), alone).apply_async().get(timeout=20) == 7


def test_links_after_go(fleet: Fleet, step: Any) -> None:
    linked = [step("py_add", 10), step("go_add", 20)]
    for one in linked:
        one.freeze()

    step("go_add", 1, 2).apply_async(link=linked)

    app = fleet.server.app
    assert [app.AsyncResult(one.id).get(timeout=20) for one in linked] == [13, 23]


def test_a_failure_in_the_middle_is_raised(fleet: Fleet, step: Any) -> None:
    for failing, error in (("go_fail", TaskError), ("py_fail", ValueError)):
        result = chain(step("go_echo_string", "boom"), step(failing), step("go_add", 1)).apply_async()
        with pytest.raises(error, match=r"^boom$"):
            result.get(timeout=20)
    # After a failure in Python nobody waits in vain for a later step.
    state = wait_for(lambda: fleet.server.backend.task_state(result.id), 10)
    assert (state.state, state.error) == ("FAILURE", "boom")


def test_a_retried_step_keeps_what_follows(step: Any) -> None:
    result = chain(step("go_add", 0), step("py_again", 1), step("go_add", 100)).apply_async()

    assert result.get(timeout=20) == 103


def test_children_are_known(step: Any) -> None:
    result = chain(step("py_add", 1, 2), step("go_add", 3)).apply_async()

    assert result.get(timeout=20) == 6
    assert [child.id for child in result.parent.children] == [result.id]


def test_groups_and_chords_with_members_in_go(step: Any) -> None:
    members = [step(f"{('go', 'py')[n % 2]}_add", n, n) for n in range(6)]

    assert group(members).apply_async().get(timeout=20) == [0, 2, 4, 6, 8, 10]
    assert chord(members, step("py_echo")).apply_async().get(timeout=20) == [0, 2, 4, 6, 8, 10]


def test_groups_and_chords_as_steps_after_go(step: Any) -> None:
    two = group(step("py_add", 1), step("go_add", 2))
    assert chain(step("go_add", 1, 1), two).apply_async().get(timeout=20) == [3, 4]
    assert chain(step("go_add", 1, 1), two, step("py_echo")).apply_async().get(timeout=20) == [3, 4]
    then = chain(step("go_add", 1, 1), two, step("py_echo"), step("py_describe"))
    assert then.apply_async().get(timeout=20) == "list: [3, 4]"


def test_a_chord_of_chains_with_its_body_in_go(step: Any) -> None:
    members = [chain(step("go_add", n, 1), step("py_add", 1)) for n in range(3)]

    assert chord(members, step("go_add", 100)).apply_async().get(timeout=20) == 109


def test_a_chord_passes_on_what_go_has_no_type_for(step: Any) -> None:
    values = [{"a": [1, None]}, None, "text", [1, "x"], 2.5]
    # Whichever worker ends the last member sends the body; some of these Go's.
    for last in ("go_add", "py_add"):
        members = [*(step("py_echo", value) for value in values), step(last, 1, 1)]
        assert chord(members, step("py_echo")).apply_async().get(timeout=20) == [*values, 2]


def test_an_error_callback_after_go_and_after_python(fleet: Fleet, step: Any) -> None:
    app = fleet.server.app
    for failing in ("go_fail", "py_fail"):
        told_go, told_python = step("go_echo_string"), step("py_told")
        for one in (told_go, told_python):
            one.freeze()

        failed = step(failing, "boom").apply_async(link_error=[told_go, told_python])

        # Machinery's tasks get the error's text, Celery's the id of the task.
        assert app.AsyncResult(told_go.id).get(timeout=20) == "boom", failing
        assert app.AsyncResult(told_python.id).get(timeout=20) == failed.id, failing


def test_a_failure_of_a_chain_in_go_fails_its_chord(fleet: Fleet, step: Any) -> None:
    members = [chain(step("go_fail", "boom"), step("py_echo"), step("go_echo_string")), step("py_add", 1, 1)]

    result = chord(members, step("py_echo")).apply_async()

    with pytest.raises(Exception, match="boom"):
        fleet.server.app.AsyncResult(result.id).get(timeout=20)


def test_the_last_member_of_a_chord_fails_in_go(fleet: Fleet) -> None:
    """Go looks at no chord then; a Python worker beside finds it."""
    fleet.go()
    fleet.python(app="tests.support.watching_app")
    app = fleet.server.app
    app.conf.machinery_chord_watch_interval = 0.3

    result = chord([app.signature("go_fail", ("boom",))] * 2, app.signature("py_echo")).apply_async()

    with pytest.raises(Exception, match="boom"):
        app.AsyncResult(result.id).get(timeout=20)


def test_a_task_joins_its_chord(fleet: Fleet, step: Any) -> None:
    members = [step("py_join_chord", 1), step("go_add", 2, 2), step("py_add", 3, 3)]

    assert sorted(chord(members, step("py_echo")).apply_async().get(timeout=20)) == [1, 4, 6, 101]
