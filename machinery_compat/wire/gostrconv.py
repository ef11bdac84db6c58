"""Numbers and durations as Go reads them from text: parts of its ``strconv`` and ``time`` packages."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["atoi", "parse_duration", "quoted"]

_INTEGER = re.compile(r"([+-]?)0*([0-9]*)")
_LIMIT: Final = 1 << 63
#: No integer of more digits has 64 bits.
_DIGITS: Final = 20

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # the micro sign
    "\u03bcs": 1_000,  # the Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
}
# A number and what follows it up to the next one.
_PART = re.compile(r"(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<unit>[^.0-9]*)")
# Digits of a fraction beyond this value are not read.
_FRACTION_LIMIT: Final = (_LIMIT - 1) // 10

_ESCAPES: Final = {
    '"': r"\"",
    "\\": r"\\",
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
}


def atoi(text: str) -> int:
    """An integer; mirrors Go's ``strconv.Atoi`` of a 64-bit host.

    Raises:
        ValueError: none, or one beyond 64 bits; the text is Go's.
    """
    match = _INTEGER.match(text)
    sign, digits = match.groups() if match else ("", "")
    number = int((digits or "0")[: _DIGITS + 1])
    # Go reads digit by digit: it may have too many of them before it meets what is none.
    if number < 2 * _LIMIT and not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"strconv.Atoi: parsing {quoted(text)}: invalid syntax")
    number = -number if sign == "-" else number
    if not -_LIMIT <= number < _LIMIT:
        raise ValueError(f"strconv.Atoi: parsing {quoted(text)}: value out of range")
    return number


def quoted(text: str) -> str:
    """A string literal of Go; mirrors its ``strconv.Quote``."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def parse_duration(text: str) -> int:
    """Nanoseconds of ``1h30m``, ``1.5s``, ``-2us``; mirrors Go's ``time.ParseDuration``, to the rounding.

    Raises:
        ValueError: not a duration; the text is Go's.
    """
    invalid = ValueError(f"time: invalid duration {_bytewise_quoted(text)}")
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise invalid
    total = 0
    while rest:
        match = _PART.match(rest)
        if match is None or not (match["whole"] or match["fraction"]):
            raise invalid
        whole = int((match["whole"].lstrip("0") or "0")[: _DIGITS + 1])
        if whole > _LIMIT:
            raise invalid
        name = match["unit"]
        if not name:
            raise ValueError(f"time: missing unit in duration {_bytewise_quoted(text)}")
        if name not in _UNITS:
            raise ValueError(f"time: unknown unit {_bytewise_quoted(name)} in duration {_bytewise_quoted(text)}")
        total += whole * _UNITS[name] + _fraction(match["fraction"] or "", _UNITS[name])
        if total > _LIMIT:
            raise invalid
        rest = rest[match.end() :]
    if text.startswith("-"):
        return -total
    if total == _LIMIT:
        raise invalid
    return total


def _fraction(digits: str, unit: int) -> int:
    """What stands after the point, as Go multiplies it: in 64-bit floats."""
    value, scale = 0, 1.0
    for digit in digits:
        if value > _FRACTION_LIMIT:
            break
        value = value * 10 + int(digit)
        scale *= 10
    return int(float(value) * (float(unit) / scale))


def _bytewise_quoted(text: str) -> str:
    """As Go's time package quotes: control characters and everything beyond ASCII byte by byte."""
    out = []
    for byte in text.encode("utf-8", "surrogatepass"):
        if byte in b'"\\':
            out.append("\\" + chr(byte))
        else:
            out.append(chr(byte) if 0x20 <= byte < 0x80 else f"\\x{byte:02x}")
    return f'"{"".join(out)}"'
