"""The tasks of which the documentation speaks; those of Go's too."""

from __future__ import annotations

from typing import Any

from celery import shared_task


def add(*numbers: int) -> int:
    return sum(numbers)


def multiply(*numbers: int) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product


def sum_of(numbers: list[int]) -> int:
    return sum(numbers)


def one(value: Any, *others: Any) -> Any:
    return value


for name, function in {
    "add": add,
    "go_add": add,
    "py_add": add,
    "sum_ints": add,
    "multiply": multiply,
    "py_sum": sum_of,
    "resize": one,
    "publish": one,
    "tell": one,
}.items():
    shared_task(name=name)(function)
