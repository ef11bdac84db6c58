"""What follows a task in Celery's canvas survives the way through Machinery's fields, whatever it is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machinery_compat import Float32, arguments, canvas, errors, readback
from machinery_compat.followers import GO_ON, MEMBERS, STEP_FAILED, Maker
from machinery_compat.wire import Arg, Signature, outgoing
from machinery_compat.workflow import append_results
from tests.support.strategies import texts

few = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])

_numbers = itertools.count()


def keeps_digits(items: list[Any]) -> bool:
    """Whether such a list can be sent: one with fractions is a []float64, which large integers do not fit."""
    return not any(type(item) is float for item in items) or all(
        abs(item) <= 2**53 for item in items if type(item) is int
    )


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(-1e9, 1e9), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).filter(keeps_digits), st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=3,
)
options = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(["other", "queue"]),
        "priority": st.integers(0, 255),
        "time_limit": st.integers(1, 9),
        "soft_time_limit": st.integers(1, 9),
        "expires": st.just("2030-01-01T00:00:00+00:00"),
        "shadow": st.sampled_from(["x"]),
        "headers": st.dictionaries(st.sampled_from(["mine", "other"]), st.one_of(texts, st.integers(0, 9)), max_size=2),
        # What a nested Signature cannot say.
        "countdown": st.integers(1, 9),
        "exchange": st.just("another"),
    },
)


def _step(task: str, args: list[Any], kwargs: dict[str, Any], immutable: bool, said: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": task,
        "args": args,
        "kwargs": kwargs,
        "options": {"task_id": f"id-{next(_numbers)}", **{name: value for name, value in said.items() if value}},
        "subtask_type": None,
        "immutable": immutable,
    }


def _linked(step: dict[str, Any], links: list[Any], errbacks: list[Any]) -> dict[str, Any]:
    followed = {"link": links, "link_error": errbacks}
    return {**step, "options": {**step["options"], **{name: some for name, some in followed.items() if some}}}


plain_steps = st.builds(
    _step,
    st.sampled_from(["add", "mul"]),
    st.lists(values, max_size=2),
    st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=2),
    st.booleans(),
    options,
)
steps = st.recursive(
    plain_steps,
    lambda inner: st.builds(_linked, plain_steps, st.lists(inner, max_size=2), st.lists(inner, max_size=1)),
    max_leaves=3,
)


def maker(**parameters: Any) -> Maker:
    return Maker(parameters.get, lambda name: {}, lambda step: step["options"].get("queue") or "", "root")


def tree(step: dict[str, Any], rest: Any = ()) -> Any:
    """A step and all that follows it, in a form in which a link and the next step of a chain are the same."""
    given_options = dict(step["options"])
    links = [tree(link) for link in given_options.pop("link", ())]
    errbacks = [tree(errback) for errback in given_options.pop("link_error", ())]
    rest = [*given_options.pop("chain", ()), *rest]
    if rest:
        links.append(tree(rest[-1], rest[:-1]))
    for name in ("root_id", "parent_id"):
        given_options.pop(name, None)
    about = [step["task"], step["args"], step["kwargs"], bool(step["immutable"])]
    return [about, sorted(given_options.items(), key=repr), sorted(links, key=repr), sorted(errbacks, key=repr)]


def sent(signature: Signature) -> Signature:
    """A Signature as the next worker sees it; nothing in it may hurt Go's."""
    outgoing.check(signature)
    return Signature.decode(signature.encode())


@few
@given(st.lists(steps, max_size=2), st.lists(steps, max_size=3), st.lists(steps, max_size=2))
def test_what_follows_survives(callbacks: list[Any], chain: list[Any], errbacks: list[Any]) -> None:
    first = Signature(uuid="first", name="first")

    maker().attach(first, {"callbacks": callbacks, "chain": chain, "errbacks": errbacks})

    taken = readback.taken_back(sent(first))
    expected = [tree(callback) for callback in callbacks]
    found = [tree(callback) for callback in taken.get("callbacks", ())]
    for steps_of, trees in ((chain, expected), (taken.get("chain") or [], found)):
        if steps_of:
            trees.append(tree(steps_of[-1], steps_of[:-1]))
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert [tree(one) for one in taken.get("errbacks", ())] == [tree(one) for one in errbacks]


@few
@given(steps, st.lists(values.filter(lambda value: value is not None), min_size=1, max_size=2))
def test_a_python_worker_puts_what_is_passed_on_first(step: Any, results: list[Any]) -> None:
    first = Signature(uuid="first", name="first")
    maker().attach(first, {"callbacks": [step]})
    follower = sent(first).on_success[0]  # type: ignore[index]
    assert follower is not None

    if not first.immutable:
        append_results(follower, [followers_result(value) for value in results])
    _, _, (args, kwargs, _) = canvas.from_signature(sent(follower), b"")

    passed = results[0] if len(results) == 1 else results
    if follower.name == GO_ON:
        assert args[0] == (None if first.immutable else passed)
        assert tree(args[1], args[2]) == tree(step)
    else:
        assert args == (step["args"] if step["immutable"] else [passed, *step["args"]])
        assert kwargs == step["kwargs"]


def test_a_follower_s_arguments_have_the_types_of_its_parameters() -> None:
    def scale(value: float, factor: Float32, offset: Float32) -> None: ...

    step = _step("scale", [2], {"offset": 3}, False, {})
    first = Signature(uuid="first", name="first")
    maker(scale=arguments.Parameters(scale)).attach(first, {"callbacks": [step]})

    follower = first.on_success[0]  # type: ignore[index]
    assert [(arg.type, arg.raw) for arg in follower.args] == [("float32", b"2"), ("float32", b"3")]  # type: ignore[union-attr]


def followers_result(value: Any) -> Any:
    from machinery_compat.wire import TaskResult

    arg = arguments.arg_of(value)
    return TaskResult.from_raw(arg.type, arg.raw, celery=arg.name or None)


@few
@given(plain_steps, st.lists(values, min_size=1, max_size=4), st.booleans())
def test_a_body_gets_one_list(body: Any, results: list[Any], nested: bool) -> None:
    body["options"] = {**body["options"], MEMBERS: ["group", len(results), nested]}
    callback = sent(maker().body(body))

    if not callback.immutable:
        append_results(callback, [followers_result(value) for value in results])
    readback.mark_sent(callback, "last")
    headers, _, (args, _, _) = canvas.from_signature(sent(callback), b"")

    if callback.name == GO_ON or not body["immutable"]:
        assert args[0] == results
        # Where the members are groups themselves, the list says less than the store.
        assert bool(headers.get("machinery_about")) is nested
    else:
        assert args == body["args"]


def test_go_loses_the_marks_of_a_bodys_results() -> None:
    body = {**_step("add", [], {}, False, {}), "options": {"task_id": "body", MEMBERS: ["group", 2, False]}}
    callback = maker().body(body)
    callback.args = [Arg("int64", 1), Arg("string", '{"a":1}')]

    headers, _, (args, _, _) = canvas.from_signature(callback, b"")

    assert headers["machinery_about"] == {"group": "group"}
    assert args == [[1, '{"a":1}']]


def test_only_what_may_be_gos_reports_its_failure() -> None:
    last = _step("add", [1], {}, False, {})
    body = _step("sum", [], {}, False, {})
    body["options"][MEMBERS] = ["group", 2, False]
    last["options"].update(chord=body, group_id="group")
    parameters = arguments.Parameters(lambda x: x)
    for known, reports in (({}, [STEP_FAILED]), ({"first": parameters}, [])):
        first = Signature(uuid="first", name="first")
        maker(**known).attach(first, {"chain": [last]})
        assert [one.name for one in first.on_error or () if one] == reports
        assert (first.on_success or [None])[0].group_uuid == "group"  # type: ignore[union-attr]
        assert "errbacks" not in readback.taken_back(sent(first))


@pytest.mark.parametrize("carried", ["{}", '["no step"]', "[1, 2]"])
def test_a_continuation_that_carries_none(carried: str) -> None:
    broken = Signature(uuid="x", name=GO_ON, args=[Arg("string", carried, name="celery:json")], headers={})

    with pytest.raises(errors.DecodeError, match="carries a step and a list of steps"):
        readback.continuation(broken)


def test_nothing_appended_leaves_the_args_as_they_are() -> None:
    callback = Signature(name="note")

    append_results(callback, [])

    # Go appends nothing to nil, and that is nil.
    assert callback.args is None
