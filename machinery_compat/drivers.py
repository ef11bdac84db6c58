"""Loads what needs a driver, and says which extra brings the driver where it is missing."""

from __future__ import annotations

from typing import Any

from kombu.utils.imports import symbol_by_name

from machinery_compat import errors

__all__ = ["load"]


def load(path: str, extra: str) -> Any:
    """The object at ``module:name``.

    Args:
        path: where it is.
        extra: the extra of this package that brings what the module imports.

    Raises:
        ConfigError: something that the module imports is not installed.
    """
    try:
        return symbol_by_name(path)
    except ImportError as exc:
        raise errors.ConfigError(
            f"this URL needs a driver that is not installed ({exc}): pip install 'machinery-compat[{extra}]'"
        ) from exc
