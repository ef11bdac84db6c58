"""TaskStates and GroupMetas as the items that Go's DynamoDB backend reads and writes.

An item of a state always has the attributes that Go writes with PENDING: ``TaskUUID``, ``TaskName``,
``State``, ``Results``, ``Error``, ``CreatedAt`` and ``TTL``. What Python has to add is in ``Celery``,
which Go neither reads nor removes: it says of which state it is, so that it counts for that only.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Any

from machinery_compat import errors
from machinery_compat.backends import fence
from machinery_compat.backends.dynamo_client import Item
from machinery_compat.backends.dynamo_values import attribute_of, result_of, text_of
from machinery_compat.backends.limits import TooLarge
from machinery_compat.wire import FAILURE, SUCCESS, ZERO_TIME, GroupMeta, TaskState, gotime

__all__ = ["check_size", "expiring", "fitting", "group_item", "group_of", "state_item", "state_members", "state_of"]

#: Bytes of an item, with the names of its attributes, that DynamoDB takes at most.
LARGEST = 400 * 1024
#: Characters that stay of the text of an error that would be larger; each has at most 4 bytes.
ERROR_KEPT = 50_000
#: What one element of a list or a map costs beside its content, and a number at most, in bytes.
ELEMENT, NUMBER = 1, 21

SURROGATE = re.compile("[\ud800-\udfff]")


# -- tasks


def state_members(state: TaskState, expiry: int) -> tuple[Item, list[str]]:
    """A state as attributes to be set and attributes to be removed, without the key and what a sender has written.

    Args:
        state: the state.
        expiry: seconds after which the item of an ended task is deleted; 0 for never.
    """
    ended = state.state in (SUCCESS, FAILURE)
    results = [attribute_of(one) for one in state.results or () if one is not None] if state.state == SUCCESS else []
    members: Item = {
        "State": {"S": state.state},
        "Results": {"L": results} if results else {"NULL": True},
        "Error": {"S": _clean(state.error) if state.state == FAILURE else ""},
        **expiring(expiry if ended else 0),
    }
    if state.celery is None:
        return members, ["Celery"]
    extra = {"State": {"S": state.state}, "Extra": {"S": _clean(state.celery)}}
    if state.state == FAILURE:
        extra["Error"] = {"S": _digest(state)}
    if run := fence.written_by(state):
        extra["Run"] = {"N": str(run)}
    members["Celery"] = {"M": extra}
    return members, []


def state_item(state: TaskState, expiry: int) -> Item:
    """A state as a whole item."""
    members, _ = state_members(state, expiry)
    return {
        "TaskUUID": {"S": state.task_uuid},
        "TaskName": {"S": _clean(state.task_name)},
        "CreatedAt": {"S": state.created_at},
        **members,
    }


def state_of(item: Item) -> TaskState:
    """The TaskState in an item.

    Raises:
        DecodeError: there is none.
    """
    state = TaskState(
        task_uuid=text_of(item, "TaskUUID"),
        task_name=text_of(item, "TaskName"),
        state=text_of(item, "State"),
        created_at=_time(item),
        ttl=_seconds(item),
    )
    if state.state == SUCCESS:
        state.results = [None if "NULL" in one else result_of(one) for one in _list(item, "Results") or ()]
    if state.state == FAILURE:
        state.error = text_of(item, "Error")
    extra = item.get("Celery", {}).get("M")
    if extra and (text_of(extra, "State"), text_of(extra, "Error")) == (state.state, _digest(state)):
        state.celery = text_of(extra, "Extra") or None
    return state


def fitting(state: TaskState, expiry: int, known: int) -> tuple[Item, list[str]]:
    """The attributes of :func:`state_members`, with a failure's text cut where it is larger than DynamoDB takes.

    A failure that could not be stored would leave whoever waits for the task without an end.

    Args:
        state: the state.
        expiry: as there.
        known: bytes that the item has beside them.

    Raises:
        TooLarge: something else is.
    """
    members, gone = state_members(state, expiry)
    if state.state == FAILURE and size_of(members) + known > LARGEST:
        cut = TaskState(task_uuid=state.task_uuid, state=FAILURE, error=_cut(state.error))
        fence.sign(cut, fence.written_by(state))
        members, gone = state_members(cut, expiry)
    check_size(state.task_uuid, members, known)
    return members, gone


def _cut(text: str) -> str:
    return text if len(text) <= ERROR_KEPT else f"{text[:ERROR_KEPT]}… ({len(text)} characters)"


def _digest(state: TaskState) -> str:
    """What tells a failure from another one; the text itself would make the item twice as large."""
    return hashlib.sha256(_clean(state.error).encode()).hexdigest()[:16] if state.state == FAILURE else ""


def _clean(text: str) -> str:
    """A text without what is no UTF-8, for which Go writes this sign."""
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)


def expiring(expiry: int) -> Item:
    """The attribute that says when an item may be deleted; Go's 0 is so long ago that it counts for none."""
    return {"TTL": {"N": str(int(time.time()) + expiry if expiry else 0)}}


def _time(item: Item) -> str:
    text = text_of(item, "CreatedAt")
    return gotime.parse_time(text) if text else ZERO_TIME


def _seconds(item: Item) -> int:
    text = item.get("TTL", {}).get("N", "0")
    try:
        return int(text)
    except ValueError:
        raise errors.DecodeError(f"its TTL is no time but {text[:40]}") from None


def _list(item: Item, name: str) -> Sequence[dict[str, Any]] | None:
    attribute = item.get(name, {"NULL": True})
    if "NULL" in attribute:
        return None
    if "L" not in attribute:
        raise errors.DecodeError(f"its {name} are no list")
    found: Sequence[dict[str, Any]] = attribute["L"]
    return found


# -- groups


def group_item(meta: GroupMeta, expiry: int) -> Item:
    item: Item = {
        "GroupUUID": {"S": meta.group_uuid},
        "TaskUUIDs": {"NULL": True} if meta.task_uuids is None else {"L": [{"S": one} for one in meta.task_uuids]},
        "ChordTriggered": {"BOOL": meta.chord_triggered},
        "Lock": {"BOOL": meta.lock},
        "CreatedAt": {"S": meta.created_at},
        **expiring(expiry),
    }
    if meta.celery is not None:
        item["Celery"] = {"S": meta.celery}
    return item


def group_of(item: Item) -> GroupMeta:
    """The GroupMeta in an item.

    Raises:
        DecodeError: there is none.
    """
    members = _list(item, "TaskUUIDs")
    if members is not None and not all("S" in one for one in members):
        raise errors.DecodeError("its TaskUUIDs are no texts")
    return GroupMeta(
        group_uuid=text_of(item, "GroupUUID"),
        task_uuids=None if members is None else [one["S"] for one in members],
        chord_triggered=item.get("ChordTriggered", {}).get("BOOL") is True,
        lock=item.get("Lock", {}).get("BOOL") is True,
        created_at=_time(item),
        ttl=_seconds(item),
        celery=text_of(item, "Celery") or None,
    )


# -- sizes


def check_size(uuid: str, item: Item, known: int = 0) -> None:
    """Refuses what DynamoDB would.

    Args:
        uuid: whose item it is.
        item: attributes.
        known: bytes that the item has beside them.

    Raises:
        TooLarge: it has more than 400 KB.
    """
    size = size_of(item) + known
    if size > LARGEST:
        raise TooLarge(
            f"the document of {uuid} has {size} bytes, more than the {LARGEST} that DynamoDB takes; "
            "return a reference to the data instead"
        )


def size_of(item: Item) -> int:
    """Bytes of attributes, as DynamoDB counts them or a little more."""
    return sum(_length(name) + _size(attribute) for name, attribute in item.items())


def _size(attribute: dict[str, Any]) -> int:
    ((kind, value),) = attribute.items()
    if kind == "S":
        return _length(value)
    if kind == "B":
        return len(value)
    if kind == "N":
        return min(len(value), NUMBER)
    if kind == "L":
        return 3 + sum(_size(one) + ELEMENT for one in value)
    if kind == "M":
        return 3 + size_of(value) + ELEMENT * len(value)
    return 1


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
