"""Results of tasks as DynamoDB's attributes, in all forms that Go or Python writes.

Go writes each value as the text that ``%v`` makes of it, whatever its type, and so reads back
nothing but texts. What Go reads back are the attributes of DynamoDB that fit the type. Python
writes those where Go can read them, or can at least pass them on to the callback of a chord:

* bools, floats and texts as such, and lists of them;
* integers and lists of them as numbers. Go's ``Get`` takes no number for an integer, but its
  workers pass them on, as the float64 that they read: so beyond 53 bits it is ``%v`` text, which
  Go refuses everywhere;
* ``[]byte`` as binary data.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode, b64encode
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from machinery_compat import errors
from machinery_compat.wire import TaskResult, gojson
from machinery_compat.wire.goconvert import INTEGERS

__all__ = ["attribute_of", "result_of", "text_of"]

Attribute = dict[str, Any]

#: Integers that a float64, and so Go, reads exactly.
EXACT = 2**53
#: What DynamoDB takes as a number, apart from 0; others go as text.
SMALLEST, LARGEST = 1e-130, 9.9e125
#: What binary data are called in Go.
BYTES = ("[]byte", "[]uint8")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_BOOLS = {"true": b"true", "false": b"false"}


# -- from a result


def attribute_of(result: TaskResult) -> Attribute:
    """A result as a map of DynamoDB."""
    members = {"Type": {"S": result.type}, "Value": _written(result.type, msgspec.json.decode(result.raw))}
    if result.celery is not None:
        members["Celery"] = {"S": result.celery}
    return {"M": members}


def _written(kind: str, value: Any) -> Attribute:
    if value is None:
        return {"NULL": True}
    if kind in BYTES and isinstance(value, str):
        return {"B": b64decode(value)}
    if isinstance(value, list):
        elements = [_written(kind.removeprefix("[]"), one) for one in value]
        if _is_number(kind) and any("S" in one for one in elements):
            # A list in which Go could read some only.
            return {"S": _go_text(kind, value)}
        return {"L": elements}
    if isinstance(value, dict):
        return {"M": {name: _written("", one) for name, one in value.items()}}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    exact = -EXACT <= value <= EXACT if isinstance(value, int) and "float" not in kind else _fits(float(value))
    return {"N": _spelled(kind, value)} if exact else {"S": _go_text(kind, value)}


def _is_number(kind: str) -> bool:
    kind = kind.removeprefix("[]")
    return kind in INTEGERS or kind.startswith("float")


def _fits(value: float) -> bool:
    return value == 0 or SMALLEST <= abs(value) <= LARGEST


def _spelled(kind: str, value: float) -> str:
    if isinstance(value, int) and not kind.removeprefix("[]").startswith("float"):
        return str(value)
    # A float32 has fewer digits than the float64 that holds it.
    text = gojson.format_float32(value) if kind.endswith("float32") else gojson.format_float(float(value))
    return "0" if text == "-0" else text


def _go_text(kind: str, value: Any) -> str:
    """What Go's ``%v`` makes of numbers."""
    if isinstance(value, list):
        return f"[{' '.join(_go_text(kind, one) for one in value)}]"
    return _spelled(kind, value)


# -- to a result


def result_of(attribute: Any) -> TaskResult:
    """The result in a map of DynamoDB.

    Raises:
        DecodeError: there is none.
    """
    members = attribute.get("M")
    if not isinstance(members, dict):
        raise errors.DecodeError("one of its results is no map")
    kind = text_of(members, "Type")
    try:
        raw = _raw(kind, members.get("Value", {"NULL": True}))
    except (errors.EncodeError, RecursionError) as exc:
        raise errors.DecodeError(f"one of its results cannot be read: {exc}") from exc
    return TaskResult.from_raw(kind, raw, text_of(members, "Celery") or None)


def text_of(item: dict[str, Any], name: str) -> str:
    """The text under a name; ``""`` for none, as Go has it.

    Raises:
        DecodeError: something else is there.
    """
    attribute = item.get(name, {"NULL": True})
    if "NULL" in attribute:
        return ""
    if "S" not in attribute:
        raise errors.DecodeError(f"its {name} is no text but of the type {''.join(attribute)}")
    return str(attribute["S"])


def _raw(kind: str, attribute: Attribute) -> bytes:
    """An attribute as JSON; of a kind that does not fit the reader of the value will say so."""
    ((name, value),) = attribute.items()
    if name == "S":
        return gojson.quote(value) if kind in ("string", "") else _parsed(kind, value)
    if name == "NULL":
        return b"null"
    if name == "BOOL":
        return b"true" if value else b"false"
    if name == "N":
        return _number(kind, value)
    if name == "B":
        return b'"' + b64encode(value) + b'"'
    if name == "L":
        if kind in BYTES:
            raise errors.DecodeError("one of its results is a list for binary data")
        return b"[" + b",".join(_raw(kind.removeprefix("[]"), one) for one in value) + b"]"
    if name == "M":
        members = (gojson.quote(key) + b":" + _raw("", value[key]) for key in sorted(value))
        return b"{" + b",".join(members) + b"}"
    raise errors.DecodeError(f"one of its results has the type {name}")


def _number(kind: str, text: str) -> bytes:
    if kind.startswith("float"):
        return _float(kind, text)
    try:
        number = Decimal(text)
        # As an exponent says, it may have a million digits.
        if number.is_finite() and number.adjusted() < 40 and number == number.to_integral_value():
            return str(int(number)).encode()
    except InvalidOperation:
        pass
    return _float(kind, text)


def _parsed(kind: str, text: str) -> bytes:
    """The text that Go's ``%v`` has made of a value, as JSON."""
    if kind.startswith("[]"):
        if not (text.startswith("[") and text.endswith("]")):
            raise errors.DecodeError(f"{text[:40]!r} is no list as Go writes it")
        # What is between them has no blanks, but for texts: nobody can tell those apart.
        words = text[1:-1].split(" ") if text != "[]" else []
        if kind in BYTES:
            return _binary(words)
        return b"[" + b",".join(_parsed(kind[2:], word) for word in words) + b"]"
    if kind == "string":
        return gojson.quote(text)
    if kind == "bool" and text in _BOOLS:
        return _BOOLS[text]
    if kind in INTEGERS and _INTEGER.fullmatch(text):
        return str(int(text)).encode()
    if kind.startswith("float"):
        return _float(kind, text)
    return gojson.quote(text)


def _binary(words: list[str]) -> bytes:
    try:
        return b'"' + b64encode(bytes(int(word) for word in words)) + b'"'
    except ValueError as exc:
        raise errors.DecodeError(f"one of its results is no list of bytes: {exc}") from exc


def _float(kind: str, text: str) -> bytes:
    try:
        number = float(text)
    except ValueError:
        raise errors.DecodeError(f"{text[:40]!r} is no number") from None
    if not math.isfinite(number):
        raise errors.DecodeError(f"one of its results is {text}, which JSON does not have")
    return (gojson.format_float32(number) if kind == "float32" else gojson.format_float(number)).encode()
