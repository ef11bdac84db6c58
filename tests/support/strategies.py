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
