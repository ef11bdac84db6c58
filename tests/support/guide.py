"""The commands of a guide, run in one shell as a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import Process
from tests.support.waiting import wait_for

END = "-- end of command"


@dataclass(frozen=True)
class Command:
    """One line after ``$``, and what the guide says it prints."""

    text: str
    output: str

    @property
    def in_background(self) -> bool:
        return self.text.endswith("&")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[Command]:
    """All commands of a page in their order."""
    found = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            text, _, output = part.partition("\n")
            found.append(Command(text.strip(), output))
    return found


def run(steps: list[Command], directory: Path, environment: Mapping[str, str], seconds: float) -> list[Command]:
    """Runs the commands in a folder and returns them with what they printed.

    What runs in the background is killed at the end.

    Raises:
        AssertionError: a command failed, or the time is over.
    """
    lines = ["set -E", "trap 'exit 1' ERR", f"cd {shlex.quote(str(directory))}"]
    for step in steps:
        lines.append(f"echo {shlex.quote('$ ' + step.text)} >&2")
        # What runs in the background writes to the log only.
        lines.append(f"{step.text[:-1]} >&2 &" if step.in_background else step.text)
        lines.append(f"echo {shlex.quote(END)}")
    script, printed, log = directory / "guide.sh", directory / "guide.out", directory / "guide.log"
    script.write_text("\n".join(lines) + "\n")
    with printed.open("wb") as output:
        shell = Process(["bash", script], log, environment, stdout=output.fileno())
    try:
        wait_for(
            lambda: not shell.running(),
            seconds,
            lambda: f"{printed.read_text()}\n{log.read_text(errors='replace')}",
            0.05,
        )
    finally:
        shell.kill()
        # The group of the shell outlives it.
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    outputs = printed.read_text().split(f"{END}\n")
    assert len(outputs) == len(steps) + 1, f"{outputs[-1]}\n{log.read_text(errors='replace')}"
    return [Command(step.text, output) for step, output in zip(steps, outputs, strict=False)]
