"""What holds for every document, not only for the recorded ones."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from machinery_compat.errors import ArgumentError, DecodeError
from machinery_compat.wire import GroupMeta, Signature, TaskState, decode_value, encode_value, gojson
from machinery_compat.wire import message as message_module
from machinery_compat.wire import state as state_module
from machinery_compat.wire.goparse import parse
from machinery_compat.wire.gounmarshal import unmarshal
from tests.support import strategies

DOCUMENTS = [Signature, TaskState, GroupMeta]


@given(strategies.signatures)
def test_a_signature_survives_the_wire(signature: Signature) -> None:
    data = signature.encode()
    assert Signature.decode(data) == signature
    assert Signature.decode(data).encode() == data


@given(strategies.states)
def test_a_state_survives_the_wire(state: TaskState) -> None:
    data = state.encode()
    assert TaskState.decode(data) == state
    assert TaskState.decode(data).encode() == data


@given(strategies.groups)
def test_a_group_survives_the_wire(group: GroupMeta) -> None:
    data = group.encode()
    assert GroupMeta.decode(data) == group
    assert GroupMeta.decode(data).encode() == data


@given(strategies.signatures)
def test_the_quick_and_the_exact_reader_agree(signature: Signature) -> None:
    data = signature.encode()
    exact = unmarshal(data, "Signature", message_module._SPECS)
    assert exact == Signature.decode(data)
    assert exact.encode() == data


@given(strategies.signatures)
def test_the_quick_and_the_exact_writer_agree(signature: Signature) -> None:
    assert message_module._encode_exactly(signature) == signature.encode()


@given(strategies.signatures)
def test_a_copy_is_equal_and_apart(signature: Signature) -> None:
    before = signature.encode()
    copy = signature.copy()
    assert copy == signature
    copy.headers = {**(copy.headers or {}), "new": "x"}
    for arg in copy.args or []:
        arg.name += "!"
    for child in copy.on_success or []:
        if child is not None:
            child.name += "!"
    assert signature.encode() == before


@given(strategies.signatures, st.sampled_from([None, 1, "\t"]))
def test_a_body_in_another_layout_is_rewritten_as_go_would(signature: Signature, indent: Any) -> None:
    data = signature.encode()
    # An escaped U+FFFD stays escaped here: Go writes it so for bytes that were no UTF-8.
    assume("\ufffd" not in data.decode())
    # Python's layout: blanks, \u escapes, members in another order. Numbers keep their spelling: they travel through
    # the json module as marked text.
    numbers: set[str] = set()

    def mark(number: str) -> str:
        numbers.add(number)
        return "\uf8ff#" + number

    tree = json.loads(data, parse_int=mark, parse_float=mark)
    text = json.dumps(_reversed(tree), indent=indent)
    for number in numbers:
        text = text.replace(json.dumps("\uf8ff#" + number), number)
    assert Signature.decode(text.encode()).encode() == data


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _reversed(value[name]) for name in reversed(list(value))}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


@given(strategies.typed_values)
def test_a_value_survives_its_type(typed: tuple[str, Any]) -> None:
    type, value = typed
    decoded = decode_value(type, encode_value(type, value))
    assert decoded == value
    assert repr(decoded) == repr(value)  # which tells -0.0 from 0.0


@pytest.mark.parametrize("document", DOCUMENTS)
@given(data=st.one_of(st.binary(max_size=60), strategies.texts.map(str.encode)))
def test_arbitrary_bytes_are_read_or_refused(document: Any, data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        document.decode(data).encode()


@pytest.mark.parametrize("document", DOCUMENTS)
@given(data=st.data())
def test_a_damaged_document_is_read_or_refused(document: Any, data: st.DataObject) -> None:
    made: Any = {Signature: strategies.signatures, TaskState: strategies.states, GroupMeta: strategies.groups}[document]
    body = bytearray(data.draw(made).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not body:
            break
    try:
        again = document.decode(bytes(body))
    except DecodeError:
        return
    assert document.decode(again.encode()) == again


def outcome(read: Any, data: bytes) -> Any:
    try:
        return read(data).encode()
    except DecodeError as error:
        return str(error)


@settings(max_examples=500)
@given(strategies.foreign_signatures)
def test_the_quick_reader_merges_and_refuses_like_the_exact_one(text: str) -> None:
    def exactly(data: bytes) -> Any:
        return unmarshal(data, "Signature", message_module._SPECS)

    assert outcome(Signature.decode, text.encode()) == outcome(exactly, text.encode())


@settings(max_examples=500)
@given(strategies.foreign_states)
def test_the_quick_reader_of_states_agrees_with_the_exact_one(text: str) -> None:
    def exactly(data: bytes) -> Any:
        return unmarshal(data, "TaskState", state_module._SPECS)

    assert outcome(TaskState.decode, text.encode()) == outcome(exactly, text.encode())


@settings(max_examples=300)
@given(strategies.foreign_groups)
def test_the_quick_reader_of_groups_agrees_with_the_exact_one(text: str) -> None:
    def exactly(data: bytes) -> Any:
        return unmarshal(data, "GroupMeta", state_module._SPECS)

    assert outcome(GroupMeta.decode, text.encode()) == outcome(exactly, text.encode())


# Whole floats are spelled like integers by Go, so a reader in Python gives ints back: no floats here.
json_trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), strategies.texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(strategies.texts, inner, max_size=4)),
)


@given(json_trees)
def test_our_json_is_json(tree: Any) -> None:
    data = gojson.dumps(tree)
    assert json.loads(data) == tree
    assert gojson.dumps(parse(data)) == data
    assert gojson.canonical(data) == data


@given(strategies.float64s)
def test_a_float_survives_its_spelling(number: float) -> None:
    text = gojson.format_float(number)
    assert repr(float(text)) == repr(number)
    assert ("e" in text) == (number != 0 and not 1e-6 <= abs(number) < 1e21)


@given(json_trees)
def test_canonical_undoes_any_layout(tree: Any) -> None:
    assert json.loads(gojson.canonical(json.dumps(tree, indent=2).encode())) == tree
    raw, escaped = json.dumps(tree, ensure_ascii=False), json.dumps(tree)
    # Go writes what was no UTF-8 as \ufffd and the character itself as it is: both are canonical.
    assume("\ufffd" not in raw)
    assert gojson.canonical(raw.encode()) == gojson.canonical(escaped.encode())


@given(st.sampled_from(sorted({**strategies.scalars, **strategies.slices, "map[string]int": None})), json_trees)
def test_a_value_of_the_wrong_type_is_refused_in_one_way(type: str, tree: Any) -> None:
    with contextlib.suppress(ArgumentError):
        decode_value(type, gojson.dumps(tree))
