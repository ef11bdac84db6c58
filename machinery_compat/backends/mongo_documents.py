"""TaskStates and GroupMetas as the documents that Go's MongoDB backend reads and writes.

Go reads a result back from MongoDB only where the document has one of a few types. So what Python
writes is not always what Go would write, but always what Go can read, if anything can be:

* integers as 64 bits, also those of smaller types, which Go writes with 32 bits and cannot read;
* unsigned ones above 64 bits with a sign as text (Go cannot write them);
* ``[]byte`` as its base64 text (Go writes binary data, and panics when it reads them);
* a text that holds a JSON object as text (Go writes its members, as a type that it does not know).
"""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
from bson import Int64

from machinery_compat import errors
from machinery_compat.backends import fence
from machinery_compat.wire import FAILURE, SUCCESS, ZERO_TIME, GroupMeta, TaskResult, TaskState, gojson, gotime

__all__ = ["group_document", "group_of", "state_document", "state_of"]

#: The type that Go gives to a text with a JSON object.
GO_JSON = "json"
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DIGITS = re.compile(r"[0-9]{1,20}")
_INT64 = range(-(2**63), 2**63)


# -- tasks


def state_document(state: TaskState, expiry: int) -> tuple[dict[str, Any], list[str]]:
    """A state as members to be set and members to be removed, without ``_id`` and what a sender has written.

    Args:
        state: the state.
        expiry: seconds after which the document of an ended task is deleted; 0 for never.
    """
    members: dict[str, Any] = {"state": state.state}
    if state.state == SUCCESS:
        members["results"] = [_result_document(result) for result in state.results or () if result is not None]
    if state.state == FAILURE:
        members["error"] = state.error
    if state.state in (SUCCESS, FAILURE) and expiry:
        members["delete_at"] = datetime.now(timezone.utc) + timedelta(seconds=expiry)
    if state.celery is not None:
        # Go leaves it where it is: it counts as long as the state is the one that it came with.
        members["celery"] = {"state": state.state, "error": state.error, "extra": state.celery}
        if run := fence.written_by(state):
            members["celery"]["run"] = run
    return members, [name for name in ("results", "error", "delete_at", "celery") if name not in members]


def created(text: str) -> datetime:
    """A time in Go's form as MongoDB keeps it, in whole milliseconds."""
    moment = gotime.to_datetime(text)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def state_of(document: dict[str, Any]) -> TaskState:
    """The TaskState in a document.

    Raises:
        DecodeError: there is none.
    """
    state = TaskState(
        task_uuid=_text(document, "_id"),
        task_name=_text(document, "task_name"),
        state=_text(document, "state"),
        created_at=_time(document.get("created_at")),
    )
    if state.state == SUCCESS:
        results = document.get("results")
        if not isinstance(results, (list, type(None))):
            raise errors.DecodeError("its results are no array")
        state.results = [None if result is None else _result(result) for result in results or ()]
    if state.state == FAILURE:
        state.error = _text(document, "error")
    extra = document.get("celery")
    if isinstance(extra, dict) and (extra.get("state"), extra.get("error")) == (state.state, state.error):
        state.celery = _text(extra, "extra") or None
    return state


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise errors.DecodeError(f"its {name} is no text but {type(value).__name__}")
    return value


def _time(value: Any) -> str:
    if value is None:
        return ZERO_TIME
    if not isinstance(value, datetime):
        raise errors.DecodeError("its created_at is no time")
    moment = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    return gotime.time_from_ns((moment - _EPOCH) // timedelta(microseconds=1) * 1000)


# -- results


def _result_document(result: TaskResult) -> dict[str, Any]:
    document = {"type": result.type, "value": _stored(result.type, msgspec.json.decode(result.raw))}
    if result.celery is not None:
        document["celery"] = result.celery
    return document


def _stored(kind: str, value: Any) -> Any:
    """A decoded JSON value as BSON."""
    if isinstance(value, list):
        return [_stored(kind.removeprefix("[]"), one) for one in value]
    if isinstance(value, dict):
        return {name: _stored("", one) for name, one in value.items()}
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if kind.startswith("float") or isinstance(value, float):
        return float(value)
    return Int64(value) if value in _INT64 else str(value)


def _result(document: Any) -> TaskResult:
    if not isinstance(document, dict):
        raise errors.DecodeError("one of its results is no document")
    kind, value = _text(document, "type"), document.get("value")
    if kind == GO_JSON:
        # What the task has returned was a text.
        kind, value = "string", _dumps(value).decode()
    return TaskResult.from_raw(kind, _raw(kind, value), _text(document, "celery") or None)


def _raw(kind: str, value: Any) -> bytes:
    element = kind.removeprefix("[]")
    if isinstance(value, list) and kind != element:
        return b"[" + b",".join(_raw(element, one) for one in value) + b"]"
    if isinstance(value, str) and kind.startswith("uint") and _DIGITS.fullmatch(value):
        return value.encode()
    if isinstance(value, bytes):
        return b'"' + b64encode(value) + b'"'
    if kind == "float32" and isinstance(value, float):
        return gojson.format_float32(value).encode()
    return _dumps(value)


def _dumps(value: Any) -> bytes:
    try:
        return gojson.dumps(_plain(value))
    except errors.EncodeError as exc:
        raise errors.DecodeError(f"one of its results cannot be read: {exc}") from exc


def _plain(value: Any) -> Any:
    """A value of BSON as JSON knows it."""
    if isinstance(value, Int64):
        return int(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


# -- groups


def group_document(meta: GroupMeta) -> dict[str, Any]:
    document: dict[str, Any] = {
        "_id": meta.group_uuid,
        "task_uuids": meta.task_uuids,
        "chord_triggered": meta.chord_triggered,
        "lock": meta.lock,
        "created_at": created(meta.created_at),
    }
    if meta.celery is not None:
        document["celery"] = meta.celery
    return document


def group_of(document: dict[str, Any]) -> GroupMeta:
    """The GroupMeta in a document.

    Raises:
        DecodeError: there is none.
    """
    uuids = document.get("task_uuids")
    if uuids is not None and not (isinstance(uuids, list) and all(isinstance(uuid, str) for uuid in uuids)):
        raise errors.DecodeError("its task_uuids are no array of texts")
    return GroupMeta(
        group_uuid=_text(document, "_id"),
        task_uuids=uuids,
        chord_triggered=document.get("chord_triggered") is True,
        lock=document.get("lock") is True,
        created_at=_time(document.get("created_at")),
        celery=_text(document, "celery") or None,
    )
