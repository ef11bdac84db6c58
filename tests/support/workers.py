"""What a worker of either language is to a test: a process with a log and a journal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tests.support.processes import Process
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from typing_extensions import Self

START_SECONDS = 40.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Execution:
    """One line of a journal: a task was run, by a worker of this language."""

    uuid: str
    name: str
    language: str


def read_journal(path: Path) -> list[Execution]:
    """The executions in the order in which they began.

    A reader may see the first half of a line that is being written; that one counts at the next reading.
    """
    if not path.exists():
        return []
    whole, _, _ = path.read_text().rpartition("\n")
    return [Execution(*line.split(" ")) for line in whole.splitlines()]


class Worker:
    """A worker process; usable in ``with``, where it consumes from the start."""

    log: Path
    journal: Path
    process: Process

    def is_ready(self) -> bool:
        """Whether it consumes."""
        raise NotImplementedError

    def wait_ready(self, timeout: float = START_SECONDS) -> Self:
        """Return once the worker consumes."""

        def settled() -> bool:
            return self.is_ready() or not self.process.running()

        wait_for(settled, timeout, lambda: f"not ready\n{self.process.tail()}")
        if not self.process.running():
            raise AssertionError(f"{type(self).__name__} ended at its start\n{self.process.tail()}")
        return self

    def text(self) -> str:
        """All that it has logged."""
        return self.log.read_text(errors="replace")

    def executions(self) -> list[Execution]:
        return read_journal(self.journal)

    def stop(self, timeout: float = STOP_SECONDS) -> int:
        """End gracefully; returns the exit status."""
        return self.process.stop(timeout)

    def kill(self) -> None:
        """Crash."""
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
