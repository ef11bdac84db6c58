"""A typed value as Machinery sends it: a type name and JSON text that is decoded only when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from machinery_compat.wire import gojson
from machinery_compat.wire.gotypes import decode_value

__all__ = ["Typed", "is_odd", "settle"]

_MIN: Final = -(2**63)
_MAX: Final = 2**63 - 1

if TYPE_CHECKING:
    _Base = msgspec.Struct
else:

    class _TypedMeta(type(msgspec.Struct)):
        """Lets ``Arg("int32", 5)`` encode its value, while decoders fill the struct without a call."""

        def __call__(cls, *args: Any, **named: Any) -> Any:
            return cls._new(*args, **named)

        def _fill(cls, **fields: Any) -> Any:
            return super().__call__(**fields)

    class _Base(msgspec.Struct, gc=False, metaclass=_TypedMeta):
        pass


class Typed(_Base, gc=False):
    """What Arg and TaskResult share; they declare `type` and `_raw` in the order of their members."""

    if TYPE_CHECKING:
        type: str
        _raw: msgspec.Raw

        @classmethod
        def _fill(cls, **fields: Any) -> Any: ...

    @property
    def raw(self) -> bytes:
        """The Value's JSON text, in the form in which Go would write it."""
        return gojson.canonical(bytes(self._raw))

    @property
    def value(self) -> Any:
        """The Value, converted as Go would.

        Raises:
            ArgumentError: the Value does not fit the Type; the text is Go's.
        """
        if self.type == "int64":  # by far the commonest
            try:
                number = int(self._raw)
            except ValueError:
                pass
            else:
                if _MIN <= number <= _MAX:
                    return number
        return decode_value(self.type, bytes(self._raw))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Typed) or self.__class__ is not other.__class__:
            return NotImplemented
        # A decoded Value may still be spelled in its producer's way.
        names = [name for name in self.__struct_fields__ if name != "_raw"]
        return self.raw == other.raw and all(getattr(self, name) == getattr(other, name) for name in names)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}.from_raw({self.type!r}, {self.raw!r})"


def is_odd(data: bytes) -> bool:
    """Tell whether a document holds any byte that might make a flat Value differ from what Go would write.

    These are blanks, escapes, the characters that Go escapes, and anything outside ASCII.
    """
    return (
        32 in data
        or 92 in data
        or not data.isascii()
        or 60 in data
        or 62 in data
        or 38 in data
        or 10 in data
        or 13 in data
        or 9 in data
    )


def settle(values: Iterable[Typed]) -> None:
    """Bring the text of decoded Values into the form in which Go would write them again."""
    for value in values:
        raw = bytes(value._raw)
        settled = gojson.canonical(raw)
        if settled is not raw:
            value._raw = msgspec.Raw(settled)
