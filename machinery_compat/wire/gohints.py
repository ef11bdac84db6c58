"""Python annotations that name Machinery types, and the way back from an annotation to a type."""

from __future__ import annotations

import collections.abc
import types
from typing import Annotated, Any, Final, Union, get_args, get_origin

from machinery_compat.wire.gotypes import TYPES

__all__ = [
    "Float32",
    "Float64",
    "GoType",
    "Int",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Uint",
    "Uint8",
    "Uint16",
    "Uint32",
    "Uint64",
    "is_strict",
    "type_of_hint",
]


class GoType:
    """Marks an annotation with a Machinery type: ``Annotated[int, GoType("int32")]``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if name not in TYPES:
            raise ValueError(f"{name} is not one of supported types")
        self.name = name

    def __repr__(self) -> str:
        return f"GoType({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GoType) and other.name == self.name

    def __hash__(self) -> int:
        return hash((GoType, self.name))


Int = Annotated[int, GoType("int")]
Int8 = Annotated[int, GoType("int8")]
Int16 = Annotated[int, GoType("int16")]
Int32 = Annotated[int, GoType("int32")]
Int64 = Annotated[int, GoType("int64")]
Uint = Annotated[int, GoType("uint")]
Uint8 = Annotated[int, GoType("uint8")]
Uint16 = Annotated[int, GoType("uint16")]
Uint32 = Annotated[int, GoType("uint32")]
Uint64 = Annotated[int, GoType("uint64")]
Float32 = Annotated[float, GoType("float32")]
Float64 = Annotated[float, GoType("float64")]

_PLAIN: Final[dict[Any, str]] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "string",
    bytes: "[]byte",
    bytearray: "[]byte",
}
_LISTS: Final = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.MutableSequence)


def _marker(hint: Any) -> GoType | None:
    if get_origin(hint) is Annotated:
        return next((item for item in get_args(hint)[1:] if isinstance(item, GoType)), None)
    return hint if isinstance(hint, GoType) else None


def _without_none(hint: Any) -> Any:
    """Reduce ``X | None`` to X; a union of more stays."""
    if get_origin(hint) in (Union, types.UnionType):
        rest = [item for item in get_args(hint) if item is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return hint


def _element(hint: Any) -> Any:
    """Return the annotation of a list's elements, or None where there is none or several."""
    if get_origin(hint) not in _LISTS:
        return None
    items = [item for item in get_args(hint) if item is not Ellipsis]
    return items[0] if len(items) == 1 else None


def type_of_hint(hint: Any) -> str | None:
    """Return the Machinery type that an annotation (or a type's own name) stands for, None if it names none."""
    hint = _without_none(hint)
    marker = _marker(hint)
    if marker is not None:
        return marker.name
    if isinstance(hint, str):
        return hint if hint in TYPES else None
    if get_origin(hint) is Annotated:
        return type_of_hint(get_args(hint)[0])
    try:
        if hint in _PLAIN:
            return _PLAIN[hint]
    except TypeError:  # an annotation that cannot be hashed names no type
        return None
    element = type_of_hint(_element(hint)) if _element(hint) is not None else None
    return "[]" + element if element is not None and "[]" + element in TYPES else None


def is_strict(hint: Any) -> bool:
    """Tell whether an annotation names a Go type itself and so decides whatever the value is."""
    hint = _without_none(hint)
    if isinstance(hint, str):
        return hint in TYPES
    if _marker(hint) is not None:
        return True
    if get_origin(hint) is Annotated:
        return is_strict(get_args(hint)[0])
    element = _element(hint)
    return element is not None and is_strict(element)
