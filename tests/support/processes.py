"""A child process that is kept and ended by its own PID, with its output in a file."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TAIL_LINES = 60


class Unavailable(RuntimeError):
    """Something that the tests need is not installed or does not start; the text says what."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """One child in a process group of its own, so that a signal reaches its helpers too."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=stdin,
                stdout=output if stdout is None else stdout,
                stderr=output,
                env=None if environment is None else {**os.environ, **environment},
                start_new_session=True,
            )
        self._owner = os.getpid()
        atexit.register(self._kill_at_exit)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def popen(self) -> subprocess.Popen[bytes]:
        return self._popen

    def running(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: int) -> None:
        if self.running():
            os.killpg(self.pid, number)

    def stop(self, timeout: float = 15.0) -> int:
        """Ask the process to end, insist after *timeout* seconds; returns its exit status."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            status = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._release()
        return status

    def kill(self) -> int:
        """End the process with SIGKILL, as a crash would."""
        self.signal(signal.SIGKILL)
        status = self._popen.wait()
        self._release()
        return status

    def tail(self) -> str:
        """The last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def _kill_at_exit(self) -> None:
        # A fork of the tests, such as a worker's pool, inherits this and must leave the child alone.
        if os.getpid() == self._owner:
            self.kill()

    def _release(self) -> None:
        atexit.unregister(self._kill_at_exit)
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                stream.close()
