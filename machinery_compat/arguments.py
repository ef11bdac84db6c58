"""Python values <-> Machinery's Args: their types, the hints that decide them, and what has no type.

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
from typing import Any

from kombu.utils import json as kombu_json

from machinery_compat import celery_header, errors
from machinery_compat.wire import Arg, infer_type, outgoing, type_of_hint

__all__ = ["JSON_MARK", "Parameters", "arg_of", "args_and_kwargs", "args_of", "json_text", "results_of", "value_of"]

MARK = "celery:"
JSON_MARK = "celery:json"
KEYWORD = "kw="


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


def args_of(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    parameters: Parameters | None,
    *,
    first: int = 0,
    strict: bool = False,
) -> list[Arg]:
    """The Args of a call.

    Args:
        args: the positional arguments.
        kwargs: the others.
        parameters: those of the task's function, where this process knows it.
        first: which parameter the first of the positional ones is.
        strict: see :func:`arg_of`.

    Raises:
        EncodeError: an argument cannot be sent.
    """
    made: list[Arg] = [
        arg_of(value, parameters.type_at(index) if parameters else None, strict=strict)
        for index, value in enumerate(args, first)
    ]
    for name, value in kwargs.items():
        made.append(arg_of(value, _keyword_type(parameters, name), keyword=name, strict=strict))
    return made


def _keyword_type(parameters: Parameters | None, name: str) -> str | None:
    if parameters is None or name not in parameters.names:
        return None
    return parameters.types[parameters.names.index(name)]


def args_and_kwargs(given: Sequence[Arg], own: int | None) -> tuple[list[Any], dict[str, Any]]:
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
    return [_result_of(one, hint) for one, hint in zip(values, hints, strict=True)]


def _result_of(value: Any, hint: str | None) -> Arg:
    if isinstance(value, (bytes, bytearray)) or hint == "[]byte":
        # Go asks the value for its type, and that is what it says.
        hint = "[]uint8"
    return arg_of(value, hint, what="a result")
