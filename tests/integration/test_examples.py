"""The programs in ``examples/``, run as a reader of the guides runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.conftest import GoClientFactory, GoWorkerFactory
from tests.support.golang import arg, signature
from tests.support.processes import Process
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
QUEUE = "machinery_tasks"

#: What the caller prints, before and after.
SHOP = """\
total: 25.2
receipt: Ada: 2 items
charge: Ada has paid 2520 cents after 1 retry
refund: Bob has bought nothing
"""

pytestmark = pytest.mark.redis


class Program:
    """One of the examples' folders: its worker runs, and its other programs can be run."""

    def __init__(self, folder: str, environment: dict[str, str], directory: Path) -> None:
        self.folder = EXAMPLES / folder
        self.environment = {**environment, "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
        self.log = directory / f"{folder}.log"

    def worker(self, *command: str, ready: str) -> Process:
        process = Process([sys.executable, *command], self.log, self.environment)
        wait_for(
            lambda: ready in self.log.read_text(errors="replace") or not process.running(),
            40,
            lambda: f"not ready\n{process.tail()}",
        )
        assert process.running(), process.tail()
        return process

    def run(self, script: str, *arguments: str) -> str:
        finished = subprocess.run(
            [sys.executable, str(self.folder / script), *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr + self.log.read_text(errors="replace")
        return finished.stdout


class ProgramFactory(Protocol):
    def __call__(self, folder: str, *command: str, ready: str) -> Program: ...


@pytest.fixture
def program(redis_db: str, tmp_path: Path) -> Iterator[ProgramFactory]:
    """Starts the worker of one of the examples."""
    environment = {"REDIS_URL": redis_db, "BROKER": redis_db, "RESULT_BACKEND": redis_db, "DEFAULT_QUEUE": QUEUE}
    with ExitStack() as stack:

        def start(folder: str, *command: str, ready: str) -> Program:
            # Celery itself takes RESULT_BACKEND for its own, so plain Celery must not see it.
            own = environment if folder != "celery_app_before" else {"REDIS_URL": redis_db}
            found = Program(folder, own, tmp_path)
            stack.callback(found.worker(*command, ready=ready).stop)
            return found

        yield start


CELERY_WORKER = ("-m", "celery", "-A", "shop", "worker", "-c", "2", "-n", "shop@test", "-l", "INFO")


def test_the_celery_app_before(program: ProgramFactory) -> None:
    shop = program("celery_app_before", *CELERY_WORKER, ready=" ready.")

    assert shop.run("caller.py") == SHOP


@pytest.mark.go
def test_the_celery_app_after(
    program: ProgramFactory, redis_db: str, go_worker: GoWorkerFactory, go_client: GoClientFactory
) -> None:
    shop = program("celery_app_after", *CELERY_WORKER, ready=" ready.")
    go_worker(broker=redis_db, backend=redis_db, queue=QUEUE)
    client = go_client(broker=redis_db, backend=redis_db, queue=QUEUE)

    assert shop.run("caller.py") == SHOP + "multiply, in Go: 2520\n"
    total = signature("shop.total", arg("[]float64", [10.5, 17.5]), arg("float64", 0.1))
    assert client.values(client.send(total)) == [25.2]


@pytest.mark.go
def test_the_server_api(program: ProgramFactory, redis_db: str, go_client: GoClientFactory) -> None:
    adder = program("server_api", str(EXAMPLES / "server_api" / "adder.py"), "worker", ready="Waiting for tasks")
    client = go_client(broker=redis_db, backend=redis_db, queue=QUEUE)

    assert adder.run("adder.py", "send") == (
        "add: [42]\ndivide: [3, 1]\ndivide by zero: integer division or modulo by zero\n"
    )
    assert client.values(client.send(signature("divide", arg("int64", 7), arg("int64", 2)))) == [3, 1]
    assert "running divide" in adder.log.read_text()
