"""What a store cannot take."""

from __future__ import annotations

from kombu.exceptions import EncodeError as KombuEncodeError

from machinery_compat import errors

__all__ = ["TooLarge"]


class TooLarge(errors.BackendError, KombuEncodeError):  # type: ignore[misc]
    """A document is larger than the store allows. Being Kombu's error too, Celery makes it the task's failure."""
