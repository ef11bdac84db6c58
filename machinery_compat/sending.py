"""Errors of senders: what is no task, and a result backend that is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.exceptions import OperationalError

from machinery_compat import errors

__all__ = ["StoreLost", "StoreUnreachable", "expect", "naming"]

_MADE_WITH = {
    "Signature": 'new_signature("add", 1, 2)',
    "Chain": "Chain(signature, signature)",
    "Group": "Group(signature, signature)",
    "Chord": "Chord(group, callback)",
}


class StoreUnreachable(errors.BackendError, OperationalError):  # type: ignore[misc]
    """A task is not sent, since its state cannot be written."""


class StoreLost(StoreUnreachable, ConnectionError):
    """The same where another try may help: senders try again after each ``ConnectionError``."""


@contextmanager
def naming(backend: Any) -> Iterator[None]:
    """Says of an error that it is the result backend's, which a sender would take for the broker's.

    Raises:
        StoreUnreachable: the server of the results is away.
    """
    try:
        yield
    except Exception as exc:
        if isinstance(exc, errors.MachineryError) or not backend.exception_safe_to_retry(exc):
            raise
        kind = StoreUnreachable if backend.tries_again else StoreLost
        raise kind(
            f"the result backend {backend.as_uri()} (result_backend, RESULT_BACKEND) cannot be reached: "
            f"{str(exc) or type(exc).__name__}"
        ) from exc


def expect(kind: type, value: object) -> None:
    """Checks what a caller gives who has no type checker.

    Raises:
        TypeError: it is of another kind.
    """
    if not isinstance(value, kind):
        raise TypeError(f"this sends a {kind.__name__}, not {value!r}; make one with {_MADE_WITH[kind.__name__]}")
