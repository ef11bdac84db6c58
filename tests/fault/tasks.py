"""Tasks that hurt the worker that runs them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from tests.integration.tasks import await_file
from tests.support.tasks import task


@task(name="killer")
def killer(how: str) -> None:
    """Ends its process."""
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sys.exit":
        sys.exit("enough")
    if how == "interrupt":
        raise KeyboardInterrupt


@task(name="hog")
def hog(started: str, seconds: float) -> str:
    """Keeps Python's lock, so that no other thread of the process runs."""
    Path(started).touch()
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return started


@task(name="held")
def held(name: str, gates: str) -> str:
    """Says that it has begun and runs until it may go on: all, or it alone."""
    Path(gates, f"{name}.{os.getpid()}").touch()
    await_file(f"{gates}/open")
    return name
