"""Reads a configuration from environment variables, by the rules of Go's envconfig 1.4.0."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from machinery_compat import errors
from machinery_compat._config.fields import INT64, UINT16, Setting, settings_of

__all__ = ["parse_bool", "parse_int", "parse_map", "read"]

T = TypeVar("T")
#: The variables of Go's tls.Config have no tag: one name each, made of the field's. A section of its own only if used.
_TLS = "TLSCONFIG"

_SIGN = re.compile(r"[+-]")
_INTEGER = re.compile(r"0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO](_?[0-7])+|0(_?[0-7])*|[1-9](_?[0-9])*")
_BASES = {"x": 16, "b": 2, "o": 8}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def read(cls: type[T], environ: Mapping[str, str]) -> tuple[T, list[str]]:
    """Makes a ``cls`` from variables.

    Returns:
        the instance, and the TLSCONFIG_* variables that mean nothing here.

    Raises:
        ConfigError: values of the wrong type; one Go text for each.
    """
    problems: list[str] = []
    made = _read(cls, environ, "", problems)
    if problems:
        raise errors.ConfigError("; ".join(problems))
    return made, _unknown(cls, environ)


def _read(cls: type[T], environ: Mapping[str, str], prefix: str, problems: list[str]) -> T:
    values: dict[str, Any] = {}
    for item in settings_of(cls):
        if item.section is not None:
            name = item.go[0].upper()
            if name == _TLS and not any(variable.startswith(f"{_TLS}_") for variable in environ):
                continue
            values[item.attribute] = _read(item.section, environ, name, problems)
            continue
        found = _find(item, environ, prefix)
        if found is not None:
            key, go_name, text = found
            try:
                values[item.attribute] = _PARSERS[item.kind](text)
            except ValueError as exc:
                problems.append(
                    f"envconfig.Process: assigning {key} to {go_name}: converting '{text}' "
                    f"to type {_GO_TYPES.get(item.kind, item.kind)}. details: {exc}"
                )
    return cls(**values)


def _find(item: Setting, environ: Mapping[str, str], prefix: str) -> tuple[str, str, str] | None:
    """The key as errors name it (the primary one, as in Go), Go's field, and the text of the variable that counts."""
    for index, tag in enumerate(item.env):
        single = not prefix or prefix == _TLS
        names = [tag] if single else [f"{prefix}_{tag}", tag]
        for name in names:
            if name in environ:
                return names[0], item.go[min(index, len(item.go) - 1)], environ[name]
    return None


def _unknown(cls: type[Any], environ: Mapping[str, str]) -> list[str]:
    sections = [item.section for item in settings_of(cls) if item.section is not None]
    known = {tag for section in sections for item in settings_of(section) for tag in item.env}
    return sorted(name for name in environ if name.startswith(f"{_TLS}_") and name not in known)


def parse_int(text: str, limits: tuple[int, int] = INT64) -> int:
    """An integer as Go's literals are written (``strconv.ParseInt`` and ``ParseUint`` with base 0).

    Raises:
        ValueError: with Go's text.
    """
    signed = limits[0] < 0
    function = "ParseInt" if signed else "ParseUint"
    digits = text[1:] if signed and _SIGN.match(text) else text
    if not _INTEGER.fullmatch(digits):
        raise ValueError(f"strconv.{function}: parsing {_quoted(text)}: invalid syntax")
    digits = digits.replace("_", "")
    if digits[0] == "0" and len(digits) > 1:
        base = _BASES.get(digits[1].lower())
        number = int(digits[2:], base) if base else int(digits, 8)
    else:
        # Longer than any 64-bit number: not worth Python's own limit on the length of numbers.
        number = int(digits) if len(digits) < 30 else 2**64
    number = -number if text.startswith("-") else number
    if not limits[0] <= number <= limits[1]:
        raise ValueError(f"strconv.{function}: parsing {_quoted(text)}: value out of range")
    return number


def parse_bool(text: str) -> bool:
    """A bool as Go's ``strconv.ParseBool`` reads it.

    Raises:
        ValueError: with Go's text.
    """
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"strconv.ParseBool: parsing {_quoted(text)}: invalid syntax")


def parse_map(text: str) -> dict[str, str]:
    """``k1:v1,k2:v2``; a blank text is an empty map.

    Raises:
        ValueError: an item has not exactly one ``:``; with Go's text.
    """
    found: dict[str, str] = {}
    for item in text.split(",") if text.strip() else []:
        key, colon, value = item.partition(":")
        if not colon or ":" in value:
            raise ValueError(f"invalid map item: {_quoted(item)}")
        found[key] = value
    return found


def _declare_args(text: str) -> dict[str, Any]:
    """Go makes every value null, which RabbitMQ refuses. Here numbers and true and false are what they look like."""
    return {key: _plain(value) for key, value in parse_map(text).items()}


def _plain(text: str) -> str | int | bool:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "int": parse_int,
    "*int": parse_int,
    "uint16": lambda text: parse_int(text, UINT16),
    "bool": parse_bool,
    "[]string": lambda text: text.split(",") if text.strip() else [],
    "declare args": _declare_args,
    "binding args": parse_map,
}
_GO_TYPES = {"declare args": "config.QueueDeclareArgs", "binding args": "config.QueueBindingArgs"}
