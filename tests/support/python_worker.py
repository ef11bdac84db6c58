"""A Python worker as a user starts one: ``celery -A machinery_compat worker`` with Machinery's variables."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tests.support.golang import Execution, read_journal
from tests.support.processes import Process
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).parents[2]
START_SECONDS = 40.0


class PythonWorker:
    """One ``celery worker`` process (with its pool), its log and its journal."""

    def __init__(
        self,
        directory: Path,
        journal: Path | None = None,
        *,
        broker: str,
        backend: str,
        queue: str,
        pool: str = "prefork",
        concurrency: int = 2,
        counter: str | None = None,
        arguments: tuple[str, ...] = (),
        app: str = "machinery_compat",
        tasks: str = "tests.support.tasks",
        loglevel: str = "INFO",
        **variables: str,
    ) -> None:
        self.journal = journal or directory / "journal"
        self.name = f"py-{uuid.uuid4().hex[:8]}@test"
        self.log = directory / f"python-worker-{self.name}.log"
        environment = {
            "BROKER": broker,
            "RESULT_BACKEND": backend,
            "DEFAULT_QUEUE": queue,
            "JOURNAL": str(self.journal),
            "COUNTERS": counter or backend,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **variables,
        }
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            app,
            "worker",
            "-I",
            tasks,
            "-P",
            pool,
            "-c",
            str(concurrency),
            "-n",
            self.name,
            "-l",
            loglevel,
            *arguments,
        ]
        self.process = Process(command, self.log, {**os.environ, **environment})

    def wait_ready(self, timeout: float = START_SECONDS) -> Self:
        """Return once the worker consumes."""
        wait_for(
            lambda: " ready." in self.text() or not self.process.running(),
            timeout,
            lambda: f"not ready\n{self.process.tail()}",
        )
        if not self.process.running():
            raise AssertionError(f"the Python worker ended at its start\n{self.process.tail()}")
        return self

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def executions(self) -> list[Execution]:
        return read_journal(self.journal)

    def stop(self, timeout: float = 20.0) -> int:
        return self.process.stop(timeout)

    def kill(self) -> None:
        self.process.kill()

    def __enter__(self) -> Self:
        try:
            return self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
