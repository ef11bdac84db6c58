"""How Go turns the JSON Value of an Arg into a value of the Arg's Type: conversions, oddities and error texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from machinery_compat.errors import ArgumentError, DecodeError
from machinery_compat.wire import gojson
from machinery_compat.wire.goparse import GoNumber, Members, parse

__all__ = ["INTEGERS", "decode_slow", "go_text"]

# The smallest and largest value of each integer type; int and uint have 64 bits on every host Machinery runs on.
INTEGERS: Final[dict[str, tuple[int, int]]] = {
    "int": (-(2**63), 2**63 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint": (0, 2**64 - 1),
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
_BASE64: Final = {
    byte: value for value, byte in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}


def go_text(value: Any) -> str:
    """Show a parsed value as Go's ``%v`` does: strings bare, ``[1 2]``, ``map[a:1]``, ``<nil>``."""
    out: list[str] = []
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _Text):
            out.append(item.text)
        elif isinstance(item, Members):
            members = dict(item)
            parts: list[Any] = [_Text("map[")]
            for index, name in enumerate(sorted(members)):
                parts += [_Text(f"{' ' if index else ''}{name}:"), members[name]]
            stack.extend(reversed([*parts, _Text("]")]))
        elif isinstance(item, list):
            parts = [_Text("[")]
            for index, element in enumerate(item):
                parts += [_Text(" "), element] if index else [element]
            stack.extend(reversed([*parts, _Text("]")]))
        elif item is None:
            out.append("<nil>")
        else:
            out.append(str(item).lower() if isinstance(item, bool) else str(item))
    return "".join(out)


class _Text:
    """Punctuation waiting to be written by `go_text`."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _to_bool(type: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ArgumentError(f"{go_text(value)} is not {type}")


def _to_int(type: str, value: Any) -> int:
    if not isinstance(value, GoNumber):
        raise ArgumentError(f"{go_text(value)} is not {type}")
    low, high = INTEGERS[type]
    unsigned = low == 0
    digits = value if unsigned else value.removeprefix("-")
    if not digits.isdigit():
        raise ArgumentError(f'strconv.{"ParseUint" if unsigned else "ParseInt"}: parsing "{value}": invalid syntax')
    # More than twenty digits are out of range whatever they are; Python would also refuse very long ones.
    number = int(value) if len(digits) <= 20 else 2**64
    if not (0 <= number < 2**64 if unsigned else -(2**63) <= number < 2**63):
        name = "ParseUint" if unsigned else "ParseInt"
        raise ArgumentError(f'strconv.{name}: parsing "{value}": value out of range')
    # Go converts to the narrow type without a look at the range: the high bits fall off.
    return (number - low) % (high - low + 1) + low


def _to_float(type: str, value: Any) -> float:
    if not isinstance(value, GoNumber):
        raise ArgumentError(f"{go_text(value)} is not {type}")
    number = float(value)
    if math.isinf(number):
        raise ArgumentError(f'strconv.ParseFloat: parsing "{value}": value out of range')
    return gojson.to_float32(number) if type == "float32" else number


def _to_string(type: str, value: Any) -> str:
    if isinstance(value, str) and not isinstance(value, GoNumber):
        return value
    raise ArgumentError(f"{go_text(value)} is not {type}")


_CONVERT: Final[dict[str, Callable[[str, Any], Any]]] = {
    "bool": _to_bool,
    **dict.fromkeys(INTEGERS, _to_int),
    "float32": _to_float,
    "float64": _to_float,
    "string": _to_string,
}


def decode_base64(text: bytes) -> bytes:
    """Decode standard base64 with padding as Go's ``base64.StdEncoding`` does, line ends skipped.

    Raises:
        ArgumentError: with Go's text, which names the offending byte.
    """
    out = bytearray()
    at = 0
    while True:
        quantum: list[int] = []
        padded = False
        while len(quantum) < 4:
            if at == len(text):
                if not quantum:
                    return bytes(out)
                raise _corrupt(at - len(quantum))
            byte = text[at]
            at += 1
            if byte in _BASE64:
                quantum.append(_BASE64[byte])
            elif byte == 0x3D:
                at = _padding(text, at, len(quantum))
                padded = True
                break
            elif byte not in b"\r\n":
                raise _corrupt(at - 1)
        bits = sum(value << (18 - 6 * index) for index, value in enumerate(quantum))
        out += bits.to_bytes(3, "big")[: len(quantum) - 1]
        if padded:
            return bytes(out)


def _padding(text: bytes, at: int, digits: int) -> int:
    """Check what follows the first ``=`` of the last quantum; `at` is the byte behind it."""
    if digits < 2:
        raise _corrupt(at - 1)
    if digits == 2:
        at = _skip_line_ends(text, at)
        if at == len(text):
            raise _corrupt(at)
        if text[at] != 0x3D:
            raise _corrupt(at - 1)
        at += 1
    at = _skip_line_ends(text, at)
    if at < len(text):
        raise _corrupt(at)
    return at


def _skip_line_ends(text: bytes, at: int) -> int:
    while at < len(text) and text[at] in b"\r\n":
        at += 1
    return at


def _corrupt(at: int) -> ArgumentError:
    return ArgumentError(f"illegal base64 data at input byte {at}")


def _elements(type: str, element: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, Members):
        if value:
            raise ArgumentError(
                f"an object is no value for {type}: a Go worker panics on it"
                " (reflect: call of reflect.Value.Index on map Value)"
            )
        return []
    if isinstance(value, bool):
        raise ArgumentError(
            f"{go_text(value)} is no value for {type}: a Go worker panics on it"
            " (reflect: call of reflect.Value.Len on bool Value)"
        )
    convert = _CONVERT[element]
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        if element.startswith("uint"):
            # Go sees a string kind in numbers too, and takes the digits of one as bytes.
            return list(text if isinstance(value, GoNumber) else decode_base64(text))
        # Go walks over the bytes of the text, and a byte is no acceptable element.
        if text:
            raise ArgumentError(f"{text[0]} is not {element}")
        return []
    return [convert(element, item) for item in value]


def decode_slow(type: str, raw: bytes) -> Any:
    """Do what `machinery_compat.wire.gotypes.decode_value` promises, for every type and spelling."""
    convert = _CONVERT.get(type)
    element = "uint8" if type == "[]byte" else type[2:] if type.startswith("[]") else ""
    if convert is None and element not in _CONVERT:
        raise ArgumentError(f"{type} is not one of supported types")
    try:
        value = parse(raw, alone=True)
    except DecodeError as error:
        raise ArgumentError(str(error)) from None
    if convert is not None:
        return convert(type, value)
    items = _elements(type, element, value)
    return bytes(items) if element == "uint8" else items
