"""What a sender sees of a result backend that is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.exceptions import OperationalError

from machinery_compat import errors

__all__ = ["StoreLost", "StoreUnreachable", "naming"]


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
