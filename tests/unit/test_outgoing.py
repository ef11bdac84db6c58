"""What is refused before it leaves, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from machinery_compat import Arg, Chain, Chord, GoNumber, Group, Signature, new_signature
from machinery_compat.errors import EncodeError
from machinery_compat.wire import outgoing
from tests.support import strategies


@given(strategies.args)
def test_what_arg_has_made_passes(arg: Arg) -> None:
    outgoing.check_arg(arg)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("int8", b"-0"),
        ("float64", b"1e-400"),
        ("float32", b"3.4028235e38"),
        ("uint64", b"18446744073709551615"),
        ("[]uint64", b"[18446744073709551615]"),
        ("[]int64", b"{}"),
        ("[]string", b'""'),
        ("[]byte", b'"AP8="'),
        ("[]uint16", b'"AP8="'),
        ("[]uint8", b"12"),
        ("[]bool", b"null"),
        ("string", rb'"\ud800"'),
    ],
)
def test_what_go_converts_passes(kind: str, raw: bytes) -> None:
    outgoing.check_arg(Arg.from_raw(kind, raw))


@pytest.mark.parametrize(
    ("kind", "raw", "why"),
    [
        ("map", b"1", "map is not one of supported types"),
        ("", b"1", " is not one of supported types"),
        ("[][]int64", b"[]", "is not one of supported types"),
        ("int64", b"1.0", 'parsing "1.0": invalid syntax'),
        ("int64", b'"x"', "x is not int64"),
        ("int64", b"9223372036854775808", "out of range"),
        ("int8", b"128", "out of range"),
        ("[]int8", b"[1,128]", "out of range"),
        ("[]uint8", b"[256]", "out of range"),
        ("[]byte", b"[256]", "out of range"),
        ("uint16", b"-0", "invalid syntax"),
        ("[]uint8", b"[-0]", "invalid syntax"),
        ("[]byte", b"[1,-0]", "invalid syntax"),
        ("uint64", b"18446744073709551616", "out of range"),
        ("float32", b"3.5e38", "out of range"),
        ("float64", b"1e400", "out of range"),
        ("string", b"null", "<nil> is not string"),
        ("[]string", b"[null]", "<nil> is not string"),
        ("[]int64", b'{"a":1}', "a Go worker panics on it"),
        ("[]int64", b"true", "a Go worker panics on it"),
    ],
)
def test_what_would_hurt_go_is_refused(kind: str, raw: bytes, why: str) -> None:
    sent = Signature(name="add", args=[Arg("int64", 1), Arg.from_raw(kind, raw)])

    with pytest.raises(EncodeError) as caught:
        outgoing.check(sent)

    assert str(caught.value).startswith("argument 1 of add: ")
    assert why in str(caught.value)


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(EncodeError) as caught:
        outgoing.check_arg(Arg.from_raw("int8", b"[" + b"1," * 10_000 + b"1]"))
    assert "…" in str(caught.value)


WRONG_FIELDS: list[dict[str, Any]] = [
    {"name": ""}, {"name": 5}, {"uuid": None}, {"routing_key": b"x"}, {"priority": 1.5}, {"retry_count": True},
    {"group_task_count": "1"}, {"immutable": 1}, {"ignore_when_task_not_registered": None}, {"eta": 5},
    {"args": [5]}, {"args": [{"Type": "int64", "Value": 1}]},
    {"uuid": "\ud800"}, {"routing_key": "\udfff"}, {"name": "\ud800"},
    {"headers": {"n": 1}}, {"headers": {"n": GoNumber("1")}}, {"headers": {"a": ["x"]}}, {"headers": {"a": {}}},
    {"headers": {5: "x"}}, {"headers": {"é" * 128: "x"}},
    {"on_success": ["add"]}, {"on_error": [Signature()]}, {"chord_callback": "multiply"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_FIELDS, ids=str)
def test_wrong_fields_are_refused_wherever_they_stand(wrong: dict[str, Any]) -> None:
    sent = Signature(**{"name": "add", **wrong})

    for one in (sent, Signature(name="add", on_success=[None, Signature(name="add", on_error=[sent])])):
        with pytest.raises(EncodeError, match=r"\w"):
            outgoing.check(one)


def test_plain_signatures_pass() -> None:
    outgoing.check(new_signature("add", 1, 2.5, "x", b"y", [1], headers={"a": "x", "b": True, "c": None}))
    outgoing.check(Chain(new_signature("add", 1), new_signature("add", 2)).tasks[0])
    outgoing.check(Chord(Group(new_signature("add", 1)), new_signature("multiply")).group.tasks[0])
