"""Arg, Signature and what is built of them; TaskState and GroupMeta."""

from __future__ import annotations

import copy
import pickle
import re
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from machinery_compat import wire
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
    new_group_uuid,
    new_signature,
    new_task_uuid,
    now_text,
)

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def test_the_public_names_are_there_once() -> None:
    assert len(set(wire.__all__)) == len(wire.__all__)
    assert all(hasattr(wire, name) for name in wire.__all__)


# --- Arg ------------------------------------------------------------------------------------------


def test_an_arg_names_its_type() -> None:
    arg = Arg("int32", 5, name="x")
    assert (arg.type, arg.name, arg.raw, arg.value) == ("int32", "x", b"5", 5)
    assert Arg("int32", 5).name == ""


def test_an_arg_is_checked_at_once() -> None:
    with pytest.raises(EncodeError, match="between -128 and 127"):
        Arg("int8", 128)


def test_an_arg_infers_its_type() -> None:
    assert Arg.infer(5) == Arg("int64", 5)
    assert Arg.infer([], list[int]) == Arg("[]int64", [])
    assert Arg.infer([]) == Arg("[]string", [])
    assert Arg.infer(5, wire.Uint8, name="n") == Arg("uint8", 5, "n")


def test_an_arg_of_raw_text_is_brought_into_go_s_form() -> None:
    arg = Arg.from_raw("x", b' {"b" : 1.50, "a": ["<", "\\u00e9"]} ')
    assert arg.raw == b'{"a":["\\u003c","\xc3\xa9"],"b":1.50}'
    with pytest.raises(DecodeError):
        Arg.from_raw("int64", b"1-2")


def test_an_arg_whose_value_does_not_fit_says_so_when_read() -> None:
    arg = Arg.from_raw("int64", b'"5"')
    with pytest.raises(ArgumentError, match="5 is not int64"):
        _ = arg.value


def test_args_can_be_copied_and_pickled() -> None:
    for made in (Arg("string", "x", "n"), TaskResult("int64", 1, "more")):
        assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301
        assert copy.copy(made) == copy.deepcopy(made) == made
        assert made != Arg("string", "y", "n")
        assert made.type in repr(made)


# --- Signature ------------------------------------------------------------------------------------


def test_a_new_signature_is_filled_like_go_s() -> None:
    signature = new_signature("add", 1, Arg("int32", 2), "x", retry_count=3, routing_key="q")
    assert re.fullmatch("task_" + UUID4, signature.uuid)
    assert signature.args == [Arg("int64", 1), Arg("int32", 2), Arg("string", "x")]
    assert (signature.name, signature.retry_count, signature.routing_key) == ("add", 3, "q")
    assert signature.headers is None
    assert new_signature("t").args == []
    assert new_signature("t", uuid="mine").uuid == "mine"
    with pytest.raises(TypeError):
        new_signature("t", no_such_field=1)


def test_uuids_have_machinery_s_form() -> None:
    assert re.fullmatch("task_" + UUID4, new_task_uuid())
    assert re.fullmatch("group_" + UUID4, new_group_uuid())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (datetime(2024, 1, 2, 3, 4, 5, 600_000, tzinfo=timezone.utc), "2024-01-02T03:04:05.6Z"),
        (datetime(2024, 1, 2, 3, 4, 5), "2024-01-02T03:04:05Z"),
        (datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2024-01-02T00:00:00+05:30"),
        (datetime(2024, 1, 2, tzinfo=timezone(-timedelta(hours=8))), "2024-01-02T00:00:00-08:00"),
        (datetime(2024, 1, 2, tzinfo=timezone(timedelta(seconds=3601))), "2024-01-02T00:00:00+01:00"),
        ("2024-02-29T23:59:59.120-00:00", "2024-02-29T23:59:59.12Z"),
        (None, None),
    ],
)
def test_an_eta_is_kept_in_go_s_form(given: Any, text: str | None) -> None:
    signature = new_signature("t", eta=given)
    assert signature.eta == text
    assert Signature.decode(signature.encode()) == signature


@pytest.mark.parametrize(
    ("zone", "read"),
    [("+14:60", "+15:00"), ("-00:60", "-01:00"), ("+24:00", "+24:00"), ("-23:60", "-24:00"), ("-24:59", "-24:59")],
)
def test_offsets_that_go_reads_are_read(zone: str, read: str) -> None:
    signature = Signature.decode(b'{"ETA":"2024-01-02T03:04:05%s"}' % zone.encode())

    assert signature.eta == f"2024-01-02T03:04:05{read}"
    assert signature.eta_time is not None
    if "24" not in read:
        assert b'05%s"' % read.encode() in signature.encode()
    else:
        with pytest.raises(EncodeError, match=r"timezone hour outside of range \[0,23\]"):
            signature.encode()


def test_a_state_whose_time_cannot_be_written_again_is_refused() -> None:
    for document in (TaskState, GroupMeta):
        with pytest.raises(DecodeError, match="timezone hour outside of range"):
            document.decode(b'{"CreatedAt":"2024-01-02T03:04:05+24:00"}')


@pytest.mark.parametrize("zone", ["+25:00", "+24:60", "+00:61", "+99:99"])
def test_offsets_that_go_refuses_are_refused(zone: str) -> None:
    with pytest.raises(DecodeError, match="time zone offset out of range"):
        Signature.decode(b'{"ETA":"2024-01-02T03:04:05%s"}' % zone.encode())


def test_an_eta_is_exact_to_the_nanosecond() -> None:
    signature = Signature()
    assert (signature.eta_ns, signature.eta_time) == (None, None)
    signature.set_eta("2026-11-24T04:33:02.000043144Z")
    assert signature.eta_ns == 1795494782000043144
    assert signature.eta_time == datetime(2026, 11, 24, 4, 33, 2, 43, tzinfo=timezone.utc)
    signature.set_eta("1969-12-31T23:59:59.5+01:00")
    assert signature.eta_ns == -3_600_500_000_000
    for end in ("0000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:00"):
        signature.set_eta(end)
        assert signature.eta_time is not None


def test_an_eta_that_is_no_time_is_refused() -> None:
    signature = Signature()
    for given in ("", "tomorrow", "2024-02-30T00:00:00Z", "10000-01-01T00:00:00Z", 5):
        with pytest.raises(EncodeError):
            signature.set_eta(given)  # type: ignore[arg-type]
    signature.eta = "tomorrow"
    with pytest.raises(EncodeError, match="tomorrow"):
        signature.encode()
    signature.eta = "2024-01-02T03:04:05.50+00:00"
    assert b'"2024-01-02T03:04:05.5Z"' in signature.encode()


@pytest.mark.parametrize(
    "fields", [{"priority": 256}, {"priority": -1}, {"retry_count": 2**63}, {"group_task_count": -(2**63) - 1}]
)
def test_what_go_could_not_read_back_is_refused(fields: dict[str, int]) -> None:
    for signature in (Signature(**fields), Signature(on_success=[Signature(**fields)])):  # type: ignore[arg-type]
        with pytest.raises(EncodeError, match="out of range"):
            signature.encode()


def test_headers_are_written_as_go_writes_maps() -> None:
    signature = Signature(headers={"b": 1.0, "a": {"z": [1e21, GoNumber("1.50"), b"hi"], "y": None}, "<": "\u2028"})
    expected = b'{"\\u003c":"\\u2028","a":{"y":null,"z":[1e+21,1.50,"aGk="]},"b":1}'
    assert b'"Headers":' + expected + b"," in signature.encode()
    with pytest.raises(EncodeError, match="datetime"):
        Signature(headers={"a": datetime(2024, 1, 1)}).encode()
    with pytest.raises(EncodeError, match="is no text"):
        Signature(headers={1: "x"}).encode()  # type: ignore[dict-item]


def test_numbers_of_foreign_headers_keep_their_spelling() -> None:
    numbers = b'{"a":1.50E+2,"b":-0,"c":123456789012345678901234567890,"d":[1.0]}'
    body = Signature(headers={}).encode().replace(b'"Headers":{}', b'"Headers":' + numbers)
    signature = Signature.decode(body)
    assert signature.encode() == body
    assert signature.headers is not None
    assert signature.headers["c"] == 123456789012345678901234567890
    assert isinstance(signature.headers["a"], GoNumber)


def test_a_value_is_the_same_however_it_is_spelled() -> None:
    body = b'{"Args":[{"Type":"string","Value":"\\f\\u0041"},{"Type":"x","Value":{"b":1, "a":2}}]}'
    signature = Signature.decode(body)
    assert signature.args == [Arg("string", "\fA"), Arg.from_raw("x", b'{"a":2,"b":1}')]
    assert rb'"Value":"\u000cA"' in signature.encode()
    assert signature.args != [Arg("string", "\fA"), Arg.from_raw("x", b'{"a":2,"b":1}', name="n")]


def test_a_subset_is_a_signature() -> None:
    signature = Signature.decode(b'{"UUID":"task_x","Name":"add","Args":[]}')
    assert signature == Signature(uuid="task_x", name="add", args=[])


REPEATED = [
    (b'{"Headers":{"a":1},"Headers":{"b":2}}', b'"Headers":{"a":1,"b":2}'),
    (b'{"Headers":{"a":1},"\\u0048eaders":{}}', b'"Headers":{"a":1}'),
    (b'{"Headers":{"a":1},"Headers":null}', b'"Headers":null'),
    (
        b'{"Args":[{"Type":"a","Value":1},{"Type":"b"}],"Args":[{"Value":2}]}',
        b'"Args":[{"Name":"","Type":"a","Value":2}]',
    ),
    (b'{"Args":[{"Type":"a"}],"Args":[null]}', b'"Args":[{"Name":"","Type":"a","Value":null}]'),
    (b'{"ChordCallback":{"UUID":"u"},"ChordCallback":{"Name":"n"}}', b'"ChordCallback":{"UUID":"u","Name":"n"'),
    (b'{"OnError":[{"UUID":"u"}],"OnError":[{"Name":"n"}]}', b'"OnError":[{"UUID":"u","Name":"n"'),
]


@pytest.mark.parametrize(("body", "part"), REPEATED)
def test_repeated_members_merge_as_in_go(body: bytes, part: bytes) -> None:
    assert part in Signature.decode(body).encode()
    inside = b'{"OnSuccess":[' + body + b',{"Args":null}]}'
    assert part in Signature.decode(inside).encode()


def test_a_repetition_is_found_in_a_complete_tree() -> None:
    full = Signature(on_success=[Signature(headers={})]).encode()
    body = full.replace(b'"Headers":{}', b'"Headers":{"a":"x"},"Headers":{}')
    decoded = Signature.decode(body)
    assert decoded.on_success == [Signature(headers={"a": "x"})]


def test_text_that_is_no_utf8_is_written_as_go_does() -> None:
    broken = b"a\xffb".decode("utf-8", "surrogateescape")
    signature = Signature(name=broken, args=[Arg("string", broken)], headers={broken: broken})
    assert signature.encode().count(rb"a\ufffdb") == 4
    assert TaskState(error=broken).encode().count(rb"a\ufffdb") == 1
    assert GroupMeta(task_uuids=[broken]).encode().count(rb"a\ufffdb") == 1


def test_a_long_chain_needs_no_recursion() -> None:
    steps = [new_signature("add", 1, routing_key="q") for _ in range(4_000)]
    first = Chain(*steps).tasks[0]
    start = time.perf_counter()
    data = first.encode()
    assert Signature.decode(data).encode() == data
    assert first.copy().encode() == data
    assert time.perf_counter() - start < 30  # far from quadratic


@pytest.mark.parametrize("opening", [b'{"OnError":[', b'{"OnSuccess":[null,', b'{"ChordCallback":'])
def test_deep_nesting_of_any_kind_needs_no_recursion(opening: bytes) -> None:
    closing = b"}" if opening.endswith(b":") else b"]}"
    data = opening * 4_000 + b"{}" + closing * 4_000
    signature = Signature.decode(data)
    assert Signature.decode(signature.encode()).encode() == signature.copy().encode()


def test_nesting_that_go_would_not_read_is_refused() -> None:
    with pytest.raises(EncodeError, match="deeper than Go reads"):
        Chain(*[Signature() for _ in range(5_100)]).tasks[0].encode()
    loop = Signature()
    loop.on_success = [loop]
    with pytest.raises(EncodeError, match="deeper than Go reads"):
        loop.encode()
    assert loop.copy().on_success is not None


def test_a_signature_can_be_pickled() -> None:
    signature = new_signature("t", 1, on_success=[new_signature("u", [1.5])], headers={"n": GoNumber("1.0")})
    assert pickle.loads(pickle.dumps(signature)) == signature  # noqa: S301
    assert copy.deepcopy(signature) == signature


def test_a_field_that_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(EncodeError, match="the signature for 't'"):
        Signature(name="t", uuid=object()).encode()  # type: ignore[arg-type]


# --- chains, groups, chords -----------------------------------------------------------------------


def test_a_chain_links_each_task_to_the_next() -> None:
    steps = [Signature(name="a", on_success=[Signature()]), Signature(name="b", uuid="mine"), Signature(name="c")]
    chain = Chain(*steps)
    assert chain.tasks == steps
    assert steps[0].on_success == [steps[1]]
    assert steps[1].on_success == [steps[2]]
    assert steps[2].on_success is None
    assert steps[1].uuid == "mine"
    assert re.fullmatch("task_" + UUID4, steps[2].uuid)


def test_a_group_marks_its_members() -> None:
    members = [Signature(name="a", uuid="mine", group_uuid="old"), Signature(name="b")]
    group = Group(*members)
    assert re.fullmatch("group_" + UUID4, group.group_uuid)
    assert {(member.group_uuid, member.group_task_count) for member in members} == {(group.group_uuid, 2)}
    assert group.get_uuids() == ["mine", members[1].uuid]
    assert group.tasks == members


def test_a_chord_gives_each_member_its_own_callback() -> None:
    group = Group(Signature(name="a"), Signature(name="b"))
    chord = Chord(group, Signature(name="sum"))
    assert re.fullmatch("chord_" + UUID4, chord.callback.uuid)
    first, second = (member.chord_callback for member in chord.group.tasks)
    assert first == second == chord.callback
    assert first is not second
    assert first is not chord.callback


# --- states ---------------------------------------------------------------------------------------


def test_our_extra_members_are_absent_when_unset_and_last_when_set() -> None:
    state = TaskState(task_uuid="t", results=[TaskResult("int64", 1), TaskResult("int64", 1, celery="é<")], celery="{}")
    data = state.encode()
    assert b'{"Type":"int64","Value":1},{"Type":"int64","Value":1,"Celery":"\xc3\xa9\\u003c"}' in data
    assert data.endswith(b'"TTL":0,"Celery":"{}"}')
    assert TaskState.decode(data) == state
    group = GroupMeta(group_uuid="g", celery='","Celery":null}')
    assert GroupMeta.decode(group.encode()) == group
    assert GroupMeta().encode().endswith(b'"TTL":0}')


def test_an_extra_member_that_is_not_ours_is_ignored() -> None:
    assert TaskState.decode(b'{"State":"SUCCESS","Celery":{"a":1},"celery":"x","more":1}') == TaskState(state="SUCCESS")
    assert GroupMeta.decode(b'{"Lock":true,"Celery":5}') == GroupMeta(lock=True)


def test_repeated_results_merge_as_in_go() -> None:
    body = b'{"Results":[{"Type":"int64"}],"Results":[{"Value":1}]}'
    assert TaskState.decode(body).results == [TaskResult("int64", 1)]
    hidden = b'{"Results":[{"Type":"int64"}],"\\u0052esults":[{"Value":1}]}'
    assert TaskState.decode(hidden).results == [TaskResult("int64", 1)]


def test_a_document_of_another_shape_is_refused_in_go_s_words() -> None:
    with pytest.raises(DecodeError, match=r"cannot unmarshal array into Go value of type tasks\.TaskState"):
        TaskState.decode(b"[]")
    with pytest.raises(DecodeError, match=r"string into Go struct field GroupMeta\.TaskUUIDs of type \[\]string"):
        GroupMeta.decode(b'{"TaskUUIDs":"x"}')
    with pytest.raises(
        DecodeError, match=r"number into Go struct field TaskState\.Results of type \[\]\*tasks\.TaskResult"
    ):
        TaskState.decode(b'{"Results":1}')


def test_now_is_utc_in_go_s_form() -> None:
    text = now_text()
    state = TaskState(created_at=text)
    assert TaskState.decode(state.encode()).created_at == text
    assert text.endswith("Z")
    signature = Signature(eta=text)
    assert signature.eta_ns is not None
    assert abs(signature.eta_ns - time.time_ns()) < 60 * 10**9
