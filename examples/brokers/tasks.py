"""The Python tasks; the Go worker has them by the same names, so either may run each call.

MACHINERY_CONFIG=redis.yml celery -A machinery_compat worker -I tasks
"""

from __future__ import annotations

from celery import shared_task


# func Greet(name string) (string, error)
@shared_task(name="greet")
def greet(name: str) -> str:
    return f"Hello {name}, says Python"


# func Add(numbers ...int64) (int64, error)
@shared_task(name="add")
def add(*numbers: int) -> int:
    return sum(numbers)


# func Refuse(reason string) error
@shared_task(name="refuse")
def refuse(reason: str) -> None:
    """A task that fails."""
    raise ValueError(reason)
