"""Payloads that nobody can run: one clear line each, kept, and the worker goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from machinery_compat import TaskState
from tests.fault.conftest import BROKERS, Site
from tests.support.waiting import wait_for

MEGABYTE = 1 << 20
#: The deepest nesting that Go's decoder reads.
DEEPEST = 10_000
#: RabbitMQ has no set of delayed tasks.
ONLY_REDIS = pytest.mark.parametrize("site", BROKERS[:1], indirect=True)


def payload(name: str = "py_echo", *args: object, **fields: object) -> bytes:
    return json.dumps({"UUID": "task_bad", "Name": name, "Args": list(args), **fields}).encode()


def nested(depth: int, value: str = "1") -> str:
    return "[" * depth + value + "]" * depth


def callbacks(depth: int) -> bytes:
    """A chain of that many tasks, each with just the fields that it needs."""
    return b'{"UUID":"deep","Name":"py_nothing","OnSuccess":[' * depth + b"]}" * depth


def kombu_envelope() -> bytes:
    """What a plain Celery application puts into a Redis list."""
    properties = {"delivery_tag": "x", "delivery_info": {"exchange": "", "routing_key": "celery"}}
    headers = {"lang": "py", "task": "py_add", "id": "x"}
    return json.dumps(
        {"body": "W10=", "content-encoding": "utf-8", "content-type": "application/json"}
        | {"headers": headers, "properties": properties}
    ).encode()


NO_SIGNATURES = {
    "no JSON": b"hello",
    "a cut one": b'{"UUID":"task_1","Name":"py_ad',
    "an array": b"[1,2]",
    "a string": b'"py_add"',
    "a number": b"17",
    "null": b"null",
    "an empty object": b"{}",
    "an empty name": b'{"UUID":"task_1","Name":""}',
    "Kombu's envelope": kombu_envelope(),
    "bytes that are no UTF-8": b"\xff\xfe\x00garbage\x80",
    "blanks": b" \n ",
    "lines": b"no\n[2026-01-01 00:00:00,000: ERROR/MainProcess] signature\r\x1b[31m\xe2\x80\xa8",
    "a byte order mark": b"\xef\xbb\xbf" + payload(),
    "args of the wrong shape": b'{"UUID":"x","Name":"py_add","Args":{"a":1}}',
    "a name that is a number": b'{"UUID":"x","Name":5}',
    "a fraction for a count": b'{"UUID":"x","Name":"py_add","RetryCount":1.5}',
    "a priority out of range": b'{"UUID":"x","Name":"py_add","Priority":256}',
    "an ETA that is none": b'{"UUID":"x","Name":"py_add","ETA":"tomorrow"}',
    "headers that are a list": b'{"UUID":"x","Name":"py_add","Headers":[1]}',
    "5 MB of garbage": b"\x01garbage " * (5 * MEGABYTE // 9),
    "5 MB of JSON": b'["' + b"x" * 5 * MEGABYTE + b'"]',
    "nested too deep": nested(DEEPEST + 1).encode(),
    "headers nested too deep": b'{"UUID":"x","Name":"py_add","Headers":{"a":' + nested(DEEPEST).encode() + b"}}",
    "callbacks nested too deep": callbacks(DEEPEST),
}


def kept(entry: bytes) -> tuple[bytes, str]:
    """The payload and the reason of an entry in the queue of the dead."""
    document = json.loads(entry)
    body = bytes.fromhex(document["body_hex"]) if "body_hex" in document else document["body"].encode()
    return body, document["reason"]


def expect_buried(site: Site, body: bytes) -> str:
    """The payload is kept, one line tells of it, and the next task runs; returns the reason."""
    site.works()
    (entry,) = wait_for(site.dead)
    found, reason = kept(entry)
    assert found == body
    lines = [line for line in site.new_lines() if "py_add[" not in line]
    assert [line for line in lines if f"kept in {site.queue}:dead" in line] == lines, lines
    assert len(lines) == 1
    assert reason in lines[0]
    assert len(lines[0]) < 2000
    return reason


@pytest.mark.parametrize("what", NO_SIGNATURES)
def test_what_is_no_signature_is_kept(site: Site, what: str) -> None:
    site.new_lines()

    site.put(NO_SIGNATURES[what])

    assert "Could not unmarshal" in expect_buried(site, NO_SIGNATURES[what])


def test_an_empty_body(site: Site) -> None:
    site.new_lines()

    site.put(b"")

    assert "EOF" in expect_buried(site, b"")


UNCONVERTIBLE: dict[str, tuple[bytes, str]] = {
    "an unknown type": (payload("py_echo", {"Type": "map", "Value": 1}), "map is not one of supported types"),
    "no type": (payload("py_echo", {"Value": 1}), " is not one of supported types"),
    "a text for a number": (payload("py_echo", {"Type": "int64", "Value": "x"}), "x is not int64"),
    "a fraction for an integer": (
        payload("py_echo", {"Type": "int64", "Value": 1.5}),
        'strconv.ParseInt: parsing "1.5": invalid syntax',
    ),
    "an integer out of range": (
        payload("py_echo", {"Type": "uint64", "Value": 2**64}),
        'strconv.ParseUint: parsing "18446744073709551616": value out of range',
    ),
    "an object for a list": (payload("py_echo", {"Type": "[]int64", "Value": {"a": 1}}), "an object is no value for"),
    "true for a list": (payload("py_echo", {"Type": "[]string", "Value": True}), "true is no value for []string"),
    "bad base64": (payload("py_echo", {"Type": "[]byte", "Value": "?"}), "illegal base64 data at input byte 0"),
    "lines": (payload("py_echo", {"Type": "int64", "Value": "a\nb"}), "a\nb is not int64"),
    "null": (payload("py_echo", {"Type": "string", "Value": None}), "<nil> is not string"),
    "a deep list for a text": (
        payload("py_echo", {"Type": "string", "Value": 0}).replace(b": 0}", b":" + nested(DEEPEST - 3).encode() + b"}"),
        "[[[",
    ),
}


@pytest.mark.parametrize("what", UNCONVERTIBLE)
def test_arguments_that_do_not_convert_fail_the_task(site: Site, what: str) -> None:
    body, error = UNCONVERTIBLE[what]
    on_error = {"UUID": "task_told", "Name": "py_describe", "Args": None}
    body = body[:-1] + b', "OnError": [' + json.dumps(on_error).encode() + b"]}"
    site.redis.delete("task_bad", "task_told")
    site.new_lines()

    site.put(body)

    told = wait_for(lambda: state_of(site, "task_told", "SUCCESS"))
    state = state_of(site, "task_bad", "FAILURE")
    assert state is not None
    assert state.error.startswith(f"Reflect task args error: {error}")
    assert told.results is not None
    assert told.results[0] is not None
    assert told.results[0].value == f"str: {state.error!r}"
    site.works()
    (entry,) = site.dead()
    found, reason = kept(entry)
    assert found == body
    assert error in reason
    own = [line for line in site.new_lines() if "py_add[" not in line and "py_describe[" not in line]
    assert len(own) == 1, own
    assert f"kept in {site.queue}:dead" in own[0]


def header(text: object, **others: object) -> bytes:
    return payload("py_nothing", Headers={"celery": text, **others})


#: Headers of strangers. What is wrong fails the task.
BAD_HEADERS = {
    "no JSON": header("{"),
    "a list": header("[]"),
    "a number": header(5),
    "an object": header({"task": "x"}),
    "deep": header("[" * 100_000),
    "deep but right": header(json.dumps({"stamps": {"a": 1}})[:-2] + ', "b":' + nested(500) + "}}"),
    "a time that is none": header('{"expires": "tomorrow"}'),
    "a time that is a number": header('{"expires": 5}'),
    "limits of one": header('{"timelimit": [1]}'),
    "limits of texts": header('{"timelimit": ["a", "b"]}'),
    "retries that are a text": header('{"retries": "many"}'),
    "callbacks that are none": header('{"callbacks": [5]}'),
    "a chain that is none": header('{"chain": {"a": 1}}'),
    "a chord that is none": header('{"chord": "x"}'),
    "headers that are none": header('{"headers": [1, 2]}'),
    "stamps that are none": header('{"stamps": 5, "stamped_headers": 7}'),
    "a root that is none": header('{"root_id": ["x"]}'),
    "a value of an unknown type": header('{"headers": {"a": {"__type__": "decimal", "__value__": "x"}}}'),
    "deep headers of Go's": payload("py_nothing", Headers={"a": 0}).replace(
        b": 0}", b":" + nested(5000).encode() + b"}"
    ),
    "an argument that is no JSON": payload("py_echo", {"Name": "celery:json", "Type": "string", "Value": "{"}),
    "a deep argument": payload("py_echo", {"Name": "celery:json", "Type": "string", "Value": "[" * 100_000}),
}


@pytest.mark.parametrize("what", BAD_HEADERS)
def test_what_the_celery_header_cannot_say_fails_the_task(site: Site, what: str) -> None:
    site.redis.delete("task_bad")
    site.new_lines()

    site.put(BAD_HEADERS[what])

    wait_for(lambda: state_of(site, "task_bad", "FAILURE"))
    expect_buried(site, BAD_HEADERS[what])


#: Names that mean something to Celery or Kombu, and nothing here when a user's header has them.
HOSTILE: dict[str, Any] = {
    "task": "py_fail",
    "id": "another",
    "machinery": "x",
    "lang": "go",
    "eta": "2999-01-01T00:00:00Z",
    "is_eager": True,
    "called_directly": True,
    "args": "x",
    "kwargs": "x",
    "chain": "x",
    "callbacks": "x",
    "errbacks": "x",
    "chord": "x",
    "delivery_info": "x",
    "properties": "x",
    "reply_to": "x",
    "hostname": "x",
    "utc": "x",
    "update": "x",
    "get": "x",
    "execution_options": "x",
    "compression": "gzip",
    "taskset": "x",
    "unknown": None,
}


@pytest.mark.parametrize(
    "headers",
    [
        HOSTILE,
        {"celery": json.dumps(HOSTILE | dict.fromkeys(("chain", "callbacks", "errbacks", "chord")))},
        {"celery": json.dumps({"headers": HOSTILE})},
        {"celery": json.dumps({"shadow": "x" * 5 * MEGABYTE})},
        {"big": "x" * MEGABYTE, "n": 5, "list": [1, {"a": 2}]},
    ],
    ids=["headers", "celery header", "headers in the celery header", "5 MB of shadow", "big"],
)
def test_headers_override_nothing(site: Site, headers: dict[str, Any]) -> None:
    site.redis.delete("task_bad", "another")
    site.new_lines()

    small = {name: value for name, value in headers.items() if name != "celery" and len(str(value)) < MEGABYTE}
    site.put(payload("py_echo", {"Type": "int64", "Value": 17}, Headers=headers), small)

    state = wait_for(lambda: state_of(site, "task_bad", "SUCCESS"))
    assert state.results is not None
    assert [result and result.value for result in state.results] == [17]
    site.works()
    assert not site.redis.exists("another")
    assert not site.dead()


def test_a_signature_of_5_mb_runs(site: Site) -> None:
    site.redis.delete("task_bad")
    # Go's spelling of the first three is six times as long, and results have a limit of 10 MB.
    text = ("<&>é" + "x" * 20) * (5 * MEGABYTE // 25)

    site.put(payload("py_echo", {"Type": "string", "Value": text}))

    state = wait_for(lambda: state_of(site, "task_bad", "SUCCESS"), 30)
    assert state.results is not None
    assert [result and result.value for result in state.results] == [text]
    site.works()
    assert not site.dead()


def test_a_chain_as_deep_as_go_reads(site: Site) -> None:
    """4,999 tasks, each an object in a list. The second one is dropped, or all of them would run one by one."""
    site.redis.delete("deepest")
    site.new_lines()
    rest = callbacks(DEEPEST // 2 - 2).replace(b"{", b'{"IgnoreWhenTaskNotRegistered":true,', 1)
    rest = rest.replace(b'"py_nothing"', b'"nobody"', 1)

    site.put(b'{"UUID":"deepest","Name":"py_who","OnSuccess":[' + rest + b"]}")

    wait_for(lambda: state_of(site, "deepest", "SUCCESS"), 30)
    wait_for(lambda: any("nobody[deep]" in line and "dropped" in line for line in site.new_lines()), 30)
    site.works()
    assert not site.dead()


@ONLY_REDIS
@pytest.mark.parametrize(
    "member", [b"hello", b"[1]", b"{}", b'"x"', b"\xff\xfe", b'{"UUID":"x","Name":5}', b"[" * 10_001]
)
def test_a_bad_member_among_the_delayed_tasks(site: Site, member: bytes) -> None:
    site.new_lines()

    site.redis.zadd("delayed_tasks", {member: 1})

    wait_for(lambda: not site.redis.exists("delayed_tasks"))
    expect_buried(site, member)


@ONLY_REDIS
def test_a_delayed_task_that_another_peer_has_spelled_otherwise_runs(site: Site) -> None:
    site.redis.delete("task_other")

    site.redis.zadd("delayed_tasks", {b'{"uuid":"task_other","name":"py_nothing"}': 1})

    wait_for(lambda: state_of(site, "task_other", "SUCCESS"))


@ONLY_REDIS
def test_a_delayed_task_goes_where_its_routing_key_leads_in_any_spelling(site: Site) -> None:
    body = b'{"UUID":"task_elsewhere","Name":"py_nothing","routingKey":"elsewhere"}'

    site.redis.zadd("delayed_tasks", {body: 1})

    wait_for(lambda: site.redis.lrange("elsewhere", 0, -1) == [body])
    site.redis.delete("elsewhere")


def state_of(site: Site, uuid: str, wanted: str) -> TaskState | None:
    data = site.redis.get(uuid)
    if data is None:
        return None
    state = TaskState.decode(data)
    return state if state.state == wanted else None
