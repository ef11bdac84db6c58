"""Codecs written with Python's json module, from the barest to one that does what `machinery_compat.wire` does."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from machinery_compat.wire import Arg, GoNumber, Signature, TaskResult, TaskState

_HTML = re.compile("[<>&\u2028\u2029]")
_ATTRIBUTES = {field.encode_name: field.name for field in msgspec.structs.fields(Signature)}
_STATE_ATTRIBUTES = {field.encode_name: field.name for field in msgspec.structs.fields(TaskState)}
_NOTHING = type(None)
_KINDS = {
    "ETA": (str, _NOTHING),
    "GroupTaskCount": GoNumber,
    "Args": (list, _NOTHING),
    "Headers": (dict, _NOTHING),
    "Priority": GoNumber,
    "Immutable": bool,
    "RetryCount": GoNumber,
    "RetryTimeout": GoNumber,
    "OnSuccess": (list, _NOTHING),
    "OnError": (list, _NOTHING),
    "ChordCallback": (dict, _NOTHING),
    "StopTaskDeletionOnError": bool,
    "IgnoreWhenTaskNotRegistered": bool,
    "Results": (list, _NOTHING),
    "TTL": GoNumber,
}


# --- bare json ------------------------------------------------------------------------------------


def dumps(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


def loads_and_read(body: bytes) -> Any:
    tree = json.loads(body)
    return tree["Name"], tree["UUID"], [arg["Value"] for arg in tree["Args"]]


# --- to and from a Signature, unchecked -----------------------------------------------------------


def dumps_unchecked(made: Signature) -> bytes:
    return dumps(_tree(made) or {})


def _tree(made: Signature | None) -> dict[str, Any] | None:
    if made is None:
        return None
    tree = {name: getattr(made, attribute) for name, attribute in _ATTRIBUTES.items()}
    if made.args is not None:
        tree["Args"] = [{"Name": arg.name, "Type": arg.type, "Value": arg.value} for arg in made.args]
    if made.on_success is not None:
        tree["OnSuccess"] = [_tree(callback) for callback in made.on_success]
    if made.on_error is not None:
        tree["OnError"] = [_tree(callback) for callback in made.on_error]
    tree["ChordCallback"] = _tree(made.chord_callback)
    return tree


def loads_unchecked(body: bytes) -> Signature:
    return _made(json.loads(body))


def _made(tree: dict[str, Any]) -> Signature:
    # Spelled out, since that is quicker than any loop over the members.
    args, callback = tree["Args"], tree["ChordCallback"]
    on_success, on_error = tree["OnSuccess"], tree["OnError"]
    return Signature(
        uuid=tree["UUID"],
        name=tree["Name"],
        routing_key=tree["RoutingKey"],
        eta=tree["ETA"],
        group_uuid=tree["GroupUUID"],
        group_task_count=tree["GroupTaskCount"],
        args=args and [Arg._fill(name=arg["Name"], type=arg["Type"], _raw=arg["Value"]) for arg in args],
        headers=tree["Headers"],
        priority=tree["Priority"],
        immutable=tree["Immutable"],
        retry_count=tree["RetryCount"],
        retry_timeout=tree["RetryTimeout"],
        on_success=on_success and [_made(one) for one in on_success],
        on_error=on_error and [_made(one) for one in on_error],
        chord_callback=callback and _made(callback),
        broker_message_group_id=tree["BrokerMessageGroupId"],
        sqs_receipt_handle=tree["SQSReceiptHandle"],
        stop_task_deletion_on_error=tree["StopTaskDeletionOnError"],
        ignore_when_task_not_registered=tree["IgnoreWhenTaskNotRegistered"],
    )


# --- json, same job -------------------------------------------------------------------------------


def _dumps_as_go(tree: dict[str, Any]) -> bytes:
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False)
    return _HTML.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode()


def dumps_same_job(made: Signature) -> bytes:
    return _dumps_as_go(_tree(made) or {})


def dumps_state_same_job(made: TaskState) -> bytes:
    tree = {name: getattr(made, attribute) for name, attribute in _STATE_ATTRIBUTES.items() if name != "Celery"}
    tree["Results"] = made.results and [{"Type": item.type, "Value": item.value} for item in made.results if item]
    return _dumps_as_go(tree)


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _parse(body: bytes) -> Any:
    return json.loads(body, parse_int=GoNumber, parse_float=GoNumber, object_pairs_hook=_unrepeated)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(str(value) if type(value) is GoNumber else json.dumps(value, separators=(",", ":")))


def _fields(tree: dict[str, Any], attributes: dict[str, str]) -> dict[str, Any]:
    fields = {}
    for name, value in tree.items():
        kind = _KINDS.get(name, str)
        if not isinstance(value, kind):
            raise ValueError(f"{name} is no {kind}")
        fields[attributes[name]] = int(value) if kind is GoNumber else value
    return fields


def _arg(tree: dict[str, Any]) -> Arg:
    if not isinstance(tree["Name"], str) or not isinstance(tree["Type"], str):
        raise ValueError("an Arg's Name and Type are text")
    made: Arg = Arg._fill(name=tree["Name"], type=tree["Type"], _raw=_raw(tree["Value"]))
    return made


def _signature(tree: dict[str, Any] | None) -> Signature | None:
    if tree is None:
        return None
    fields = _fields(tree, _ATTRIBUTES)
    if fields["args"] is not None:
        fields["args"] = [_arg(arg) for arg in fields["args"]]
    if fields["on_success"] is not None:
        fields["on_success"] = [_signature(callback) for callback in fields["on_success"]]
    if fields["on_error"] is not None:
        fields["on_error"] = [_signature(callback) for callback in fields["on_error"]]
    fields["chord_callback"] = _signature(fields["chord_callback"])
    return Signature(**fields)


def loads_same_job(body: bytes) -> Any:
    return _signature(_parse(body))


def loads_state_same_job(body: bytes) -> TaskState:
    fields = _fields(_parse(body), _STATE_ATTRIBUTES)
    if fields["results"] is not None:
        fields["results"] = [
            TaskResult._fill(type=item["Type"], _raw=_raw(item["Value"])) for item in fields["results"]
        ]
    return TaskState(**fields)
