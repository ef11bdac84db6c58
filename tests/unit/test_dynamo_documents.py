"""DynamoDB's items of states and groups: what is written, and what is read of that which Go writes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from machinery_compat import GroupMeta, TaskState
from machinery_compat.backends import dynamo_documents as documents
from machinery_compat.backends.dynamo_values import attribute_of, result_of
from machinery_compat.backends.limits import TooLarge
from machinery_compat.errors import DecodeError
from machinery_compat.wire import TaskResult

CREATED = "2024-01-02T03:04:05.678901234Z"
#: What Python writes for a result, and that Go can read it or at least pass it on.
WRITTEN: list[tuple[str, bytes, dict[str, Any]]] = [
    ("bool", b"true", {"BOOL": True}),
    ("int8", b"-128", {"N": "-128"}),
    ("int64", b"9007199254740992", {"N": "9007199254740992"}),
    ("uint", b"0", {"N": "0"}),
    ("float64", b"100", {"N": "100"}),
    ("float64", b"1e+21", {"N": "1e+21"}),
    ("float64", b"-0", {"N": "0"}),
    ("float32", b"0.1", {"N": "0.1"}),
    ("string", b'"<b>\\u0000"', {"S": "<b>\x00"}),
    ("string", b'""', {"S": ""}),
    ("[]int64", b"[1,-2]", {"L": [{"N": "1"}, {"N": "-2"}]}),
    ("[]int64", b"[]", {"L": []}),
    ("[]int64", b"null", {"NULL": True}),
    ("[]string", b'["a b",""]', {"L": [{"S": "a b"}, {"S": ""}]}),
    ("[]bool", b"[false]", {"L": [{"BOOL": False}]}),
    ("[]float32", b"[0.1,0.5]", {"L": [{"N": "0.1"}, {"N": "0.5"}]}),
    ("[]byte", b'"AP8="', {"B": b"\x00\xff"}),
    ("[]uint8", b'""', {"B": b""}),
    # These Go would take for other numbers, or DynamoDB does not take them: they are as Go writes them.
    ("int64", b"9007199254740993", {"S": "9007199254740993"}),
    ("uint64", b"18446744073709551615", {"S": "18446744073709551615"}),
    ("[]int64", b"[1,9223372036854775807]", {"S": "[1 9223372036854775807]"}),
    ("float64", b"5e-324", {"S": "5e-324"}),
    ("float64", b"1.7e+308", {"S": "1.7e+308"}),
    ("[]float64", b"[1,1e-300]", {"S": "[1 1e-300]"}),
]
#: What Go writes, ``%v``, and the JSON of the value that it was.
OF_GO = [
    ("bool", "true", b"true"),
    ("int64", "-9223372036854775808", b"-9223372036854775808"),
    ("uint64", "18446744073709551615", b"18446744073709551615"),
    ("float64", "1e+21", b"1e+21"),
    ("float64", "100", b"100"),
    ("float64", "1e-07", b"1e-7"),
    ("float64", "-0", b"-0"),
    ("float32", "0.1", b"0.1"),
    ("float32", "1.6777216e+07", b"16777216"),
    ("string", "2", b'"2"'),
    ("string", "[1 2]", b'"[1 2]"'),
    ("[]int64", "[1 2]", b"[1,2]"),
    ("[]int64", "[]", b"[]"),
    ("[]uint16", "[0 65535]", b"[0,65535]"),
    ("[]bool", "[true false]", b"[true,false]"),
    ("[]float64", "[0.1 1e-07 100]", b"[0.1,1e-7,100]"),
    ("[]byte", "[104 105]", b'"aGk="'),
    ("[]uint8", "[]", b'""'),
    ("[]string", "[foo <b> ]", b'["foo","\\u003cb\\u003e",""]'),
]


@pytest.mark.parametrize(
    ("kind", "raw", "attribute"), WRITTEN, ids=[f"{kind} {raw!r}"[:40] for kind, raw, _ in WRITTEN]
)
def test_a_result_is_written_as_what_go_reads_and_comes_back(kind: str, raw: bytes, attribute: dict[str, Any]) -> None:
    written = attribute_of(TaskResult.from_raw(kind, raw))

    assert written == {"M": {"Type": {"S": kind}, "Value": attribute}}
    # A number of DynamoDB's has no minus zero.
    assert result_of(written) == TaskResult.from_raw(kind, b"0" if raw == b"-0" else raw)


@pytest.mark.parametrize(("kind", "text", "raw"), OF_GO, ids=[f"{kind} {text}"[:40] for kind, text, _ in OF_GO])
def test_what_go_has_written_is_read_by_its_type(kind: str, text: str, raw: bytes) -> None:
    found = result_of({"M": {"Type": {"S": kind}, "Value": {"S": text}}})
    assert (found.type, found.raw, found.celery) == (kind, raw, None)


@pytest.mark.parametrize(("text", "raw"), [("2E+1", b"20"), ("20.0", b"20"), ("0.5", b"0.5")])
def test_numbers_that_dynamodb_spells_in_its_own_way(text: str, raw: bytes) -> None:
    assert result_of({"M": {"Type": {"S": "int64"}, "Value": {"N": text}}}).raw == raw


def test_a_number_with_a_huge_exponent_costs_nothing() -> None:
    with pytest.raises(DecodeError):
        result_of({"M": {"Type": {"S": "int64"}, "Value": {"N": "1e999999999"}}})


def test_pending_is_gos() -> None:
    item = documents.state_item(TaskState(task_uuid="t", task_name="add", state="PENDING", created_at=CREATED), 3600)
    assert item == {
        "TaskUUID": {"S": "t"},
        "TaskName": {"S": "add"},
        "State": {"S": "PENDING"},
        "Results": {"NULL": True},
        "Error": {"S": ""},
        "CreatedAt": {"S": CREATED},
        "TTL": {"N": "0"},
    }


def test_a_group_is_gos_and_comes_back() -> None:
    meta = GroupMeta(group_uuid="g", task_uuids=["a", "b"], created_at=CREATED)
    item = documents.group_item(meta, 3600)
    meta.ttl = int(item["TTL"]["N"])

    assert 3590 < meta.ttl - time.time() <= 3600
    assert documents.group_of(item) == meta
    del item["TTL"]
    assert item == {
        "GroupUUID": {"S": "g"},
        "TaskUUIDs": {"L": [{"S": "a"}, {"S": "b"}]},
        "ChordTriggered": {"BOOL": False},
        "Lock": {"BOOL": False},
        "CreatedAt": {"S": CREATED},
    }


@pytest.mark.parametrize("expiry", [0, 60])
@pytest.mark.parametrize("state", ["STARTED", "SUCCESS", "FAILURE"])
def test_only_ended_tasks_expire(state: str, expiry: int) -> None:
    members, _ = documents.state_members(TaskState(task_uuid="t", state=state), expiry)
    left = int(members["TTL"]["N"]) - time.time()
    assert 50 < left <= 60 if expiry and state != "STARTED" else members["TTL"] == {"N": "0"}


def test_what_python_says_counts_only_for_the_state_that_it_came_with() -> None:
    item = documents.state_item(TaskState(task_uuid="t", state="FAILURE", error="e", celery='{"run": 2}'), 60)
    assert item["Celery"]["M"]["Run"] == {"N": "2"}
    assert documents.state_of(item).celery == '{"run": 2}'
    # As Go changes it.
    for change in ({"Error": {"S": "another"}}, {"State": {"S": "STARTED"}}, {"State": {"S": "SUCCESS"}}):
        assert documents.state_of({**item, **change}).celery is None


def test_what_v1_writes_for_an_empty_text() -> None:
    item = {"TaskUUID": {"S": "t"}, "TaskName": {"NULL": True}, "State": {"S": "PENDING"}, "Error": {"NULL": True}}
    assert documents.state_of(item) == TaskState(task_uuid="t", state="PENDING")


def test_text_that_is_no_utf_8() -> None:
    item = documents.state_item(TaskState(task_uuid="t", state="FAILURE", error="\ud800x", celery="{}"), 60)
    assert item["Error"] == {"S": "\ufffdx"}
    assert documents.state_of(item).celery == "{}"


def test_a_failure_that_would_be_too_large_is_cut_and_keeps_its_run() -> None:
    state = TaskState(task_uuid="t", state="FAILURE", error="é" * 300_000, celery='{"run": 3, "exception": {}}')
    members, gone = documents.fitting(state, 60, 600)

    assert gone == []
    assert documents.size_of(members) < 400 * 1024
    assert members["Error"]["S"].startswith("é" * 50_000)
    assert members["Error"]["S"].endswith("… (300000 characters)")
    found = documents.state_of({"TaskUUID": {"S": "t"}, **members})
    assert found.celery == '{"run": 3}'


def test_a_large_traceback_goes_before_the_error_is_cut() -> None:
    state = TaskState(task_uuid="t", state="FAILURE", error="short", celery='{"traceback": "%s"}' % ("x" * 410_000))
    members, gone = documents.fitting(state, 60, 600)
    assert (members["Error"], gone) == ({"S": "short"}, ["Celery"])


def test_results_that_are_too_large_are_refused_with_their_size() -> None:
    state = TaskState(task_uuid="t", state="SUCCESS", results=[TaskResult("string", "x" * 410_000)])
    with pytest.raises(TooLarge, match=r"the document of t has 41\d+ bytes, more than the 409600"):
        documents.fitting(state, 60, 600)
    with pytest.raises(TooLarge, match="the document of t"):
        documents.check_size("t", documents.state_item(state, 60))


def test_a_group_that_is_too_large() -> None:
    item = documents.group_item(GroupMeta(group_uuid="g", task_uuids=[f"task_{n:036}" for n in range(10_000)]), 60)
    with pytest.raises(TooLarge, match="the document of g has"):
        documents.check_size("g", item)


@pytest.mark.parametrize(
    ("item", "size"),
    [({"a": {"S": "é"}}, 3), ({"a": {"N": "123"}}, 4), ({"a": {"BOOL": True}}, 2), ({"a": {"B": b"xyz"}}, 4)],
)
def test_sizes(item: dict[str, Any], size: int) -> None:
    assert documents.size_of(item) == size
