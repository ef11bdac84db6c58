"""The tasks of which the documentation speaks; those of Go's too."""

from __future__ import annotations

from typing import Any

from celery import shared_task

# This registers `add`, `multiply` and `py_add`.
from tests.support.tasks import add


def sum_of(numbers: list[int]) -> int:
    return sum(numbers)


def one(value: Any, *others: Any) -> Any:
    return value


for name, function in {
    "go_add": add,
    "sum_ints": add,
    "py_sum": sum_of,
    "resize": one,
    "publish": one,
    "tell": one,
}.items():
    shared_task(name=name)(function)
