"""Who sends, who runs, who reads: every direction, with every version and driver of Go's Machinery."""

from __future__ import annotations

import math
from typing import Any

import pytest

from machinery_compat import Arg, TaskError, new_signature
from tests.interop.conftest import FLAVORS, Fleet
from tests.support.golang import arg, signature
from tests.support.waiting import wait_for

pytestmark = pytest.mark.go

#: A value at each limit of each type; what Go hands back must be the same.
LIMITS: list[tuple[str, Any]] = [
    ("bool", True),
    ("bool", False),
    *((f"int{bits}", value) for bits in (8, 16, 32, 64) for value in (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)),
    ("int", -(2**63)),
    ("int", 2**63 - 1),
    *((f"uint{bits}", value) for bits in (8, 16, 32, 64) for value in (0, 2**bits - 1)),
    ("uint", 2**64 - 1),
    ("float64", 1.7976931348623157e308),
    ("float64", 5e-324),
    ("float64", 100.0),
    ("float64", 1e21),
    ("float64", 0.1),
    ("float32", 0.1),
    ("float32", 16777216.0),
    ("string", ""),
    ("string", 'a "quoted" <b>&\u2028 😀 \x00\x1f'),
]
SLICE_LIMITS: list[tuple[str, Any]] = [
    ("[]bool", [True, False]),
    ("[]int8", [-128, 127]),
    ("[]int64", [-(2**63), 2**63 - 1]),
    ("[]int", [1]),
    ("[]uint16", [0, 65535]),
    ("[]uint64", [2**64 - 1]),
    ("[]float64", [0.1, 1e-7, 100.0]),
    ("[]float32", [0.5]),
    ("[]string", ["foo", "<b>", ""]),
    ("[]int64", []),
]


def echo_of(go_type: str) -> str:
    if go_type == "[]byte":
        return "bytes"
    return f"slice_{go_type[2:]}" if go_type.startswith("[]") else go_type


def same(one: Any, other: Any, go_type: str) -> bool:
    if go_type.endswith("float32"):
        pairs = zip(one, other, strict=True) if isinstance(one, list) else [(one, other)]
        return all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs)
    return bool(one == other) and type(one) is type(other)


def test_python_sends_and_go_runs(fleet: Fleet) -> None:
    fleet.go()

    result = fleet.server.send_task(new_signature("go_add", 1, 2))

    assert result.get_with_timeout(10) == [3]
    assert fleet.client.values(result.signature.uuid) == [3]


def test_go_sends_and_python_runs(fleet: Fleet) -> None:
    worker = fleet.python()

    uuid = fleet.client.send(signature("py_add", arg("int64", 1), arg("int64", 2)))

    assert fleet.client.values(uuid) == [3]
    assert [one.language for one in worker.executions()] == ["py"]
    state = fleet.client.state(uuid)
    assert (state["State"], state["TaskName"]) == ("SUCCESS", "py_add")
    assert not state["CreatedAt"].startswith("0001")


def test_celery_sends_and_go_runs(fleet: Fleet) -> None:
    fleet.go()

    result = fleet.server.app.send_task("go_add", [20, 22])

    assert result.get(timeout=10) == 42


def test_several_results_and_none(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()
    app = fleet.server.app

    assert app.send_task("go_swap", ["a", 1]).get(timeout=10) == (1, "a")
    assert app.send_task("go_nothing").get(timeout=10) is None
    assert fleet.client.values(fleet.client.send(signature("py_swap", arg("string", "a"), arg("int64", 1)))) == [1, "a"]
    assert fleet.client.values(fleet.client.send(signature("py_nothing"))) == []


def test_typed_arguments_at_their_limits(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()

    for language in ("go", "py"):
        sent = [
            (
                go_type,
                value,
                fleet.server.send_task(new_signature(f"{language}_echo_{echo_of(go_type)}", Arg(go_type, value))),
            )
            for go_type, value in [*LIMITS, *SLICE_LIMITS, ("[]byte", b"\x00\xff"), ("[]byte", b"")]
        ]
        for go_type, value, result in sent:
            (got,) = result.get_with_timeout(10)
            assert same(got, value, go_type), (language, go_type, value, got)


def test_go_reads_typed_results_of_python(fleet: Fleet) -> None:
    fleet.python()

    for go_type, value in [*LIMITS, *SLICE_LIMITS]:
        uuid = fleet.client.send(signature(f"py_echo_{echo_of(go_type)}", arg(go_type, value)))
        answer = fleet.client.get(uuid)
        assert "error" not in answer, (go_type, value, answer)
        (result,) = answer["results"]
        assert result["type"] == go_type, (go_type, value)


def test_failures_keep_their_text(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()
    app = fleet.server.app

    with pytest.raises(TaskError, match=r"^no luck <&>$"):
        app.send_task("go_fail", ["no luck <&>"]).get(timeout=10)
    with pytest.raises(ValueError, match=r"^no luck <&>$"):
        app.send_task("py_fail", ["no luck <&>"]).get(timeout=10)
    uuid = fleet.client.send(signature("py_fail", arg("string", "no luck <&>")))
    assert fleet.client.get(uuid)["error"] == "no luck <&>"


def test_retries_hop_between_languages(fleet: Fleet) -> None:
    """fail_times is known to both; a Go worker that knows it only by another name leaves it to Python."""
    fleet.go()
    fleet.python()

    for key, name in (("a", "go_fail_times"), ("b", "py_fail_times")):
        sent = new_signature(name, key, 2)
        sent.retry_count = 3
        assert fleet.server.send_task(sent).get_with_timeout(15) == [2]
    for key, name in (("c", "go_retry_later"), ("d", "py_retry_later")):
        assert fleet.server.send_task(new_signature(name, key, 3, 50)).get_with_timeout(15) == [3]


def test_a_retry_runs_out(fleet: Fleet) -> None:
    fleet.python()
    sent = new_signature("py_fail", "again")
    sent.retry_count = 1

    result = fleet.server.send_task(sent)

    with pytest.raises(TaskError, match=r"^again$"):
        result.get_with_timeout(15)
    assert [one.name for one in fleet.python().executions()] == ["py_fail"] * 2


def test_headers_and_results_survive_both_ways(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()
    sent = new_signature("py_headers", headers={"traceparent": "00-ab-cd-01", "flag": True})

    assert fleet.server.send_task(sent).get_with_timeout(10) == [{"traceparent": "00-ab-cd-01", "flag": True}]
    sent = new_signature("go_headers", headers={"traceparent": "00-ab-cd-01"})
    assert fleet.server.send_task(sent).get_with_timeout(10) == ['{"traceparent":"00-ab-cd-01"}']


def test_celery_values_without_a_machinery_type(fleet: Fleet) -> None:
    fleet.go()
    fleet.python()
    app = fleet.server.app
    value = {"a": [1, "x", None], "b": {"c": 1.5}}

    assert app.send_task("py_echo", [value]).get(timeout=10) == value
    assert app.send_task("py_greet", ["Ada"], {"greeting": "Hi"}).get(timeout=10) == "Hi, Ada!"
    assert app.send_task("go_echo_string", [[{"a": 1}]]).get(timeout=10) == '[{"a": 1}]'


def test_both_drain_one_queue(fleet: Fleet) -> None:
    """2,000 mixed tasks, both kinds of worker: none lost, none run twice."""
    go_only, py_only, both = "go_add", "py_add", "mixed"
    names = [(go_only, py_only, both, both)[i % 4] for i in range(1000)]
    # Python first: it declares the queue; a Go publisher declares one named as the routing key.
    from_python = [fleet.server.send_task(new_signature(name, i)).signature.uuid for i, name in enumerate(names)]
    from_go = fleet.client.send_many([signature(name, arg("int64", i)) for i, name in enumerate(names)], timeout=60)
    fleet.go(concurrency=4)
    worker = fleet.python(concurrency=2)

    expected = sorted([*from_go, *from_python])
    wait_for(
        lambda: len(worker.executions()) >= len(expected),
        120,
        lambda: f"{len(worker.executions())} of {len(expected)} executed",
    )

    executions = worker.executions()
    assert sorted(one.uuid for one in executions) == expected
    assert {one.language for one in executions if one.name == go_only} == {"go"}
    assert {one.language for one in executions if one.name == py_only} == {"py"}
    states = fleet.server.backend.task_states(expected)
    wait_for(
        lambda: all(s is not None and s.state == "SUCCESS" for s in fleet.server.backend.task_states(expected)),
        30,
        lambda: str({s.state for s in states if s is not None}),
    )


__all__ = ["FLAVORS"]
