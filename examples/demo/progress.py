"""Shows that a long command is still at work: ``python progress.py "what it does" COMMAND...``"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

#: Seconds between two signs of life.
INTERVAL = 4.0
#: Lines of a failed command that are shown.
SHOWN = 30


class CommandFailed(RuntimeError):
    """A command ended with an error; ``lines`` are the last ones that it wrote."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[-1] if lines else "it failed without a word")
        self.lines = lines


def run(what: str, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> None:
    """Runs a command, with a line of progress every few seconds.

    Raises:
        CommandFailed: it did not end well.
    """
    begin = time.monotonic()
    print(f"==> {what}", flush=True)
    process = subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines: deque[str] = deque(maxlen=SHOWN)
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    try:
        while True:
            try:
                status = process.wait(INTERVAL)
                break
            except subprocess.TimeoutExpired:
                doing = lines[-1][:80] if lines else ""
                print(f"    {time.monotonic() - begin:4.0f} s  {doing}".rstrip(), flush=True)
    except BaseException:
        # The compilers that a build has started end with it.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    reader.join(INTERVAL)
    if status:
        raise CommandFailed(list(lines))
    print(f"    {time.monotonic() - begin:4.1f} s  done", flush=True)


def _read(process: subprocess.Popen[str], lines: deque[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            lines.append(line.strip())


def main(arguments: Sequence[str]) -> int:
    try:
        run(arguments[0], arguments[1:])
    except CommandFailed as failure:
        print("\n".join(failure.lines), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
