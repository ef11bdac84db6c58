"""The Python side of the interoperability tests: the same tasks as the Go worker's, named py_."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any

import redis
from celery import shared_task

from machinery_compat import RetryTaskLater, current_signature
from machinery_compat.wire import (
    Float32,
    Int,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
)

ECHO_TYPES: dict[str, Any] = {
    "bool": bool,
    "string": str,
    "bytes": bytes,
    "int": Int,
    "int8": Int8,
    "int16": Int16,
    "int32": Int32,
    "int64": Int64,
    "uint": Uint,
    "uint8": Uint8,
    "uint16": Uint16,
    "uint32": Uint32,
    "uint64": Uint64,
    "float32": Float32,
    "float64": float,
}
SLICE_TYPES: dict[str, Any] = {f"slice_{name}": list[kind] for name, kind in ECHO_TYPES.items() if name != "bytes"}


def journal() -> None:
    """Writes that the current task is being executed, in one write, so that processes do not mix."""
    signature = current_signature()
    path = os.environ.get("JOURNAL")
    if path and signature is not None:
        with open(path, "ab", buffering=0) as file:
            file.write(f"{signature.uuid} {signature.name} py\n".encode())


def task(function: Callable[..., Any] | None = None, *, name: str = "", **options: Any) -> Any:
    """A shared task that writes the journal each time it is executed."""

    def register(run: Callable[..., Any]) -> Any:
        def journaled(*args: Any, **kwargs: Any) -> Any:
            journal()
            return run(*args, **kwargs)

        journaled.__name__ = run.__name__
        journaled.__module__ = run.__module__
        journaled.__wrapped__ = run  # type: ignore[attr-defined]
        journaled.__annotations__ = run.__annotations__
        return shared_task(name=name or run.__name__, **options)(journaled)

    return register(function) if function else register


def add(*numbers: int) -> int:
    return sum(numbers)


def multiply(*numbers: int) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product


def concat(parts: list[str]) -> str:
    return "".join(parts)


def join(*parts: str) -> str:
    return "".join(parts)


def concat_error(error: str) -> str:
    return error


def swap(text: str, number: int) -> tuple[int, str]:
    return number, text


def who() -> str:
    return "py"


def fail(text: str) -> None:
    raise ValueError(text)


def nothing() -> None:
    pass


def sleep(milliseconds: int) -> int:
    time.sleep(milliseconds / 1000)
    return milliseconds


def greet(name: str, greeting: str = "Hello") -> str:
    return f"{greeting}, {name}!"


def describe(value: Any) -> str:
    return f"{type(value).__name__}: {value!r}"


def echo(value: Any) -> Any:
    return value


@lru_cache(maxsize=1)
def counters() -> redis.Redis:
    return redis.Redis.from_url(os.environ["COUNTERS"])


def fail_times(key: str, n: int, *rest: int) -> int:
    attempt = int(counters().incr(f"attempts:{key}"))
    if attempt < n:
        raise RuntimeError(f"attempt {attempt} of {n}")
    return attempt


def retry_later(key: str, n: int, delay: int) -> int:
    attempt = int(counters().incr(f"attempts:{key}"))
    if attempt < n:
        raise RetryTaskLater(f"attempt {attempt} of {n}", timedelta(milliseconds=delay))
    return attempt


def headers() -> dict[str, Any]:
    signature = current_signature()
    assert signature is not None
    return dict(signature.headers or {})


for function in (
    add,
    multiply,
    concat,
    concat_error,
    join,
    swap,
    who,
    fail,
    nothing,
    sleep,
    greet,
    describe,
    echo,
    fail_times,
    retry_later,
    headers,
):
    task(function, name=f"py_{function.__name__}")
#: Names that workers of both languages know.
task(who, name="who")
task(add, name="add")
task(multiply, name="multiply")
task(echo, name="mixed")


@shared_task(name="py_again", bind=True)
def again(self: Any, x: int, y: int) -> int:
    """Celery's own retry, twice."""
    journal()
    if self.request.retries < 2:
        raise self.retry(countdown=0.1, max_retries=3)
    return x + y + self.request.retries


@shared_task(name="py_told")
def told(task_id: str) -> str:
    """An error callback of Celery's older kind."""
    return task_id


@shared_task(name="py_join_chord", bind=True)
def join_chord(self: Any, x: int) -> int:
    """Makes one more task a member of its chord."""
    self.add_to_chord(self.app.signature("py_add", (x, 99 + x)))
    return x


# Tasks that hop: each language's worker counts in the same counter.
task(fail_times, name="fail_times")


def _echo_of(name: str, kind: Any) -> None:
    def typed(value: Any) -> Any:
        return value

    typed.__annotations__ = {"value": kind, "return": kind}
    task(typed, name=f"py_echo_{name}")


for echo_name, echo_kind in {**ECHO_TYPES, **SLICE_TYPES}.items():
    _echo_of(echo_name, echo_kind)
