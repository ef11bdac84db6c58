"""Machinery's argument types: which there are, what Python values fit, and how Go converts a Value.

Writing is strict: a value that its type cannot hold is refused here and never reaches a Go worker.
Reading follows Go, oddities included, because a Python task must see what a Go task would see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from machinery_compat.errors import ArgumentError, EncodeError
from machinery_compat.wire import gojson
from machinery_compat.wire.goconvert import INTEGERS, decode_slow
from machinery_compat.wire.gojson import GoNumber

__all__ = ["TYPES", "check_type", "decode_value", "encode_value", "infer_type"]

_SCALARS: Final = ("bool", *INTEGERS, "float32", "float64", "string")
TYPES: Final = frozenset([*_SCALARS, *("[]" + name for name in _SCALARS), "[]byte"])

_INT64_MAX: Final = 2**63 - 1
_UINT64_MAX: Final = 2**64 - 1


def check_type(type: str) -> None:
    """Refuse a type name that no Go worker could use.

    Raises:
        EncodeError: the name is not one of `TYPES`.
    """
    if type not in TYPES:
        raise EncodeError(f"{type} is not one of supported types; a Go worker knows {', '.join(sorted(TYPES))}")


def _refuse(type: str, value: Any, advice: str) -> EncodeError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return EncodeError(f"{shown} ({value.__class__.__name__}) does not fit the type {type}: {advice}")


def _encode_bool(type: str, value: Any) -> bytes:
    if value is True:
        return b"true"
    if value is False:
        return b"false"
    raise _refuse(type, value, "pass True or False")


def _encode_int(type: str, value: Any) -> bytes:
    if isinstance(value, GoNumber):
        return _encode_number(type, value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refuse(type, value, "pass an int")
    low, high = INTEGERS[type]
    if not low <= value <= high:
        raise _refuse(type, value, f"it must lie between {low} and {high}")
    return b"%d" % value


def _encode_float(type: str, value: Any) -> bytes:
    if isinstance(value, GoNumber):
        return _encode_number(type, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refuse(type, value, "pass a float")
    try:
        number = float(value)
    except OverflowError:
        raise _refuse(type, value, "it is too large for a float") from None
    if isinstance(value, int) and int(number) != value:
        raise _refuse(type, value, "it would lose digits; round it first, or pass it as an integer type")
    if type == "float64":
        return gojson.format_float(number).encode()
    if math.isfinite(number) and math.isinf(gojson.to_float32(number)):
        raise _refuse(type, value, "it is beyond the largest float32, 3.4028235e+38; use float64")
    return gojson.format_float32(number).encode()


def _encode_number(type: str, value: GoNumber) -> bytes:
    """Write a number in the spelling it came with, if its type can read that."""
    raw = gojson.dumps(value)
    if value:
        try:
            decoded = decode_slow(type, raw)
        except ArgumentError as error:
            raise EncodeError(f"the number {value} does not fit the type {type}: {error}") from None
        wraps = decoded != int(value) if type in INTEGERS else math.isinf(decoded)
        if wraps:
            raise EncodeError(f"the number {value} does not fit the type {type}: it is out of range")
    return raw


def _encode_string(type: str, value: Any) -> bytes:
    if not isinstance(value, str) or isinstance(value, GoNumber):
        raise _refuse(type, value, "pass a str")
    return gojson.quote(value)


_ENCODERS: Final[dict[str, Callable[[str, Any], bytes]]] = {
    "bool": _encode_bool,
    **dict.fromkeys(INTEGERS, _encode_int),
    "float32": _encode_float,
    "float64": _encode_float,
    "string": _encode_string,
}


def _encode_bytes(type: str, value: Any) -> bytes:
    if isinstance(value, (list, tuple)):
        try:
            value = bytes([item for item in value if _encode_int("uint8", item)])
        except EncodeError as error:
            raise EncodeError(f"an element of the {type} value is wrong: {error}") from None
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise _refuse(type, value, "pass bytes, or a list of ints from 0 to 255")
    return gojson.dumps(value)


def encode_value(type: str, value: Any) -> bytes:
    """Write a Python value as the JSON Value of an Arg of that type.

    None stands for a nil slice and fits slice types only.

    Raises:
        EncodeError: the type is unknown to Machinery or the value does not fit it.
    """
    encoder = _ENCODERS.get(type)
    if encoder is not None:
        return encoder(type, value)
    check_type(type)
    if value is None:
        return b"null"
    if type in ("[]byte", "[]uint8"):
        return _encode_bytes(type, value)
    if not isinstance(value, (list, tuple)):
        raise _refuse(type, value, "pass a list")
    element = type[2:]
    encoder = _ENCODERS[element]
    try:
        return b"[" + b",".join([encoder(element, item) for item in value]) + b"]"
    except EncodeError as error:
        if str(error).startswith("json: "):
            raise
        raise EncodeError(f"an element of the {type} value is wrong: {error}") from None


def decode_value(type: str, raw: bytes) -> Any:
    """Convert a JSON Value as a Go worker would for an argument of that type.

    ``[]byte`` and ``[]uint8`` give bytes, other slices a list, a null slice an empty one.

    Raises:
        ArgumentError: Go would refuse the value; the text is Go's. Where Go would panic and end
            its process the text says so.
    """
    # The plainest spellings of the commonest types need no parser.
    if type == "int64":
        if raw.isdigit() and len(raw) < 19:
            return int(raw)
    elif type == "string" and raw[:1] == b'"' and 92 not in raw and raw.isascii():
        return raw[1:-1].decode()
    return decode_slow(type, raw)


def _infer_number_list(kinds: set[type], value: Any) -> str:
    if float in kinds:
        return "[]float64"
    largest, smallest = max(value), min(value)
    if smallest >= -(2**63) and largest <= _INT64_MAX:
        return "[]int64"
    if smallest >= 0 and largest <= _UINT64_MAX:
        return "[]uint64"
    raise EncodeError(
        f"no integer type of Machinery holds both {smallest} and {largest}; pass the list as strings or floats"
    )


def _infer_list(value: Any) -> str:
    if not value:
        return "[]string"
    kinds = {_kind(item) for item in value}
    if kinds == {bool}:
        return "[]bool"
    if kinds == {str}:
        return "[]string"
    if kinds <= {int, float}:
        return _infer_number_list(kinds, value)
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise EncodeError(
        f"a list of {names} has no type in Machinery; its lists hold one of bool, int, float or str, and no lists"
    )


def _kind(value: Any) -> type:
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind
    return str if isinstance(value, str) and not isinstance(value, GoNumber) else type(value)


def _infer(value: Any) -> str:
    kind = _kind(value)
    if kind is bool:
        return "bool"
    if kind is int:
        if -(2**63) <= value <= _INT64_MAX:
            return "int64"
        if 0 <= value <= _UINT64_MAX:
            return "uint64"
        raise EncodeError(f"{value} fits no integer type of Machinery, the largest is uint64; pass a string or a float")
    if kind is float:
        return "float64"
    if kind is str:
        return "string"
    if isinstance(value, (bytes, bytearray)):
        return "[]byte"
    if isinstance(value, (list, tuple)):
        return _infer_list(value)
    raise EncodeError(f"a value of type {type(value).__name__} has no type in Machinery; convert it, or pass an Arg")


def infer_type(value: Any, hint: Any = None) -> str:
    """Find the Machinery type of a Python value.

    Args:
        value: what is to be sent.
        hint: the parameter's annotation, or the name of a Machinery type. It decides wherever the value fits
            it; an annotation that names a Go type (``Int32``) decides in any case.

    Raises:
        EncodeError: Machinery has no type for the value.
    """
    from machinery_compat.wire.gohints import is_strict, type_of_hint

    hinted = type_of_hint(hint)
    if hinted is None or value is None:
        return _infer(value)
    if is_strict(hint):
        return hinted
    try:
        encode_value(hinted, value)
    except EncodeError:
        return _infer(value)
    return hinted
