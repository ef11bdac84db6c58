"""Reads a configuration from the text of a YAML file, as Go Machinery's ``file.go`` does, but of any length.

The scalars are read from YAML's nodes, not from Python values: a queue named ``010`` or ``on`` keeps its name, as in
Go.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import yaml

from machinery_compat import errors, urls
from machinery_compat._config import environment
from machinery_compat._config.fields import INT64, UINT16, Setting, settings_of

__all__ = ["read"]

T = TypeVar("T")
_IN_CODE = ("gcppubsub", "gcp_pub_sub", "gcp_pubsub", "mongodb", "mongo_db")
_EXPECTED = {
    "string": "a string",
    "int": "an integer",
    "*int": "an integer",
    "uint16": "an integer from 0 to 65535",
    "bool": "true or false",
    "[]string": "a list of strings",
    "declare args": "a mapping",
    "binding args": "a mapping",
    "section": "a mapping",
}
#: What Go gives a scalar whose value is missing (``broker:``): zero, not the default.
_ZERO: dict[str, Any] = {"string": "", "int": 0, "uint16": 0, "bool": False}


def read(cls: type[T], data: bytes) -> tuple[T, list[str]]:
    """Makes a ``cls`` from the content of a file.

    Returns:
        the instance, and one text for each key that means nothing, with what may have been meant.

    Raises:
        ConfigError: nothing in the file, no YAML, or values of the wrong type.
    """
    if not data.strip():
        raise errors.ConfigError("Read from file error: EOF (the file is empty)")
    try:
        return _Reader(data, cls).read(cls)
    except yaml.MarkedYAMLError as exc:
        # str(exc) would show the line, and with it perhaps a password.
        where = f" in line {exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise errors.ConfigError(f"Unmarshal YAML error: {exc.problem or exc.context}{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise errors.ConfigError(f"Unmarshal YAML error: {getattr(exc, 'reason', type(exc).__name__)}") from None


class _Unfit(Exception):
    """A node is not of the type that its key wants."""


class _Reader:
    def __init__(self, data: bytes, root: type[Any]) -> None:
        self._loader = yaml.SafeLoader(data)
        self._names = list(_names(root))
        self._problems: list[str] = []
        self._unknown: list[str] = []

    def read(self, cls: type[T]) -> tuple[T, list[str]]:
        try:
            node = self._loader.get_single_node()
            if node is None:  # nothing but comments
                node = yaml.MappingNode("tag:yaml.org,2002:map", [])
            if not isinstance(node, yaml.MappingNode):
                raise errors.ConfigError(f"Unmarshal YAML error: expected a mapping of keys, got {_shown(node)}")
            made = self._section(cls, node, "")
        finally:
            self._loader.dispose()
        if self._problems:
            raise errors.ConfigError("Unmarshal YAML error: " + "; ".join(self._problems))
        return made, self._unknown

    def _section(self, cls: type[T], node: yaml.MappingNode, path: str) -> T:
        self._loader.flatten_mapping(node)
        known = {name: item for item in settings_of(cls) for name in item.yaml}
        values: dict[str, Any] = {item.attribute: None for item in known.values() if item.needs_key}
        seen: dict[str, str] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "(a key that is no text)"
            item = known.get(key)
            if item is None:
                self._unknown.append(self._hint(path + key))
                continue
            try:
                value = self._value(item, value_node, path + key)
            except _Unfit:
                line = value_node.start_mark.line + 1
                self._problems.append(
                    f"{path}{key}: expected {_EXPECTED[item.kind]}, got {_shown(value_node)} in line {line}"
                )
                continue
            other = seen.setdefault(item.attribute, key)
            if other != key and values[item.attribute] != value:
                self._problems.append(f"{path}{key} and {path}{other} are one setting and contradict each other")
            values[item.attribute] = value
        return cls(**values)

    def _value(self, item: Setting, node: yaml.Node, path: str) -> Any:
        if node.tag == "tag:yaml.org,2002:null":
            return _ZERO.get(item.kind)
        if item.section is not None:
            return self._section(item.section, _mapping(node), f"{path}.")
        if item.kind == "string":
            return _scalar(node)
        if item.kind == "bool":
            return self._bool(node)
        if item.kind in ("int", "*int"):
            return self._int(node, INT64)
        if item.kind == "uint16":
            return self._int(node, UINT16)
        if item.kind == "[]string":
            if not isinstance(node, yaml.SequenceNode):
                raise _Unfit
            return [_scalar(child) for child in node.value]
        return self._map(_mapping(node))

    def _map(self, node: yaml.MappingNode) -> dict[str, Any]:
        # A key such as `on` or `010` is its text, as in Go.
        self._loader.flatten_mapping(node)
        return {_scalar(key): self._loader.construct_object(value, deep=True) for key, value in node.value}

    def _bool(self, node: yaml.Node) -> bool:
        text = _scalar(node)
        if node.tag == "tag:yaml.org,2002:bool":
            return bool(self._loader.construct_object(node))
        if not _quoted(node) and text in ("y", "Y", "n", "N"):
            return text in ("y", "Y")
        raise _Unfit

    def _int(self, node: yaml.Node, limits: tuple[int, int]) -> int:
        text = _scalar(node)
        if _quoted(node):  # no number, as in Go
            raise _Unfit
        try:
            return environment.parse_int(text, limits)
        except ValueError:
            if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?", text):
                raise _Unfit from None
        number = float(text)
        if not number.is_integer() or not limits[0] <= number <= limits[1]:
            raise _Unfit
        return int(number)

    def _hint(self, path: str) -> str:
        if path.lower() in _IN_CODE:
            return f"{path} (can be set in code only)"
        leaves = [name for name in self._names if name.rpartition(".")[2] == path.rpartition(".")[2].lower()]
        close = leaves or difflib.get_close_matches(path.lower(), self._names, n=1, cutoff=0.6)
        return f"{path} (did you mean {close[0]}?)" if close else path


def _names(cls: type[Any], path: str = "") -> Iterator[str]:
    for item in settings_of(cls):
        for name in item.yaml:
            yield path + name
            if item.section is not None:
                yield from _names(item.section, f"{path}{name}.")


def _scalar(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _Unfit
    return str(node.value)


def _quoted(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and bool(node.style)


def _mapping(node: yaml.Node) -> yaml.MappingNode:
    if not isinstance(node, yaml.MappingNode):
        raise _Unfit
    return node


def _shown(node: yaml.Node) -> str:
    """The node for an error text, without what may be a password."""
    if isinstance(node, yaml.ScalarNode):
        return repr(urls.redact(str(node.value)))
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
