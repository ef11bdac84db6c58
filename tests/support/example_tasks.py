"""The tasks of Machinery's published example, in Python: the same names, arguments and results."""

from __future__ import annotations

import time

from celery import shared_task


@shared_task(name="add")
def add(*numbers: int) -> int:
    return sum(numbers)


@shared_task(name="multiply")
def multiply(*numbers: int) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product


@shared_task(name="sum_ints")
def sum_ints(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task(name="sum_floats")
def sum_floats(numbers: list[float]) -> float:
    return sum(numbers)


@shared_task(name="concat")
def concat(parts: list[str]) -> str:
    return "".join(parts)


@shared_task(name="split")
def split(text: str) -> list[str]:
    return list(text)


@shared_task(name="panic_task")
def panic_task() -> str:
    raise RuntimeError("oops")


@shared_task(name="long_running_task")
def long_running_task() -> None:
    # As long as the published one.
    time.sleep(10)
