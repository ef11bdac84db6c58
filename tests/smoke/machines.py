"""Processes of this machine in the place of Docker's containers: what pytest-celery asks of those."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.processes import Process
from tests.support.python_worker import ROOT
from tests.support.services import Server

STOP_SECONDS = 30.0


class Machine(ABC):
    """One process, with the names that the docker package gives to what can be done to a container."""

    #: Ports and networks are Docker's; a process listens on the loopback interface.
    attrs: Mapping[str, Any] = {
        "Config": {"Hostname": "127.0.0.1", "Env": []},
        "NetworkSettings": {"Networks": {}, "Ports": {}},
        "HostConfig": {"PortBindings": {}},
    }

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def process(self) -> Process:
        """The process that runs, or ran last."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @property
    def id(self) -> str:
        return f"{self.name}-{self.process.pid}"

    @property
    def status(self) -> str:
        return "running" if self.process.running() else "exited"

    def reload(self) -> None:
        """Looks again whether it runs."""
        self.process.running()

    def kill(self, signal: str | int | None = None) -> None:
        """Sends a signal to the main process; with SIGKILL its children end too, as a container does."""
        number = _number(signal)
        if number == _KILL:
            self.process.kill()
        else:
            os.kill(self.process.pid, number)

    def restart(self, timeout: float = STOP_SECONDS) -> None:
        if self.process.running():
            self.kill("SIGTERM")
            self.process.popen.wait(timeout)
        self.start()

    def logs(self) -> bytes:
        return self.process.log.read_bytes()

    def exec_run(self, command: str | list[str]) -> tuple[int, bytes]:
        words = shlex.split(command) if isinstance(command, str) else command
        finished = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return finished.returncode, finished.stdout


_KILL = int(signal.SIGKILL)


def _number(name: str | int | None) -> int:
    if name is None:
        return _KILL
    return int(signal.Signals[name]) if isinstance(name, str) else int(name)


class ServerMachine(Machine):
    """A server that is running already."""

    def __init__(self, name: str, server: Server) -> None:
        super().__init__(name)
        self.server = server

    @property
    def process(self) -> Process:
        return self.server.process

    def start(self) -> None:
        self.server.start()

    def close(self) -> None:
        self.server.close()


class WorkerMachine(Machine):
    """A Celery worker, started by the command that its container would run."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], directory: Path) -> None:
        super().__init__(name)
        self._command = [sys.executable, "-m", *command]
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment, "PYTHONPATH": str(ROOT)}
        self._log = directory / f"{name}.log"
        self.start()

    @property
    def process(self) -> Process:
        return self._process

    def start(self) -> None:
        # The log of a container goes on when it starts again, too.
        self._process = Process(self._command, self._log, self._environment)

    def close(self) -> None:
        self.process.kill()
