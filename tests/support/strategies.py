"""Hypothesis strategies for everything that Machinery puts on the wire."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from machinery_compat.wire import Arg, GroupMeta, Signature, TaskResult, TaskState
from machinery_compat.wire.goconvert import INTEGERS
from machinery_compat.wire.gojson import to_float32

# Any text that is UTF-8, with the characters that Go escapes drawn more often than chance would.
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text('<>&"\\/\b\f\n\r\t\x00\x1f\x7f\u2028\u2029\ufffd\U0001f600é ab', max_size=12),
)
names = st.one_of(st.sampled_from(["", "add", "pkg.Task", "x y"]), texts)
int64s = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]))


def integers(type: str) -> st.SearchStrategy[int]:
    low, high = INTEGERS[type]
    return st.one_of(st.integers(low, high), st.sampled_from([low, high, 0]))


float64s = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e-6, 1e-7, 1e20, 1e21, 100.0, 5e-324, 1.7976931348623157e308]),
)
float32s = float64s.map(to_float32).filter(math.isfinite)

scalars: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    **{type: integers(type) for type in INTEGERS},
    "float32": float32s,
    "float64": float64s,
    "string": texts,
}
slices: dict[str, st.SearchStrategy[Any]] = {
    **{"[]" + type: st.lists(values, max_size=4) for type, values in scalars.items() if type != "uint8"},
    "[]uint8": st.binary(max_size=8),
    "[]byte": st.binary(max_size=8),
}
typed_values: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    [st.tuples(st.just(type), values) for type, values in {**scalars, **slices}.items()]
)
args = st.builds(lambda typed, name: Arg(typed[0], typed[1], name), typed_values, names)

header_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)
headers = st.one_of(st.none(), st.just({}), st.dictionaries(texts, header_values, max_size=4))

times = st.builds(
    "{}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}{}{}".format,
    st.integers(0, 9999).map("{:04d}".format),
    st.integers(1, 12),
    st.integers(1, 28),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 59),
    st.sampled_from(["", ".5", ".123456789", ".000000001"]),
    st.sampled_from(["Z", "+05:30", "-08:00", "+23:59"]),
)


def _signature_fields(callbacks: Any, callback: Any) -> st.SearchStrategy[Signature]:
    return st.builds(
        Signature,
        uuid=names,
        name=names,
        routing_key=names,
        eta=st.one_of(st.none(), times),
        group_uuid=names,
        group_task_count=int64s,
        args=st.one_of(st.none(), st.lists(args, max_size=3)),
        headers=headers,
        priority=st.integers(0, 255),
        immutable=st.booleans(),
        retry_count=int64s,
        retry_timeout=int64s,
        on_success=callbacks,
        on_error=callbacks,
        chord_callback=callback,
        broker_message_group_id=names,
        sqs_receipt_handle=names,
        stop_task_deletion_on_error=st.booleans(),
        ignore_when_task_not_registered=st.booleans(),
    )


_leaf_signatures = _signature_fields(st.sampled_from([None, [], [None]]), st.none())
signatures: st.SearchStrategy[Signature] = st.recursive(
    _leaf_signatures,
    lambda inner: _signature_fields(
        st.one_of(st.none(), st.lists(st.one_of(st.none(), inner), max_size=2)), st.one_of(st.none(), inner)
    ),
    max_leaves=4,
)

extras = st.one_of(st.none(), texts)
results = st.builds(lambda typed, celery: TaskResult(typed[0], typed[1], celery), typed_values, extras)
states = st.builds(
    TaskState,
    task_uuid=names,
    task_name=names,
    state=st.sampled_from(["", "PENDING", "SUCCESS", "FAILURE"]),
    results=st.one_of(st.none(), st.lists(st.one_of(st.none(), results), max_size=3)),
    error=texts,
    created_at=times,
    ttl=int64s,
    celery=extras,
)
groups = st.builds(
    GroupMeta,
    group_uuid=names,
    task_uuids=st.one_of(st.none(), st.lists(names, max_size=4)),
    chord_triggered=st.booleans(),
    lock=st.booleans(),
    created_at=times,
    ttl=int64s,
    celery=extras,
)

# Documents as a careless or hostile peer might write them: members missing, or there twice, or spelled in odd ways.
_TIMES = ['"2024-01-02T03:04:05Z"', '"2024-01-02T03:04:05.50Z"', '"2024-02-30T00:00:00Z"', '"x"', "null"]
_CALLBACKS = st.deferred(
    lambda: st.lists(st.one_of(_SIGNATURES, _COMPLETE, st.just("null")), max_size=2).map(
        lambda items: f"[{','.join(items)}]"
    )
)
_VALUES = st.sampled_from(
    [
        "1",
        "-0",
        '"a"',
        '"{"',
        "[1, 2]",
        '{"b":1,"a":{}}',
        '[{"b":1,"a":2}]',
        "null",
        '"<"',
        '"\\u0041"',
        '"\\"Headers\\""',
    ]
)
_HEADERS = st.sampled_from(["{}", "null", '{"a":1}', '{"b":"{"}', '{"a":{"c":1},"b":[{}]}', '{"a":-0}', '{"a":1.50}'])


def _object(members: dict[str, st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    pairs = st.sampled_from(sorted(members)).flatmap(lambda name: st.tuples(_spelled(name), members[name]))
    return st.lists(pairs, max_size=6).map(
        lambda found: "{" + ",".join(f'"{name}":{value}' for name, value in found) + "}"
    )


def _spelled(name: str) -> st.SearchStrategy[str]:
    odd = st.sampled_from([name.lower(), f"\\u{ord(name[0]):04x}{name[1:]}", name + "x"])
    return st.integers(0, 19).flatmap(lambda chance: odd if chance == 0 else st.just(name))


def _twice(complete: str, extra: str) -> str:
    """Put further members at the end of an object."""
    return complete if extra == "{}" else f"{complete[:-1]},{extra[1:]}"


_ARGUMENTS = st.one_of(
    st.tuples(_VALUES, st.sampled_from(["", "n"])).map(
        lambda arg: f'{{"Name":"{arg[1]}","Type":"x","Value":{arg[0]}}}'
    ),
    _object({"Name": st.just('"n"'), "Type": st.just('"string"'), "Value": _VALUES}),
    st.just("null"),
)
_SIGNATURES = _object(
    {
        "Name": st.sampled_from(['"add"', '"{"', "null"]),
        "ETA": st.sampled_from(_TIMES),
        "Args": st.lists(_ARGUMENTS, max_size=2).map(lambda items: f"[{','.join(items)}]"),
        "Headers": _HEADERS,
        "Immutable": st.sampled_from(["true", "false", "1"]),
        "RetryCount": st.sampled_from(["3", "-0", "1.0"]),
        "OnSuccess": _CALLBACKS,
        "OnError": _CALLBACKS,
        "ChordCallback": st.deferred(lambda: st.one_of(_SIGNATURES, _COMPLETE, st.just("null"))),
    }
)
_COMPLETE = st.builds(_twice, signatures.map(lambda made: made.encode().decode()), _SIGNATURES)
_RESULTS = st.one_of(
    _VALUES.map(lambda value: f'{{"Type":"x","Value":{value}}}'),
    _object({"Type": st.just('"x"'), "Value": _VALUES, "Celery": st.sampled_from(['"y"', "null"])}),
    st.just("null"),
)
_STATES = _object(
    {
        "State": st.sampled_from(['"SUCCESS"', '"{"', "null"]),
        "Results": st.lists(_RESULTS, max_size=2).map(lambda items: f"[{','.join(items)}]"),
        "CreatedAt": st.sampled_from(_TIMES),
        "TTL": st.sampled_from(["1", "-0", "1.0", "9223372036854775808"]),
        "Celery": st.sampled_from(['"y"', "null"]),
    }
)
_GROUPS = _object(
    {
        "TaskUUIDs": st.sampled_from(["null", "[]", '["a"]', '["b","c"]', '[null,"d"]']),
        "Lock": st.sampled_from(["true", "false", "null"]),
        "CreatedAt": st.sampled_from(_TIMES),
    }
)
foreign_signatures = st.one_of(_SIGNATURES, _COMPLETE)
foreign_states = st.one_of(_STATES, st.builds(_twice, states.map(lambda made: made.encode().decode()), _STATES))
foreign_groups = st.one_of(_GROUPS, st.builds(_twice, groups.map(lambda made: made.encode().decode()), _GROUPS))
