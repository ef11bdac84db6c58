"""How a setting is declared: its default, and its names in a YAML file, in the environment and in Go."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

__all__ = ["INT64", "UINT16", "ConfigWarning", "Kind", "Setting", "section", "setting", "settings_of"]

#: The types a setting may have; the readers know one rule for each.
Kind = Literal["string", "int", "*int", "uint16", "bool", "[]string", "declare args", "binding args", "section"]
#: The smallest and the largest value of Go's ``int``, and of its ``uint16``.
INT64 = (-(2**63), 2**63 - 1)
UINT16 = (0, 2**16 - 1)

T = TypeVar("T")
_KEY = "machinery"


class ConfigWarning(UserWarning):
    """A configuration says something that has no effect."""


@dataclass(frozen=True)
class Setting:
    """One key of the configuration.

    Attributes:
        attribute: its name in the dataclass.
        kind: its type, in Go's words.
        go: the names of Go's field, for error texts; one for each variable, the last one for the rest.
        yaml: its names in a YAML file; two where versions of Machinery differ.
        env: its plain variables, the one that wins first; empty for a section or a setting of a YAML file only.
        section: the dataclass of a section.
        needs_key: whether a YAML file without the key makes the section None, whatever the default is.
    """

    attribute: str
    kind: Kind
    go: tuple[str, ...]
    yaml: tuple[str, ...]
    env: tuple[str, ...] = ()
    section: type[Any] | None = None
    needs_key: bool = False


def setting(default: T, kind: Kind, go: str, yaml: str, env: str) -> T:
    """Declares a setting; several names are separated by blanks."""
    meta = {_KEY: {"kind": kind, "go": tuple(go.split()), "yaml": tuple(yaml.split()), "env": tuple(env.split())}}
    secret = go.endswith("Password")
    return dataclasses.field(default=default, repr=not secret, metadata=meta)


def section(cls: type[T], go: str, yaml: str, *, present: bool, needs_key: bool = False) -> T | None:
    """Declares a section.

    Args:
        cls: its dataclass.
        go: the name of Go's field; upper-cased, the prefix of its variables.
        yaml: its key.
        present: whether a Config made in code has it, else None.
        needs_key: see :class:`Setting`.
    """
    meta = {_KEY: {"kind": "section", "go": (go,), "yaml": (yaml,), "section": cls, "needs_key": needs_key}}
    return dataclasses.field(default_factory=cls if present else type(None), metadata=meta)


def settings_of(cls: type[Any]) -> Iterator[Setting]:
    """The settings of a dataclass that a file or the environment can give, in Go's order."""
    for item in dataclasses.fields(cls):
        if _KEY in item.metadata:
            yield Setting(item.name, **item.metadata[_KEY])
