"""A Python worker as a user starts one: ``celery -A machinery_compat worker`` with Machinery's variables."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

from tests.support.processes import Process
from tests.support.workers import Worker

ROOT = Path(__file__).parents[2]


class PythonWorker(Worker):
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

    def is_ready(self) -> bool:
        return " ready." in self.text()
