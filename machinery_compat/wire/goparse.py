"""A JSON reader that accepts and refuses what Go's ``json.Decoder`` accepts and refuses, with its error texts.

It is slow and exact. Everything common goes through msgspec; this reader is for what msgspec refuses or would see
differently from Go. It keeps duplicate members (their meaning depends on what they are read into) and
the spelling of numbers.
"""

from __future__ import annotations

import re
from typing import Any, Final

from machinery_compat.errors import DecodeError

__all__ = ["MAX_DEPTH", "GoNumber", "Members", "fold", "parse", "quote_char"]

MAX_DEPTH: Final = 10_000  # containers; encoding/json's own limit


class GoNumber(str):
    """A number that keeps its spelling, like Go's ``json.Number``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"GoNumber({str(self)!r})"


class Members(list[tuple[str, Any]]):
    """The members of a JSON object in the order of the text, duplicates included."""

    __slots__ = ()


_skip_blanks = re.compile(rb"[ \t\r\n]*").match
_match_string = re.compile(rb'"([^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*)"').match
_match_number = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").match
_find_broken = re.compile(rb'(?:[^"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*').match
_ESCAPE = re.compile(r"\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)|\\u(....)|\\(.)")
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_WORDS: Final = {ord("t"): (b"true", True), ord("f"): (b"false", False), ord("n"): (b"null", None)}
_QUOTED = {7: r"\a", 8: r"\b", 9: r"\t", 10: r"\n", 11: r"\v", 12: r"\f", 13: r"\r", 34: '"', 39: r"\'", 92: r"\\"}


def quote_char(byte: int) -> str:
    """Name an offending byte as Go's syntax errors do (the byte is shown as the code point of its value)."""
    if byte in _QUOTED:
        text = _QUOTED[byte]
    elif byte < 0x20 or byte == 0x7F:
        text = f"\\x{byte:02x}"
    elif 0x80 <= byte <= 0xA0 or byte == 0xAD:
        text = f"\\u{byte:04x}"
    else:
        text = chr(byte)
    return f"'{text}'"


def fold(name: str) -> bytes:
    """Bring a field name to the form that Go's case-insensitive match compares."""
    # U+017F and U+212A are the only characters outside ASCII that fold to an ASCII letter.
    return name.replace("\u017f", "s").replace("\u212a", "k").encode("utf-8", "surrogatepass").upper()


def _unescape(match: re.Match[str]) -> str:
    high, low, code, short = match.groups()
    if high is not None:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    if code is not None:
        point = int(code, 16)
        return "\ufffd" if 0xD800 <= point <= 0xDFFF else chr(point)
    return _SHORT.get(short, short)


def _text(inner: bytes) -> str:
    """Decode the inside of a string literal; every offending byte becomes one U+FFFD."""
    try:
        text = inner.decode()
    except UnicodeDecodeError:
        text = _NOT_UTF8.sub("\ufffd", inner.decode("utf-8", "surrogateescape"))
    return _ESCAPE.sub(_unescape, text) if "\\" in text else text


def _invalid(data: bytes, at: int, context: str) -> DecodeError:
    if at >= len(data):
        return DecodeError("unexpected EOF")
    return DecodeError(f"invalid character {quote_char(data[at])} {context}")


class _Reader:
    """One pass over one value; `at` is the next byte to look at."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def peek(self) -> int:
        """Skip blanks and return the next byte, -1 at the end."""
        match = _skip_blanks(self.data, self.at)
        assert match is not None
        self.at = match.end()
        return self.data[self.at] if self.at < len(self.data) else -1

    def fail(self, context: str) -> DecodeError:
        return _invalid(self.data, self.at, context)

    def string(self) -> str:
        match = _match_string(self.data, self.at)
        if match is None:
            raise self._broken_string()
        self.at = match.end()
        return _text(match.group(1))

    def _broken_string(self) -> DecodeError:
        match = _find_broken(self.data, self.at + 1)
        assert match is not None
        at = match.end()
        if at >= len(self.data) or self.data[at] != 0x5C:
            return _invalid(self.data, at, "in string literal")
        if self.data[at + 1 : at + 2] != b"u":
            return _invalid(self.data, at + 1, "in string escape code")
        at += 2
        while self.data[at : at + 1] and self.data[at : at + 1] in b"0123456789abcdefABCDEF":
            at += 1
        return _invalid(self.data, at, "in \\u hexadecimal character escape")

    def number(self) -> GoNumber:
        match = _match_number(self.data, self.at)
        if match is None:  # only a minus sign with no digit behind it
            raise _invalid(self.data, self.at + 1, "in numeric literal")
        at = self.at = match.end()
        text = match.group()
        following = self.data[at : at + 1]
        if following == b"." and not set(text) & set(b".eE"):
            raise _invalid(self.data, at + 1, "after decimal point in numeric literal")
        if following in (b"e", b"E") and not set(text) & set(b"eE"):
            at += 2 if self.data[at + 1 : at + 2] in (b"+", b"-") else 1
            raise _invalid(self.data, at, "in exponent of numeric literal")
        return GoNumber(text.decode())

    def word(self) -> bool | None:
        word, value = _WORDS[self.data[self.at]]
        for offset, byte in enumerate(word):
            if self.data[self.at + offset : self.at + offset + 1] != word[offset : offset + 1]:
                context = f"in literal {word.decode()} (expecting '{chr(byte)}')"
                raise _invalid(self.data, self.at + offset, context)
        self.at += len(word)
        return value

    def name(self, after_comma: bool) -> str | None:
        """Read a member's name and its colon; None where the object ends instead."""
        byte = self.peek()
        if byte == 0x7D and not after_comma:
            self.at += 1
            return None
        if byte != 0x22:
            raise self.fail("looking for beginning of object key string")
        name = self.string()
        if self.peek() != 0x3A:
            raise self.fail("after object key")
        self.at += 1
        return name


def parse(data: bytes, *, alone: bool = False) -> Any:
    """Read the first JSON value of a text, as ``json.Decoder`` does. Objects come as `Members`, numbers as `GoNumber`.

    Args:
        data: the text.
        alone: refuse anything behind the value, as ``json.Unmarshal`` does; it is ignored otherwise.

    Raises:
        DecodeError: Go would refuse the text; the message is Go's.
    """
    reader = _Reader(data)
    stack: list[Any] = []
    names: list[str] = []  # the pending member's name of each open object
    if reader.peek() < 0:
        raise DecodeError("EOF")
    while True:
        # One value is due here.
        byte = reader.peek()
        value: Any
        if byte == 0x22:
            value = reader.string()
        elif byte == 0x7B or byte == 0x5B:
            if len(stack) >= MAX_DEPTH:
                raise reader.fail("exceeded max depth")
            reader.at += 1
            if byte == 0x7B:
                value = Members()
                name = reader.name(after_comma=False)
                if name is not None:
                    stack.append(value)
                    names.append(name)
                    continue
            else:
                value = []
                if reader.peek() != 0x5D:
                    stack.append(value)
                    continue
                reader.at += 1
        elif byte == 0x2D or 0x30 <= byte <= 0x39:
            value = reader.number()
        elif byte in _WORDS:
            value = reader.word()
        else:
            raise reader.fail("looking for beginning of value")
        # The value is complete: store it and close what it completes.
        while stack:
            container = stack[-1]
            is_object = isinstance(container, Members)
            if isinstance(container, Members):
                container.append((names[-1], value))
            else:
                container.append(value)
            byte = reader.peek()
            if byte == 0x2C:
                reader.at += 1
                if is_object:
                    name = reader.name(after_comma=True)
                    assert name is not None
                    names[-1] = name
                break
            if byte != (0x7D if is_object else 0x5D):
                raise reader.fail("after object key:value pair" if is_object else "after array element")
            reader.at += 1
            value = stack.pop()
            if is_object:
                names.pop()
        else:
            if alone and reader.peek() >= 0:
                raise reader.fail("after top-level value")
            return value
