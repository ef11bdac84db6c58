"""Signature <-> Celery message protocol 2: the only module that knows both vocabularies.

Outwards a Celery message becomes a :class:`~machinery_compat.wire.Signature`. What Machinery has
no field for travels in one header, ``Headers["celery"]``, as the text of a JSON object; a plain
call has no such header and is byte-identical to Go's. Inwards a Signature becomes the headers and
the body of a Celery message, and its bytes stay with the request under the key ``machinery``.

What Machinery has no *type* for travels as a string Arg that holds JSON. The Arg's Name, which Go
carries along and never reads, says so::

    celery:json          the Value is the JSON text of a Python value
    celery:kw=NAME       the Arg is the keyword argument NAME
    celery:json,kw=NAME  both
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kombu.utils import json as kombu_json

from machinery_compat import celery_header, errors
from machinery_compat.celery_header import HEADER
from machinery_compat.wire import Arg, Signature, infer_type, new_task_uuid, outgoing, type_of_hint

__all__ = ["JSON_MARK", "Parameters", "arg_of", "from_signature", "priority_of", "set_eta", "to_signature", "value_of"]

MARK = "celery:"
JSON_MARK = "celery:json"
KEYWORD = "kw="

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
EMBED = ("callbacks", "errbacks", "chain", "chord")
REPR_LIMIT = 1024


class Parameters:
    """The parameters of a task's function: their names and the Machinery types of their hints."""

    __slots__ = ("names", "returns", "types", "variadic_type")

    def __init__(self, function: Callable[..., Any]) -> None:
        signature = inspect.signature(function)
        hints = _hints(function)
        positional = [
            p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        self.names = [p.name for p in positional]
        self.types = [type_of_hint(hints.get(name)) for name in self.names]
        rest = next((p for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL), None)
        self.variadic_type = type_of_hint(hints.get(rest.name)) if rest else None
        self.returns = _return_types(hints.get("return"))

    def type_at(self, index: int) -> str | None:
        return self.types[index] if index < len(self.types) else self.variadic_type

    def positional(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Moves the keyword arguments that follow on the positional ones into their places."""
        placed, rest = list(args), dict(kwargs)
        for name in self.names[len(placed) :]:
            if name not in rest:
                break
            placed.append(rest.pop(name))
        return placed, rest


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        # A hint that only a type checker can resolve says nothing at run time.
        return {}


def _return_types(hint: Any) -> list[str | None]:
    if typing.get_origin(hint) is tuple:
        return [type_of_hint(part) for part in typing.get_args(hint)]
    return [type_of_hint(hint)]


def _fits(value: Any, go_type: str) -> bool:
    """Whether a hint speaks of this kind of value at all; ranges are checked when it is encoded."""
    if go_type.startswith("[]"):
        return isinstance(value, (list, bytes, bytearray))
    if go_type == "bool":
        return isinstance(value, bool)
    if go_type == "string":
        return isinstance(value, str)
    if go_type.startswith("float"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, int) and not isinstance(value, bool)


def machinery_type(value: Any, hint: str | None) -> str | None:
    """The Machinery type of a value: of its hint, else of the value; None when it has none."""
    if hint is not None and _fits(value, hint):
        return hint
    try:
        return infer_type(value)
    except errors.EncodeError:
        # A whole number too large for uint64 is a mistake, not a value of another kind.
        if isinstance(value, int):
            raise
        return None


def json_text(value: Any, what: str) -> str:
    """The JSON text of a value that Machinery has no type for."""
    try:
        text = kombu_json.dumps(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise errors.EncodeError(
            f"{what}: a {type(value).__name__} has no Machinery type and no JSON form ({exc}); "
            "pass numbers, text, bytes, lists, or what the json module can write"
        ) from exc
    return str(text)


def arg_of(
    value: Any, hint: str | None = None, keyword: str = "", strict: bool = False, what: str = "an argument"
) -> Arg:
    """The Arg of a Python value.

    Args:
        value: the value; an Arg is returned as it is.
        hint: the Machinery type that the task's Python signature asks for.
        keyword: the name of the keyword argument that this is.
        strict: refuse what Machinery has no type for, instead of sending it as JSON text.
        what: what the value is, for the error.

    Raises:
        EncodeError: the value is out of its type's range, or cannot be sent at all.
    """
    if isinstance(value, Arg):
        outgoing.check_arg(value)
        if not keyword or value.name.startswith(MARK):
            return value
        return Arg.from_raw(value.type, value.raw, f"{MARK}{KEYWORD}{keyword}")
    if isinstance(value, tuple):
        value = list(value)
    name = f"{MARK}{KEYWORD}{keyword}" if keyword else ""
    go_type = machinery_type(value, hint)
    if go_type is not None:
        return Arg(go_type, value, name=name)
    if strict:
        raise errors.EncodeError(
            f"a {type(value).__name__} has no Machinery type and strict mode is on; "
            "convert it to a number, text, bytes or a list of one of these"
        )
    name = f"{JSON_MARK},{KEYWORD}{keyword}" if keyword else JSON_MARK
    return Arg("string", json_text(value, what), name=name)


def value_of(arg: Arg) -> tuple[str, Any]:
    """The keyword (or an empty text) and the Python value of an Arg.

    Raises:
        ArgumentError: the Value does not fit the Type; the text is Go's.
        DecodeError: the Value is marked as JSON and is none.
    """
    if not arg.name.startswith(MARK):
        return "", arg.value
    mark, value = arg.name, arg.value
    if mark == JSON_MARK or mark.startswith(f"{JSON_MARK},"):
        value = celery_header.from_json(value, "an argument marked as JSON")
        mark = mark.replace("json,", "", 1)
    # The name is the rest, whatever characters it has.
    return (mark[len(MARK + KEYWORD) :] if mark.startswith(MARK + KEYWORD) else ""), value


def to_signature(
    body: tuple[Sequence[Any], Mapping[str, Any], Mapping[str, Any]],
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    *,
    priority: int = 0,
    parameters: Parameters | None = None,
    base: Signature | None = None,
    strict: bool = False,
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

    Raises:
        EncodeError: an argument cannot be sent.
    """
    args, kwargs, embed = body
    extra = _extra(headers, properties, embed)
    if base is not None and extra.get("group") == base.group_uuid:
        del extra["group"]
    if parameters is not None and kwargs:
        args, kwargs = parameters.positional(args, kwargs)
    signature = base.copy() if base is not None else Signature(uuid=headers["id"] or new_task_uuid())
    signature.name = headers["task"]
    signature.args = [
        arg_of(value, parameters.type_at(index) if parameters else None, strict=strict)
        for index, value in enumerate(args)
    ]
    for name, value in kwargs.items():
        signature.args.append(arg_of(value, _keyword_type(parameters, name), keyword=name, strict=strict))
    signature.priority = priority_of(priority)
    set_eta(signature, headers.get("eta"))
    signature.headers = _user_headers(headers, extra, (base.headers if base is not None else None) or {})
    if extra:
        signature.headers[HEADER] = json_text(extra, f"task {signature.name}")
    outgoing.check_fields(signature)
    return signature


def _keyword_type(parameters: Parameters | None, name: str) -> str | None:
    if parameters is None or name not in parameters.names:
        return None
    return parameters.types[parameters.names.index(name)]


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
    properties = {"correlation_id": uuid, "reply_to": extra.get("reply_to"), "priority": signature.priority}
    return headers, properties, (args, kwargs, {name: extra.get(name) for name in EMBED})


def arguments(given: Sequence[Arg], own: int | None) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a task; of a Celery follower's, what was passed on to it comes first."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for arg in given[:own]:
        keyword, value = value_of(arg)
        if keyword:
            kwargs[keyword] = value
        else:
            args.append(value)
    return args, kwargs


def _arguments_of(given: Sequence[Arg], extra: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """The arguments of a task, and what the task must be told before it runs.

    Machinery has appended what is passed on to a follower, and put an error's text first.
    """
    own = extra.get("own")
    about: dict[str, Any] = {}
    if own is None:
        return *arguments(given, None), about
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
    args, kwargs = arguments(given[first : first + own], None)
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


def results_of(value: Any, returns: Iterable[str | None] | None = None, single: bool = False) -> list[Arg]:
    """A task's return value as Machinery's results: None is none, a tuple is several.

    The results have the form of Args, marks included.

    Args:
        value: the value.
        returns: the Machinery types that the task's Python signature promises.
        single: exactly one result, whatever the value is.
    """
    if single and (value is None or isinstance(value, tuple)):
        return [arg_of(value, what="a result")]
    if value is None:
        return []
    values = list(value) if isinstance(value, tuple) else [value]
    hints = list(returns or ())
    if len(hints) != len(values):
        hints = [None] * len(values)
    return [arg_of(one, hint, what="a result") for one, hint in zip(values, hints, strict=True)]
