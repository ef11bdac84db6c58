"""The recorded vectors: what the real Go code wrote, read and converted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machinery_compat.errors import ArgumentError, DecodeError, EncodeError
from machinery_compat.wire import (
    Arg,
    Chain,
    Chord,
    GoNumber,
    Group,
    GroupMeta,
    Signature,
    TaskResult,
    TaskState,
    decode_value,
    encode_value,
    gojson,
)
from machinery_compat.wire.goconvert import go_text
from machinery_compat.wire.gojson import to_float32
from machinery_compat.wire.message import _NAMES
from machinery_compat.wire.state import _GROUP_NAMES, _STATE_NAMES

pytestmark = pytest.mark.vectors

FOLDER = Path(os.environ.get("VECTORS", Path(__file__).parents[1] / "vectors"))
CREATED = "2024-01-02T03:04:05.678901234Z"
ERROR = "ERROR "


def load(name: str) -> list[dict[str, Any]]:
    path = FOLDER / name
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def identified(vectors: list[dict[str, Any]], label: Callable[[dict[str, Any]], str]) -> list[Any]:
    """One pytest parameter for each vector, with an id that can be read and is not used twice."""
    seen: dict[str, int] = {}
    parameters = []
    for vector in vectors:
        name = label(vector)
        seen[name] = seen.get(name, 0) + 1
        parameters.append(pytest.param(vector, id=name if seen[name] == 1 else f"{name}-{seen[name]}"))
    return parameters


ENCODE = load("vectors.jsonl")
DECODE = load("decode_vectors.jsonl")
REFLECT = load("reflect_vectors.jsonl")


def test_there_are_vectors() -> None:
    assert ENCODE, FOLDER
    assert DECODE, FOLDER
    assert REFLECT, FOLDER


# --- encoding -------------------------------------------------------------------------------------


def go_value(type: str, text: str) -> Any:
    """The Python value that a vector's Go value stands for."""
    if text.startswith("json.Number "):
        number = text.removeprefix("json.Number ")
        return GoNumber("" if number == "empty" else number)
    if text.startswith("bytes"):
        return bytes.fromhex(text.removeprefix("bytes").replace(" ", ""))
    if text.startswith("nil"):
        return None
    if text.startswith("empty"):
        return b"" if type in ("[]byte", "[]uint8") else []
    if text in ("NaN", "+Inf", "-Inf"):
        return float(text)
    if type == "string":
        return json.loads(text)
    read: Callable[[str], Any] = float if "float" in type else int
    return json.loads(text, parse_int=read, parse_float=read)


def build_arg(vector: dict[str, Any]) -> Arg:
    given = vector["input"]
    type = given["Type"]
    if "RawHex" in given:
        return Arg(type, bytes.fromhex(given["RawHex"]).decode("utf-8", "surrogateescape"))
    if "Value" in given:
        return Arg(type, given["Value"])
    if given["GoValue"] == "map b,a,A":
        return Arg.from_raw(type, gojson.dumps({"b": 1, "a": [1], "A": None}))
    if given["GoValue"] == "nil interface":
        return Arg.from_raw(type, b"null")
    return Arg(type, go_value(type, given["GoValue"]))


def arg_bytes(arg: Arg) -> bytes:
    """The bytes of a lone Arg, cut out of a signature."""
    data = Signature(args=[arg]).encode()
    start = data.index(b'"Args":[') + len(b'"Args":[')
    return data[start : data.index(b'],"Headers":null', start)]


def add(uuid: str, *numbers: int, name: str = "add", **fields: Any) -> Signature:
    return Signature(uuid=uuid, name=name, args=[Arg("int64", number) for number in numbers] or None, **fields)


def chain3() -> Signature:
    steps = [add("task_1", 2, 2), add("task_2", 5, 6), add("task_3", 4, name="multiply")]
    first = Chain(*steps).tasks[0]
    first.routing_key, first.headers = "machinery_tasks", {}
    return first


def chord_member() -> Signature:
    group = Group(add("task_1", 1, routing_key="machinery_tasks", headers={}), add("task_2", 2))
    chord = Chord(group, Signature(uuid="chord_1", name="sum", headers={}))
    member = chord.group.tasks[0]
    member.group_uuid = "group_1"
    return member


def float_headers() -> Signature:
    return Signature(headers={"a": 100.0, "b": 1e21, "c": 1e-7, "d": GoNumber("1.0")})


# Vectors whose input is told in words, by name.
TOLD: dict[str, Callable[[], Any]] = {
    "sig_add": lambda: Signature.decode(
        b'{"UUID":"task_48760a1a-8576-4536-973b-da09048c2ac5","Name":"add","RoutingKey":"machinery_tasks","Headers":{},'
        b'"Args":[{"Type":"int64","Value":1},{"Type":"int64","Value":1}]}'
    ),
    "sig_chain3": chain3,
    "sig_chord_member": chord_member,
    "sig_headers_floats": float_headers,
    "state_success_int64": lambda: TaskState(
        task_uuid="task_1", task_name="add", state="SUCCESS", created_at=CREATED, results=[TaskResult("int64", 2)]
    ),
    "state_success_multi": lambda: TaskState(
        task_uuid="task_1",
        task_name="m",
        state="SUCCESS",
        created_at=CREATED,
        results=[
            TaskResult("string", "foo"),
            TaskResult("float64", 100.0),
            TaskResult("[]uint8", b"hi"),
            TaskResult("bool", True),
            TaskResult("[]string", ["a"]),
            TaskResult("float32", 0.1),
        ],
    ),
    "state_success_nil_slice_result": lambda: TaskState(
        task_uuid="task_1", state="SUCCESS", results=[TaskResult("[]int64", None)]
    ),
    "state_success_map_result": lambda: TaskState(
        task_uuid="task_1",
        state="SUCCESS",
        results=[TaskResult.from_raw("map[string]interface {}", gojson.dumps({"k": 1}))],
    ),
    "state_failure": lambda: TaskState(
        task_uuid="task_1", task_name="t", state="FAILURE", error="Test error", created_at=CREATED
    ),
    "state_ttl": lambda: TaskState(task_uuid="task_1", state="SUCCESS", ttl=1704168000),
    "state_state_nan": lambda: TaskState(results=[TaskResult("float64", float("nan"))]),
    "group_ttl": lambda: GroupMeta(group_uuid="group_1", ttl=1704168000),
    "group_empty": lambda: GroupMeta(group_uuid="group_1", task_uuids=[], created_at=CREATED),
    "group_triggered": lambda: GroupMeta(
        group_uuid="group_1", task_uuids=["task_1"], chord_triggered=True, created_at=CREATED
    ),
    "group_locked": lambda: GroupMeta(group_uuid="group_1", task_uuids=["task_1"], lock=True, created_at=CREATED),
}


def build_signature(given: dict[str, Any]) -> Signature | None:
    if "keys" in given:
        return Signature(headers={key: number for number, key in enumerate(given["keys"], 1)})
    if "see" in given:
        return None
    attributes = {wire: attribute for attribute, wire in _NAMES.items()}
    signature = Signature(**{attributes[name]: value for name, value in given.items() if name != "ETA"})
    if "ETA" in given:
        signature.set_eta("10000-01-01T00:00:00Z" if given["ETA"] == "year 10000" else given["ETA"])
    return signature


def build_document(vector: dict[str, Any]) -> Any:
    """The object of a vector, or None where its input is told in words that we do not know."""
    if vector["name"] in TOLD:
        return TOLD[vector["name"]]()
    given = vector["input"]
    if vector["kind"] == "signature":
        return build_signature(given)
    names, document = (_STATE_NAMES, TaskState) if vector["kind"] == "taskstate" else (_GROUP_NAMES, GroupMeta)
    if isinstance(given.get("Results"), str) or "see" in given:
        return None
    attributes = {wire: attribute for attribute, wire in names.items()}
    return document(**{attributes[name]: value for name, value in given.items()})


DOCUMENTS: dict[str, Any] = {"signature": Signature, "taskstate": TaskState, "groupmeta": GroupMeta}


def is_error(vector: dict[str, Any]) -> bool:
    return bool(vector["bytes"].startswith(ERROR))


@pytest.mark.parametrize("vector", identified(ENCODE, lambda vector: vector["name"]))
def test_we_write_what_go_writes(vector: dict[str, Any]) -> None:
    if is_error(vector):
        with pytest.raises(EncodeError) as caught:
            build_arg(vector) if vector["kind"] == "arg" else build_document(vector).encode()
        assert str(caught.value) == vector["bytes"].removeprefix(ERROR)
    elif vector["kind"] == "arg":
        assert arg_bytes(build_arg(vector)).decode() == vector["bytes"]
    elif vector["kind"] in DOCUMENTS:
        document = build_document(vector)
        # What is only told in words is at least read and written again.
        document = DOCUMENTS[vector["kind"]].decode(vector["bytes"].encode()) if document is None else document
        assert document.encode().decode() == vector["bytes"]


@pytest.mark.parametrize(
    "vector", identified([vector for vector in ENCODE if not is_error(vector)], lambda vector: vector["name"])
)
def test_what_go_wrote_is_kept_to_the_byte(vector: dict[str, Any]) -> None:
    data = vector["bytes"].encode()
    if vector["kind"] == "arg":
        body = b'{"Args":[' + data + b"]}"
        assert arg_bytes(Signature.decode(body).args[0]) == data  # type: ignore[index]
        complete = Signature(args=[]).encode().replace(b'"Args":[]', b'"Args":[' + data + b"]")
        assert Signature.decode(complete).encode() == complete
    elif vector["kind"] in DOCUMENTS:
        assert DOCUMENTS[vector["kind"]].decode(data).encode() == data


# --- decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", identified(DECODE, lambda vector: vector["input"][:60] or "empty"))
def test_we_read_what_go_reads(vector: dict[str, Any]) -> None:
    body = bytes.fromhex(vector["inputHex"])
    if vector["error"] is None:
        assert Signature.decode(body).encode().decode() == vector["reencoded"]
        return
    with pytest.raises(DecodeError) as caught:
        Signature.decode(body)
    if not vector["error"].startswith("parsing time"):  # those differ between Go versions
        assert str(caught.value) == vector["error"]


# --- conversion -----------------------------------------------------------------------------------


def shown(type: str, value: Any) -> str:
    """A converted value as Go's ``%v`` shows it."""
    if isinstance(value, (bytes, list)):
        return f"[{' '.join(shown(type[2:], item) for item in value)}]"
    if isinstance(value, float):
        if abs(value) == float("inf"):
            return "+Inf" if value > 0 else "-Inf"
        return (gojson.format_float32 if type == "float32" else gojson.format_float)(value)
    return go_text(value)


@pytest.mark.parametrize("vector", identified(REFLECT, lambda vector: f"{vector['Type']}<-{vector['ValueJSON'][:40]}"))
def test_we_convert_as_go_converts(vector: dict[str, Any]) -> None:
    type, raw = vector["Type"], vector["ValueJSON"].encode()
    if vector["outcome"] != "ok":
        with pytest.raises(ArgumentError) as caught:
            decode_value(type, raw)
        if vector["outcome"] == "error":
            assert str(caught.value) == vector["text"]
        else:
            assert "panics" in str(caught.value)
            assert vector["text"] in str(caught.value)
        return
    value = decode_value(type, raw)
    assert shown(type, value) == vector["goValue"]
    if "goJSON" in vector:
        assert encode_value(type, value).decode() == vector["goJSON"]
    assert Arg.from_raw(type, raw).value == value
    if type == "float32":
        assert to_float32(value) == value
