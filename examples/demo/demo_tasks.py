"""The tasks of the Python worker: ordinary Celery tasks."""

from __future__ import annotations

import os
from typing import Any

from celery import shared_task
from celery.signals import task_prerun

from machinery_compat import current_signature


@shared_task(name="py_add")
def add(*numbers: int) -> int:
    return sum(numbers)


@shared_task(name="py_greet")
def greet(name: str, greeting: str = "Hello") -> str:
    return f"{greeting}, {name}!"


@shared_task(name="py_divide")
def divide(dividend: int, divisor: int) -> int:
    if divisor == 0:
        raise ArithmeticError("cannot divide by zero, says Python")
    return dividend // divisor


@shared_task(name="py_keys")
def keys(value: dict[str, Any]) -> list[str]:
    """Machinery has no type for a dict: it travels as JSON text and is a dict again here."""
    return sorted(value)


@shared_task(name="py_flaky")
def flaky() -> str:
    """Fails as long as it will be tried again."""
    signature = current_signature()
    left = signature.retry_count if signature else 0
    if left > 0:
        raise RuntimeError(f"not yet, {left} retries left")
    return "done at last"


# The Go worker knows these two as well: whoever is free takes them.
shared_task(name="add")(add.run)
shared_task(name="flaky")(flaky.run)


@task_prerun.connect
def write_journal(task_id: str, **kwargs: Any) -> None:
    """The demo learns from the journal who ran what."""
    path = os.environ.get("JOURNAL")
    if path:
        with open(path, "ab", buffering=0) as journal:
            journal.write(f"{task_id} Python\n".encode())
