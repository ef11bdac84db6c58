"""What Machinery keeps of a task and of a group in the result store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec

from machinery_compat.errors import EncodeError
from machinery_compat.wire import gojson, gotime
from machinery_compat.wire.gotime import ZERO_TIME, now_text
from machinery_compat.wire.gotypes import encode_value, infer_type
from machinery_compat.wire.gounmarshal import Spec, unmarshal
from machinery_compat.wire.values import Typed, is_odd, settle

__all__ = [
    "FAILURE",
    "PENDING",
    "RECEIVED",
    "RETRY",
    "STARTED",
    "SUCCESS",
    "GroupMeta",
    "TaskResult",
    "TaskState",
    "now_text",
]

PENDING: Final = "PENDING"  # sent, by its producer
RECEIVED: Final = "RECEIVED"  # taken by a worker
STARTED: Final = "STARTED"
RETRY: Final = "RETRY"  # failed, sent again
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"

_Document = TypeVar("_Document", "TaskState", "GroupMeta")
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class TaskResult(
    Typed,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"type": "Type", "_raw": "Value", "celery": "Celery"},
):
    """One returned value: a type and the JSON text of the value.

    ``TaskResult("int64", 5)`` encodes and checks the value. `celery` is a member of ours that Go skips; it is absent
    from the bytes when None.
    """

    # No defaults here: what has one and holds it would be left out of the bytes.
    type: str
    _raw: msgspec.Raw
    celery: str | None = None

    if TYPE_CHECKING:

        def __init__(self, type: str, value: Any, celery: str | None = None) -> None: ...

    @classmethod
    def _new(cls, type: str, value: Any, celery: str | None = None) -> TaskResult:
        made: TaskResult = cls._fill(type=type, _raw=msgspec.Raw(encode_value(type, value)), celery=celery)
        return made

    @classmethod
    def from_raw(cls, type: str, raw: bytes, celery: str | None = None) -> TaskResult:
        """Make a TaskResult of JSON text; neither type nor value is checked against the other."""
        made: TaskResult = cls._fill(type=type, _raw=msgspec.Raw(gojson.canonical(bytes(raw))), celery=celery)
        return made

    @classmethod
    def infer(cls, value: Any, hint: Any = None, celery: str | None = None) -> TaskResult:
        """Make a TaskResult of a Python value, with the type that `infer_type` finds."""
        return cls(infer_type(value, hint), value, celery)

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskResult.from_raw, (self.type, self.raw, self.celery)


_STATE_NAMES = {
    "task_uuid": "TaskUUID",
    "task_name": "TaskName",
    "state": "State",
    "results": "Results",
    "error": "Error",
    "created_at": "CreatedAt",
    "ttl": "TTL",
    "celery": "Celery",
}
_GROUP_NAMES = {
    "group_uuid": "GroupUUID",
    "task_uuids": "TaskUUIDs",
    "chord_triggered": "ChordTriggered",
    "lock": "Lock",
    "created_at": "CreatedAt",
    "ttl": "TTL",
    "celery": "Celery",
}


class TaskState(msgspec.Struct, kw_only=True, gc=False, forbid_unknown_fields=True, rename=_STATE_NAMES):
    """The state of one task. `results` is None except after success; `celery` is ours and absent when None."""

    task_uuid: str = ""
    task_name: str = ""
    state: str = ""
    results: list[TaskResult | None] | None = None
    error: str = ""
    created_at: str = ZERO_TIME
    ttl: _Int64 = 0
    celery: str | None = None

    def encode(self) -> bytes:
        """Return the bytes that Go's ``json.Marshal`` gives for this state."""
        return _encode_document(self)

    @staticmethod
    def decode(data: bytes) -> TaskState:
        """Read a stored state as Go does.

        Raises:
            DecodeError: Go would refuse it; the text is Go's.
        """
        try:
            state = _decode_state(data)
        except _REFUSALS:
            return _decode_exactly(data, TaskState)
        if _is_go_time(state.created_at) is None or _may_repeat(data, b'"CreatedAt"'):
            return _decode_exactly(data, TaskState)
        results = state.results
        if results is None:
            return state
        objects = 1
        for result in results:  # not list.count, which would compare each with None
            if result is not None:
                objects += 1
        if len(data) - len(data.replace(b"{", b"")) != objects:
            # A structured value, or Results twice, which Go would merge.
            if _may_repeat(data, b'"Results"'):
                return _decode_exactly(data, TaskState)
        elif not is_odd(data):
            return state
        settle(result for result in results if result is not None)
        return state


class GroupMeta(msgspec.Struct, kw_only=True, gc=False, forbid_unknown_fields=True, rename=_GROUP_NAMES):
    """What the members of a group have in common. `celery` is ours and absent when None."""

    group_uuid: str = ""
    task_uuids: list[str] | None = None
    chord_triggered: bool = False
    lock: bool = False
    created_at: str = ZERO_TIME
    ttl: _Int64 = 0
    celery: str | None = None

    def encode(self) -> bytes:
        """Return the bytes that Go's ``json.Marshal`` gives for this group."""
        return _encode_document(self)

    @staticmethod
    def decode(data: bytes) -> GroupMeta:
        """Read a stored group as Go does.

        Raises:
            DecodeError: Go would refuse it; the text is Go's.
        """
        try:
            group = _decode_group(data)
        except _REFUSALS:
            return _decode_exactly(data, GroupMeta)
        # TaskUUIDs twice comes to the last of both, as in Go, since every element is replaced.
        if _is_go_time(group.created_at) is None or _may_repeat(data, b'"CreatedAt"'):
            return _decode_exactly(data, GroupMeta)
        return group


_REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_NO_EXTRA: Final = b',"Celery":null}'
_encode: Final = msgspec.json.Encoder().encode
_decode_state: Final = msgspec.json.Decoder(TaskState).decode
_decode_group: Final = msgspec.json.Decoder(GroupMeta).decode
_is_go_time: Final = re.compile(gotime.CANONICAL_TIME).match
_find_escaped_letter: Final = re.compile(rb"\\u00[4-7]").search


def _decode_exactly(data: bytes, document: type[_Document]) -> _Document:
    made: _Document = unmarshal(data, document.__name__, _SPECS)
    return made


def _may_repeat(data: bytes, name: bytes) -> bool:
    """Tell whether a member might stand twice, perhaps spelled with escapes."""
    return data.count(name) > 1 or (92 in data and _find_escaped_letter(data) is not None)


def _encode_document(document: TaskState | GroupMeta) -> bytes:
    if not -(2**63) <= document.ttl < 2**63:
        raise EncodeError(f"TTL {document.ttl} is out of range; Go has 64 bits for it")
    created_at = document.created_at
    if type(created_at) is not str or _is_go_time(created_at) is None:
        document.created_at = gotime.time_text(created_at)
    try:
        data = _encode(document)
    except UnicodeEncodeError:
        data = _encode(_with_quoted_text(document))
    if data.endswith(_NO_EXTRA):
        data = data[: -len(_NO_EXTRA)] + b"}"
    return gojson.escape(data)


def _with_quoted_text(document: TaskState | GroupMeta) -> Any:
    """Return a copy whose text that is no UTF-8 is already written out as Go does."""
    values = msgspec.structs.asdict(document)
    names = _STATE_NAMES if isinstance(document, TaskState) else _GROUP_NAMES
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = msgspec.Raw(gojson.quote(value))
        elif name == "task_uuids" and value is not None:
            values[name] = [msgspec.Raw(gojson.quote(uuid)) for uuid in value]
    return {names[name]: value for name, value in values.items()}


def _build(made: type[Any], names: dict[str, str]) -> Any:
    attributes = {wire: attribute for attribute, wire in names.items()}
    return lambda values: made(**{attributes[name]: value for name, value in values.items()})


_SPECS: Final = {
    "TaskState": Spec(
        "TaskState",
        {
            "TaskUUID": "string",
            "TaskName": "string",
            "State": "string",
            "Results": "[]*TaskResult",
            "Error": "string",
            "CreatedAt": "time",
            "TTL": "int64",
            "Celery": "extra",
        },
        _build(TaskState, _STATE_NAMES),
    ),
    "TaskResult": Spec(
        "TaskResult",
        {"Type": "string", "Value": "any", "Celery": "extra"},
        lambda values: TaskResult.from_raw(values.get("Type", ""), values.get("Value", b"null"), values.get("Celery")),
    ),
    "GroupMeta": Spec(
        "GroupMeta",
        {
            "GroupUUID": "string",
            "TaskUUIDs": "[]string",
            "ChordTriggered": "bool",
            "Lock": "bool",
            "CreatedAt": "time",
            "TTL": "int64",
            "Celery": "extra",
        },
        _build(GroupMeta, _GROUP_NAMES),
    ),
}
