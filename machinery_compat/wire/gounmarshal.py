"""What ``json.Decoder`` does when it fills one of Machinery's structs: the slow and exact way.

Names match in any case, unknown members are skipped, null leaves a scalar as it is, a repeated member merges
into what its first appearance left, and every refusal carries Go's text. Nesting costs no recursion: each
object and list in progress is a generator on a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from machinery_compat.errors import DecodeError, EncodeError
from machinery_compat.wire import gojson
from machinery_compat.wire.goparse import GoNumber, Members, fold, parse
from machinery_compat.wire.gotime import parse_time, time_text

__all__ = ["Record", "Spec", "unmarshal"]

_Steps = Generator["_Steps", None, None]
_Path = tuple[Any, str] | None  # the way to a member: (way to its object, its name)

_INTEGER_RANGES: Final = {"int": (-(2**63), 2**63 - 1), "int64": (-(2**63), 2**63 - 1), "uint8": (0, 255)}
_is_integer = re.compile(r"-?[0-9]{1,20}").fullmatch
_is_whole = re.compile(r"-?[0-9]{1,4000}").fullmatch  # Python itself refuses longer ones
_is_natural = re.compile(r"[0-9]{1,20}").fullmatch


class Spec:
    """One Go struct: its name and the Go type of each field.

    Scalar types are named as in Go; ``any``, ``map``, ``time`` and ``extra`` (a string that Go itself does not know)
    are this reader's own; ``*T`` is a pointer to another Spec, ``[]T`` and ``[]*T`` a slice of them.
    """

    def __init__(self, name: str, fields: Mapping[str, str], build: Callable[[dict[str, Any]], Any]) -> None:
        self.name = name
        self.fields = fields
        self.build = build
        self.folded = {fold(field): field for field, kind in fields.items() if kind != "extra"}

    def field(self, name: str) -> str | None:
        """Find the field that a member's name means."""
        return name if name in self.fields else self.folded.get(fold(name))


class Record:
    """One struct being filled."""

    __slots__ = ("backing", "fields", "spec")

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.fields: dict[str, Any] = {}
        # Go keeps a slice's array when a later list is shorter, and finds the old elements there again.
        self.backing: dict[str, list[Any]] = {}


def _kind_of(value: Any) -> str:
    if isinstance(value, Members):
        return "object"
    if isinstance(value, list):
        return "array"
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, GoNumber) else "string"


class _Filler:
    """One decoding; it remembers the first mismatch, as Go reads on after one."""

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        self.specs = specs
        self.records: list[Record] = []
        self.mismatch: str | None = None

    def record(self, name: str) -> Record:
        record = Record(self.specs[name])
        self.records.append(record)
        return record

    def mistyped(self, what: str, go_type: str, path: _Path, spec: Spec | None) -> None:
        if self.mismatch is not None:
            return
        if spec is None:
            place = "value"
        else:
            names: list[str] = []
            while path is not None:
                path, name = path
                names.append(name)
            place = f"struct field {spec.name}.{'.'.join(reversed(names))}"
        self.mismatch = f"json: cannot unmarshal {what} into Go {place} of type {go_type}"

    def struct(self, record: Record, value: Any, path: _Path, outer: Spec | None) -> _Steps:
        """Read an object into a record."""
        spec = record.spec
        if not isinstance(value, Members):
            self.mistyped(_kind_of(value), "tasks." + spec.name, path, outer)
            return
        for name, item in value:
            field = spec.field(name)
            if field is None:
                continue
            kind = spec.fields[field]
            way = (path, field)
            if kind.startswith("[]"):
                yield self.slice(record, field, kind[2:], item, way)
            elif kind[0] == "*" and kind != "*time":
                if item is None:
                    record.fields[field] = None
                    continue
                if record.fields.get(field) is None:
                    record.fields[field] = self.record(kind[1:])
                yield self.struct(record.fields[field], item, way, spec)
            else:
                self.scalar(record, field, kind, item, way)

    def slice(self, record: Record, field: str, element: str, value: Any, path: _Path) -> _Steps:
        """Read an array into a slice field."""
        if value is None:
            record.fields[field] = None
            record.backing.pop(field, None)
            return
        if isinstance(value, Members) or not isinstance(value, list):
            pointer = "*" if element[0] == "*" else ""
            go_type = element if element == "string" else f"{pointer}tasks.{element.lstrip('*')}"
            self.mistyped(_kind_of(value), "[]" + go_type, path, record.spec)
            return
        if not value:
            record.fields[field] = []
            record.backing.pop(field, None)
            return
        backing = record.backing.setdefault(field, [])
        for index, item in enumerate(value):
            if index == len(backing):
                backing.append(None if element.startswith("*") else "" if element == "string" else self.record(element))
            if element == "string":
                if isinstance(item, str) and not isinstance(item, GoNumber):
                    backing[index] = item
                elif item is not None:
                    self.mistyped(_kind_of(item), "string", path, record.spec)
            elif item is None:
                if element.startswith("*"):
                    backing[index] = None
            else:
                if backing[index] is None:
                    backing[index] = self.record(element[1:])
                yield self.struct(backing[index], item, path, record.spec)
        record.fields[field] = backing[: len(value)]

    def scalar(self, record: Record, field: str, kind: str, value: Any, path: _Path) -> None:
        fields = record.fields
        if kind == "any":
            fields[field] = value
        elif kind == "extra":
            fields[field] = value if isinstance(value, str) and not isinstance(value, GoNumber) else None
        elif kind == "map":
            self.map(record, field, value, path)
        elif kind in ("time", "*time"):
            self.time(record, field, kind, value)
        elif value is None:
            return
        elif kind in _INTEGER_RANGES:
            self.integer(record, field, kind, value, path)
        elif _kind_of(value) == kind:
            fields[field] = value
        else:
            self.mistyped(_kind_of(value), kind, path, record.spec)

    def integer(self, record: Record, field: str, kind: str, value: Any, path: _Path) -> None:
        if not isinstance(value, GoNumber):
            self.mistyped(_kind_of(value), kind, path, record.spec)
            return
        low, high = _INTEGER_RANGES[kind]
        if (_is_natural if low == 0 else _is_integer)(value) and low <= int(value) <= high:
            record.fields[field] = int(value)
        else:
            self.mistyped(f"number {value}", kind, path, record.spec)

    def map(self, record: Record, field: str, value: Any, path: _Path) -> None:
        if value is None:
            record.fields[field] = None
        elif isinstance(value, Members):
            merged = dict(record.fields.get(field) or {})
            merged.update(value)
            record.fields[field] = merged
        else:
            self.mistyped(_kind_of(value), "tasks.Headers", path, record.spec)

    def time(self, record: Record, field: str, kind: str, value: Any) -> None:
        if value is None:
            if kind == "*time":
                record.fields[field] = None
        elif isinstance(value, str) and not isinstance(value, GoNumber):
            text = parse_time(value)
            if kind == "time":
                # A document is written again with the time that it had.
                try:
                    text = time_text(text)
                except EncodeError as error:
                    raise DecodeError(str(error)) from None
            record.fields[field] = text
        else:
            shown = gojson.dumps(value).decode("utf-8", "replace")
            raise DecodeError(f'parsing time "{shown}": a time must be a JSON string')


def _simplify(value: Any) -> Any:
    """Turn the parsed values of a map into plain dicts, lists and exact ints; other numbers keep their spelling."""
    holder = [value]
    pending: list[tuple[Any, Any]] = [(holder, 0)]
    while pending:
        container, key = pending.pop()
        item = container[key]
        if isinstance(item, Members):
            item = container[key] = dict(item)
            pending.extend((item, name) for name in item)
        elif isinstance(item, list):
            pending.extend((item, index) for index in range(len(item)))
        elif isinstance(item, GoNumber) and _is_whole(item) and item != "-0":
            container[key] = int(item)
    return holder[0]


def _finish(record: Record, built: dict[int, Any]) -> Any:
    values: dict[str, Any] = {}
    for field, value in record.fields.items():
        if isinstance(value, Record):
            value = built[id(value)]
        elif isinstance(value, list) and record.spec.fields[field] != "[]string" and record.spec.fields[field] != "any":
            value = [built[id(item)] if isinstance(item, Record) else item for item in value]
        elif record.spec.fields[field] == "map" and value is not None:
            value = {name: _simplify(item) for name, item in value.items()}
        elif record.spec.fields[field] == "any":
            value = gojson.dumps(value)
        values[field] = value
    return record.spec.build(values)


def unmarshal(data: bytes, name: str, specs: Mapping[str, Spec]) -> Any:
    """Read a document into the struct of that name, as Go would.

    Raises:
        DecodeError: Go would refuse the document; the text is Go's.
    """
    tree = parse(data)
    filler = _Filler(specs)
    top = filler.record(name)
    if tree is not None:
        stack: list[_Steps] = [filler.struct(top, tree, None, None)]
        while stack:
            try:
                stack.append(next(stack[-1]))
            except StopIteration:
                stack.pop()
    if filler.mismatch is not None:
        raise DecodeError(filler.mismatch)
    built: dict[int, Any] = {}
    # A record is always made after the one it stands in, so from the last to the first every part is ready.
    for record in reversed(filler.records):
        built[id(record)] = _finish(record, built)
    return built[id(top)]
