"""Tasks of the integration tests that Go has no counterpart of."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Ignore, Reject

from tests.support.tasks import journal, task

POLL_SECONDS = 0.02


class Refused(Exception):
    """An exception of the application's own."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason, code)
        self.reason = reason
        self.code = code

    def __str__(self) -> str:
        return f"{self.reason} ({self.code})"


@task(name="refuse")
def refuse(reason: str, code: int) -> None:
    raise Refused(reason, code)


@task(name="missing_key")
def missing_key() -> None:
    raise KeyError("a", 1)


@shared_task(name="progress", bind=True)
def progress(self: Task, path: str) -> str:
    """Tells how far it is and goes on when the file exists."""
    self.update_state(state="PROGRESS", meta={"done": 3, "of": 7})
    await_file(path)
    return "done"


@task(name="until")
def until(path: str) -> str:
    """Runs until the file exists."""
    await_file(path)
    return path


@task(name="started_until")
def started_until(started: str, path: str) -> str:
    """Makes the first file and runs until the second one exists."""
    Path(started).touch()
    await_file(path)
    return path


@shared_task(name="parent", bind=True)
def parent(self: Task) -> int:
    """Sends two children."""
    for number in (1, 2):
        self.app.send_task("py_add", [number, number])
    return 0


@shared_task(name="quiet", ignore_result=True)
def quiet(path: str) -> int:
    Path(path).touch()
    return 1


@task(name="touch")
def touch(path: str) -> int:
    Path(path).touch()
    return 1


@shared_task(name="ignored", bind=True)
def ignored(self: Task) -> None:
    self.update_state(state="ELSEWHERE", meta={"by": "hand"})
    raise Ignore


@shared_task(name="rejected", bind=True)
def rejected(self: Task) -> None:
    raise Reject("no reason", requeue=False)


@shared_task(name="hesitant", bind=True, acks_late=True)
def hesitant(self: Task, times: int) -> list[bool]:
    """Puts its message back so many times; tells each time whether it was delivered before."""
    journal()
    told = Path(os.environ["JOURNAL"] + f".{self.request.id}")
    with told.open("a") as file:
        file.write(f"{int(self.request.delivery_info['redelivered'])}\n")
    seen = [line == "1" for line in told.read_text().split()]
    if len(seen) <= times:
        raise Reject("not yet", requeue=True)
    return seen


@shared_task(name="doubled")
def doubled(value: Any) -> Any:
    """Twice a number, or twice all that a list holds."""
    return value * 2


@shared_task(name="ended_before", bind=True, acks_late=True)
def ended_before(self: Task, value: int) -> int:
    """Stores its end and puts its message back, as if its worker had died just then."""
    journal()
    self.backend.store_result(self.request.id, value, "SUCCESS")
    raise Reject("what follows is not sent", requeue=True)


@shared_task(name="again", bind=True, max_retries=2, default_retry_delay=0)
def again(self: Task, times: int) -> int:
    """Celery's own retry."""
    journal()
    if self.request.retries < times:
        raise self.retry(exc=ValueError(f"attempt {self.request.retries}"))
    return int(self.request.retries)


@shared_task(name="typed")
def typed(count: int, ratio: float, name: str = "x", tags: list[str] | None = None, *, loud: bool = False) -> list[str]:
    return [repr(value) for value in (count, ratio, name, tags, loud)]


@shared_task(name="where")
def where() -> list[int]:
    """The process that runs this and its parent."""
    return [os.getpid(), os.getppid()]


@task(name="number")
def number(value: int) -> int:
    """Leaves its order in the journal of values."""
    with open(os.environ["VALUES"], "ab", buffering=0) as file:
        file.write(f"{value}\n".encode())
    return value


@shared_task(name="timed")
def timed() -> float:
    return time.time()


@shared_task(name="request_of", bind=True)
def request_of(self: Task) -> dict[str, Any]:
    request = self.request
    return {
        "id": request.id,
        "root_id": request.root_id,
        "expires": request.expires,
        "priority": request.delivery_info["priority"],
    }


def await_file(path: str) -> None:
    while not Path(path).exists():
        time.sleep(POLL_SECONDS)
