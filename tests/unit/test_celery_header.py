"""What a Celery call says survives the trip; what a stranger says is looked at first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery.app.task import Context
from hypothesis import given
from hypothesis import strategies as st

from machinery_compat import Arg, Signature, arguments, canvas
from machinery_compat.errors import ArgumentError, DecodeError, EncodeError
from tests.support import strategies

HEADERS: dict[str, Any] = {"task": "add", "id": "task_1"}
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), strategies.texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(strategies.texts, inner, max_size=3)),
    max_leaves=5,
)


def trip(args: list[Any], kwargs: dict[str, Any], headers: dict[str, Any]) -> Any:
    """What a Python worker gets of a call."""
    sent = canvas.to_signature((args, kwargs, {}), {**HEADERS, "headers": headers}, {})
    body = sent.encode()
    return canvas.from_signature(Signature.decode(body), body)


@given(
    args=st.lists(json_values, max_size=3),
    kwargs=st.dictionaries(st.one_of(strategies.texts, st.text("kw=,:json", max_size=6)), json_values, max_size=3),
    headers=st.dictionaries(st.text("abcxyz", min_size=1), json_values, max_size=3),
)
def test_arguments_and_headers_survive(args: list[Any], kwargs: dict[str, Any], headers: dict[str, Any]) -> None:
    kwargs.pop("", None)
    got_headers, _, (got_args, got_kwargs, _) = trip(args, kwargs, headers)

    assert got_args == args
    assert got_kwargs == kwargs
    assert (got_headers.get("headers") or {}) == headers


def test_a_header_of_a_name_that_celery_uses_is_in_headers_only() -> None:
    signature = Signature(name="add", uuid="task_1", headers={"is_eager": True, "traceparent": "00", "args": "x"})

    headers, _, _ = canvas.from_signature(signature, b"")

    assert "is_eager" not in headers
    assert "args" not in headers
    assert headers["traceparent"] == "00"
    assert headers["headers"] == signature.headers


@pytest.mark.parametrize(
    "said",
    ["", "{", "[]", "5", '{"expires": 5}', '{"expires": ""}', '{"timelimit": 5}', '{"retries": -1}', '{"chord": {}}',
     '{"callbacks": [{"task": 5}]}', '{"stamps": []}', '{"headers": {"a": {"__type__": "uuid", "__value__": 1}}}',
     '{"reply_to": 5}', '{"shadow": "a\\nb"}', '{"retries": 1000001}', '{"timelimit": [Infinity, null]}',
     '{"timelimit": [null, NaN]}', '{"timelimit": [-1, null]}', '{"expires": "0001-01-01T00:00:00"}',
     '{"expires": "9999-12-31T23:59:59"}', "[" * 100_000],
)  # fmt: skip
def test_what_it_cannot_say_is_refused(said: str) -> None:
    with pytest.raises(DecodeError, match="the header 'celery'"):
        canvas.from_signature(Signature(name="add", headers={"celery": said}), b"")


def test_what_it_says_of_other_things_is_ignored() -> None:
    said = json.dumps({"task": "x", "id": "y", "machinery": "z", "future": 1, "expires": None})

    headers, _, _ = canvas.from_signature(Signature(name="add", uuid="task_1", headers={"celery": said}), b"raw")

    assert (headers["task"], headers["id"], headers["machinery"]) == ("add", "task_1", b"raw")


def test_an_argument_that_is_marked_as_json_and_is_none_is_refused() -> None:
    for value in ("{", "[" * 100_000, '{"__type__": "decimal", "__value__": "x"}'):
        with pytest.raises(DecodeError, match="marked as JSON"):
            arguments.value_of(Arg("string", value, name="celery:json"))
    with pytest.raises(ArgumentError):
        arguments.value_of(Arg.from_raw("string", b"5", name="celery:json"))


def test_a_retry_keeps_the_headers_that_it_passes_on() -> None:
    body = b'{"UUID":"task_1","Name":"add","Headers":{"a":[1,{"b":null}],"n":1.50,"t":"x"}}'
    base = Signature.decode(body)
    headers, properties, arguments = canvas.from_signature(base, body)

    # Celery makes these anew for each message.
    del headers["argsrepr"], headers["kwargsrepr"]
    again = canvas.to_signature(arguments, headers, properties, base=base)

    assert b'"Headers":{"a":[1,{"b":null}],"n":1.50,"t":"x"}' in again.encode()


def test_a_task_without_headers_of_the_users_has_none() -> None:
    for said in (None, {}, {"celery": '{"shadow":"x"}'}):
        headers, _, _ = canvas.from_signature(Signature(name="add", uuid="task_1", headers=said), b"raw")
        assert Context(headers).headers == {}


def test_the_error_says_that_it_is_the_result() -> None:
    with pytest.raises(EncodeError, match="a result: a object has no Machinery type"):
        arguments.results_of(object())
