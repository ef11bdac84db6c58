"""Signature <-> Celery message protocol 2: the only module that knows both vocabularies.

Outwards a Celery message becomes a :class:`~machinery_compat.wire.Signature`. What Machinery has
no field for travels in one header, ``Headers["celery"]``, as the text of a JSON object; a plain
call has no such header and is byte-identical to Go's. Inwards a Signature becomes the headers and
the body of a Celery message, and its bytes stay with the request under the key ``machinery``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from machinery_compat import celery_header, errors
from machinery_compat.arguments import Parameters, args_and_kwargs, args_of, json_text, value_of
from machinery_compat.celery_header import HEADER
from machinery_compat.wire import Arg, Signature, new_task_uuid, outgoing

__all__ = ["error_text", "eta_text", "from_signature", "priority_of", "set_eta", "to_signature"]

#: The members of a protocol 2 message that have a field in the Signature, say nothing when they
#: have their default, or concern the sender's process only.
PROTOCOL_DEFAULTS: dict[str, Any] = {
    "shadow": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "parent_id": None,
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
    # Empty unless the user has chosen them, to keep arguments out of logs.
    "argsrepr": "",
    "kwargsrepr": "",
}
#: Written by Celery into every message and read back from the Signature or computed anew.
DERIVED = frozenset({"lang", "task", "id", "eta", "root_id", "origin", "headers", "machinery"})
#: The properties of a message that a task finds in ``request.properties``.
PROPERTIES = ("app_id", "message_id", "type", "user_id")
EMBED = ("callbacks", "errbacks", "chain", "chord")
REPR_LIMIT = 1024


def to_signature(
    body: tuple[Sequence[Any], Mapping[str, Any], Mapping[str, Any]],
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    *,
    priority: int = 0,
    parameters: Parameters | None = None,
    base: Signature | None = None,
    strict: bool = False,
    keeps_result: bool = False,
) -> Signature:
    """The Signature of a Celery task message.

    Args:
        body: args, kwargs and embed of message protocol 2.
        headers: the message's headers.
        properties: the message's properties.
        priority: 0 to 255, higher is sooner.
        parameters: those of the task's function, where this process knows it.
        base: the Signature that a retry sends again; its workflow is kept.
        strict: see :func:`arg_of`.
        keeps_result: the result is kept although the task itself may say that it is not.

    Raises:
        EncodeError: an argument cannot be sent.
    """
    args, kwargs, embed = body
    extra = _extra(headers, properties, embed)
    if keeps_result:
        extra["ignore_result"] = False
    if base is not None and extra.get("group") == base.group_uuid:
        del extra["group"]
    if parameters is not None and kwargs:
        args, kwargs = parameters.positional(args, kwargs)
    signature = base.copy() if base is not None else Signature(uuid=headers["id"] or new_task_uuid())
    signature.name = headers["task"]
    signature.args = args_of(args, kwargs, parameters, strict=strict)
    signature.priority = priority_of(priority)
    set_eta(signature, headers.get("eta"))
    signature.headers = _user_headers(headers, extra, (base.headers if base is not None else None) or {})
    if extra:
        signature.headers[HEADER] = json_text(extra, f"task {signature.name}")
    outgoing.check_fields(signature)
    return signature


def priority_of(value: Any) -> int:
    """The Priority that Celery has given, from 0 to 255; None is 0."""
    return min(max(int(value or 0), 0), 255)


def set_eta(signature: Signature, eta: str | datetime | None) -> None:
    """Sets the ETA that Celery has given, a time or its text.

    Raises:
        EncodeError: it is no time.
    """
    try:
        if isinstance(eta, str):
            eta = datetime.fromisoformat(eta.replace("Z", "+00:00"))
        signature.set_eta(eta)
    except (AttributeError, TypeError, ValueError) as exc:
        raise errors.EncodeError(f"the ETA {eta!r} of {signature.name} is no time: {exc}") from exc


def eta_text(signature: Signature) -> str | None:
    """The ETA as a task of Celery's sees it, in UTC."""
    time = signature.eta_time
    return time.isoformat() if time is not None else None


def _extra(headers: Mapping[str, Any], properties: Mapping[str, Any], embed: Mapping[str, Any]) -> dict[str, Any]:
    """What of a Celery message has no field in a Signature and is not its default."""
    extra: dict[str, Any] = {}
    for name, default in PROTOCOL_DEFAULTS.items():
        value = headers.get(name)
        if value is not None and value != default and value != () and list_or(value) != default:
            extra[name] = value
    root_id = headers.get("root_id")
    if root_id and root_id != headers["id"]:
        extra["root_id"] = root_id
    if properties.get("reply_to"):
        extra["reply_to"] = properties["reply_to"]
    told = {name: str(properties[name]) for name in PROPERTIES if properties.get(name)}
    if told:
        extra["message_properties"] = told
    for name in EMBED:
        if embed and embed.get(name):
            extra[name] = embed[name]
    return extra


def list_or(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _user_headers(headers: Mapping[str, Any], extra: dict[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The user's own headers: what Go can carry goes as it is, the rest beside Celery's own."""
    plain: dict[str, Any] = {}
    other: dict[str, Any] = {}
    own = headers.get("headers")
    for name, value in [*(own.items() if isinstance(own, Mapping) else ()), *headers.items()]:
        if name in PROTOCOL_DEFAULTS or name in DERIVED or name == HEADER:
            continue
        # Go republishes Headers as an AMQP table, which takes neither numbers nor objects. What a
        # retry only passes on stays as its maker wrote it.
        if outgoing.is_header(name, value) or (name in kept and kept[name] == value):
            plain[name] = value
        else:
            other[name] = value
    if other:
        extra["headers"] = other
    return plain


def from_signature(
    signature: Signature, raw: bytes
) -> tuple[dict[str, Any], dict[str, Any], tuple[list[Any], dict[str, Any], dict[str, Any]]]:
    """The headers, the properties and the body of the Celery message that a Signature stands for.

    Raises:
        ArgumentError: an Arg does not convert; the text is Go's.
        DecodeError: the celery header is not the JSON object it should be.
    """
    # Without any, Celery would take what it does not know for the user's.
    headers: dict[str, Any] = {"headers": {}}
    extra: Mapping[str, Any] = {}
    if signature.headers:
        headers, extra = _headers_of(signature.headers)
    args, kwargs, about = _arguments_of(signature.args or (), extra)
    uuid = signature.uuid
    headers.update(PROTOCOL_DEFAULTS)
    headers.update(about)
    headers.update(
        # Nothing was said: the task's own option decides.
        ignore_result=None,
        lang="py",
        task=signature.name,
        id=uuid,
        eta=None,
        root_id=uuid,
        argsrepr=_repr(args),
        kwargsrepr=_repr(kwargs),
        origin=None,
        machinery=raw,
        group=signature.group_uuid or None,
    )
    for name, value in extra.items():
        if name in PROTOCOL_DEFAULTS or name == "root_id":
            headers[name] = value
    properties = {**(extra.get("message_properties") or {})}
    properties |= {"correlation_id": uuid, "reply_to": extra.get("reply_to"), "priority": signature.priority}
    return headers, properties, (args, kwargs, {name: extra.get(name) for name in EMBED})


def _arguments_of(given: Sequence[Arg], extra: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """The arguments of a task, and what the task must be told before it runs.

    Machinery has appended what is passed on to a follower, and put an error's text first.
    """
    own = extra.get("own")
    about: dict[str, Any] = {}
    if own is None:
        return *args_and_kwargs(given, None), about
    first = 0
    if extra.get("errback"):
        first = max(len(given) - own, 0)
        passed: Any = extra.get("parent_id")
        about["machinery_about"] = {"error": value_of(given[0])[1] if first else ""}
    elif extra.get("pack"):
        appended = given[own:]
        passed = [value_of(arg)[1] for arg in appended]
        if not extra.get("alone") and not _is_exact(appended, extra):
            about["machinery_about"] = {"group": extra["pack"][0]}
    else:
        passed = _passed_on(given[own:])
    args, kwargs = args_and_kwargs(given[first : first + own], None)
    if not extra.get("alone"):
        args.insert(0, passed)
    return args, kwargs, about


def _passed_on(appended: Sequence[Arg]) -> Any:
    """What a task has returned, of the results that were appended to its follower's arguments."""
    values = [value_of(arg)[1] for arg in appended]
    if not values:
        return None
    return values[0] if len(values) == 1 else values


def _is_exact(appended: Sequence[Arg], extra: Mapping[str, Any]) -> bool:
    """Whether the results in a chord's callback are surely those of its members, one of each."""
    _, count, nested = extra["pack"]
    if nested or len(appended) != count:
        return False
    # A Go worker that sends the callback loses the mark of what is JSON text.
    return bool(extra.get("exact")) or not any(arg.type == "string" and not arg.name for arg in appended)


def _repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= REPR_LIMIT else f"{text[:REPR_LIMIT]}…"


def _headers_of(headers: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    user, extra = celery_header.read(headers)
    plain = {name: value for name, value in user.items() if name not in celery_header.RESERVED}
    # A retry sends request.headers again.
    plain["headers"] = user
    return plain, extra


def error_text(exc: BaseException) -> str:
    """The text that Go's callers see of a Python exception."""
    try:
        return str(exc) or type(exc).__name__
    except Exception:  # noqa: BLE001 - a stranger's __str__
        return type(exc).__name__
