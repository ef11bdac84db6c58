"""JSON exactly as Go's ``encoding/json`` writes it, and the entry points to its reader.

The quick way through this package is msgspec; this module holds what msgspec and Go see differently:
escapes, float spellings, invalid UTF-8, map order. Nothing here recurses, so deep nesting costs memory
and never the interpreter's stack.
"""

from __future__ import annotations

import math
import re
import struct
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import msgspec

from machinery_compat.errors import EncodeError
from machinery_compat.wire.goparse import GoNumber, Members, parse

__all__ = ["GoNumber", "canonical", "dumps", "escape", "format_float", "format_float32", "quote", "to_float32"]

_encode = msgspec.json.encode

# What may stand in msgspec's output and not in Go's: the HTML characters, the two line separators, and the
# short forms of backspace and form feed. A whole escape is matched so that the second half of ``\\`` followed
# by a plain "b" is never taken for one.
_FOREIGN = re.compile(rb"\\.|[<>&]|\xe2\x80[\xa8\xa9]", re.DOTALL)
_GO_FORM = {
    b"<": rb"\u003c",
    b">": rb"\u003e",
    b"&": rb"\u0026",
    b"\xe2\x80\xa8": rb"\u2028",
    b"\xe2\x80\xa9": rb"\u2029",
    rb"\b": rb"\u0008",
    rb"\f": rb"\u000c",
}
_SURROGATE = re.compile("[\ud800-\udfff]")

# The values whose text is already what Go would write: scalars, and lists of scalars, without blanks and with no
# escapes but Go's own. Objects are left to the parser, since their members have an order. (An escaped U+FFFD is
# kept: Go writes it so where a string held bytes that were no UTF-8.)
# Where a string is not of this kind, only one way to read it may have been tried: a repeated repetition would
# try exponentially many.
_PLAIN = r'[^"\\\x00-\x1f<>&\u2028\u2029]*'
_ESCAPED = r'\\(?:["\\nrt]|u00(?:0[0-8bcef]|1[0-9a-f]|3[ce]|26)|u202[89]|ufffd)'
_STRING = f'"{_PLAIN}(?:{_ESCAPED}{_PLAIN})*"'
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SCALAR = f"(?:{_NUMBER}|true|false|null|{_STRING})"
_VALUE = _SCALAR + r"|\[(?:" + _SCALAR + "(?:," + _SCALAR + r")*)?\]"
_is_number = re.compile(_NUMBER).fullmatch
_is_canonical_text = re.compile(_VALUE).fullmatch
_is_canonical = re.compile(_VALUE.replace(r"\u2028\u2029", r"\x80-\xff").encode()).fullmatch


def _go_form(match: re.Match[bytes]) -> bytes:
    found = match.group()
    return _GO_FORM.get(found, found)


def escape(data: bytes) -> bytes:
    """Turn JSON as msgspec writes it into JSON as Go writes it; Go's own output passes unchanged."""
    if 60 in data or 62 in data or 38 in data or 92 in data or not data.isascii():
        return _FOREIGN.sub(_go_form, data)
    return data


def quote(text: str) -> bytes:
    """Write one string as Go does.

    Bytes that were no UTF-8 (kept by ``surrogateescape``) and lone surrogates become the six
    characters ``\\ufffd``, one for each, while a real U+FFFD stays raw.
    """
    try:
        return escape(_encode(str(text)))
    except UnicodeEncodeError:
        parts = _SURROGATE.split(text)
        return b'"' + rb"\ufffd".join(escape(_encode(part))[1:-1] for part in parts) + b'"'


def _respell(text: str, plain: bool) -> str:
    """Bring the shortest digits of a float, as Python prints them, into Go's notation."""
    sign = "-" if text[0] == "-" else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return sign + "0"
    # The decimal point stands `point` places right of the first significant digit's left edge.
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if plain:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        if point >= len(digits):
            return sign + digits + "0" * (point - len(digits))
        return f"{sign}{digits[:point]}.{digits[point:]}"
    power = point - 1
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{power}" if power < 0 else f"{sign}{digits[0]}{tail}e+{power:02d}"


def _refuse_special(value: float) -> None:
    if not math.isfinite(value):
        name = "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
        raise EncodeError(f"json: unsupported value: {name}")


def format_float(value: float) -> str:
    """Spell a float64 as Go does: shortest digits, no ``.0``, exponents from 1e21 up and below 1e-6."""
    _refuse_special(value)
    size = abs(value)
    return _respell(repr(float(value)), size == 0 or 1e-6 <= size < 1e21)


def to_float32(value: float) -> float:
    """Round to the nearest float32, to infinity where the value is too large, as Go's conversion does."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


_TINY32 = to_float32(1e-6)
_HUGE32 = to_float32(1e21)


def format_float32(value: float) -> str:
    """Spell a float32 as Go does, with the fewest digits that read back as the same float32."""
    _refuse_special(value)
    value = to_float32(value)
    _refuse_special(value)
    size = abs(value)
    for precision in range(9):
        text = f"{value:.{precision}e}"
        if to_float32(float(text)) == value:
            break
    return _respell(text, size == 0 or _TINY32 <= size < _HUGE32)


def _leaf(value: Any) -> bytes | None:
    """Write a value without members, or None where there are some."""
    kind = type(value)
    if kind is str:
        return quote(value)
    if value is None:
        return b"null"
    if kind is bool:
        return b"true" if value else b"false"
    if kind is int:
        return b"%d" % value
    if kind is float:
        return format_float(value).encode()
    if isinstance(value, GoNumber):
        return _number(value)
    if isinstance(value, msgspec.Raw):
        return canonical(bytes(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b'"' + b64encode(value) + b'"'
    if isinstance(value, (dict, Members, list, tuple)):
        return None
    if isinstance(value, str):
        return quote(str(value))
    raise EncodeError(
        f"a value of type {type(value).__name__} has no form in Machinery's JSON; use text, numbers, lists or dicts"
    )


def _number(number: str) -> bytes:
    if not number:
        return b"0"
    if _is_number(number) is None:
        raise EncodeError(f'json: invalid number literal "{number}"')
    return str(number).encode()


def _object_items(value: dict[Any, Any] | Members) -> Iterator[tuple[bytes, Any]]:
    """Members in the order of Go's maps; of two with one name the last counts."""
    members = dict(value) if isinstance(value, Members) else value
    for name in members:
        if not isinstance(name, str):
            raise EncodeError(f"the name {name!r} of a map is no text; Machinery's maps have text names only")
    # Code points sort like the bytes of their UTF-8.
    for name in sorted(members):
        yield quote(name) + b":", members[name]


def _array_items(value: list[Any] | tuple[Any, ...]) -> Iterator[tuple[bytes, Any]]:
    for item in value:
        yield b"", item


def dumps(value: Any) -> bytes:
    """Write any JSON-like value as ``json.Marshal`` would, without recursion.

    Raises:
        EncodeError: a float that is not finite, a value JSON has no form for, or a cycle.
    """
    text = _leaf(value)
    if text is not None:
        return text
    out: list[bytes] = []
    stack: list[tuple[Iterator[tuple[bytes, Any]], bytes, int]] = []
    open_ids: set[int] = set()

    def enter(container: Any) -> None:
        if id(container) in open_ids:
            raise EncodeError("the value contains itself; JSON has no form for a cycle")
        open_ids.add(id(container))
        is_object = isinstance(container, (dict, Members))
        out.append(b"{" if is_object else b"[")
        items = _object_items(container) if is_object else _array_items(container)
        stack.append((items, b"}" if is_object else b"]", id(container)))

    enter(value)
    while stack:
        items, closing, identity = stack[-1]
        for name, item in items:
            if out[-1] not in (b"{", b"["):
                out.append(b",")
            out.append(name)
            text = _leaf(item)
            if text is None:
                enter(item)
                break
            out.append(text)
        else:
            stack.pop()
            open_ids.discard(identity)
            out.append(closing)
    return b"".join(out)


def canonical(raw: bytes) -> bytes:
    """Rewrite a JSON value as Go would after reading it: compact, map keys sorted, escapes normalised.

    Raises:
        DecodeError: the text is no JSON.
    """
    if _is_canonical(raw) is not None:
        return raw
    if not raw.isascii():
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = ""
        if _is_canonical_text(text) is not None:
            return raw
    return dumps(parse(raw, alone=True))
