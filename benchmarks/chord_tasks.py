"""The tasks of the chord benchmark."""

from celery import shared_task


@shared_task(name="nothing")
def nothing(number: int) -> int:
    return number


@shared_task(name="count")
def count(*numbers: int) -> int:
    return len(numbers)
