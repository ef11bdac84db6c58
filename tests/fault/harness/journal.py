"""What the tasks of a run have written about themselves."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Journal", "Line"]


@dataclass(frozen=True)
class Line:
    """A task has begun or ended in a process, at a time in Unix seconds."""

    pid: int
    time: float


class Journal:
    """Reads a journal as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begins: dict[str, list[Line]] = defaultdict(list)
        self.ends: dict[str, list[Line]] = defaultdict(list)
        self._read = 0

    def update(self) -> Journal:
        """Reads what is new; a line that is still being written is left for the next time."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read += len(whole) + len(newline)
            for line in whole.decode().splitlines():
                uuid, what, pid, moment = line.split()
                {"begin": self.begins, "end": self.ends}[what][uuid].append(Line(int(pid), float(moment)))
        return self

    def running_in(self, pids: set[int]) -> set[str]:
        """The tasks that began last in one of these processes and have not ended since."""
        return {
            uuid
            for uuid, lines in self.begins.items()
            if lines[-1].pid in pids and len(self.ends.get(uuid, ())) < len(lines)
        }
