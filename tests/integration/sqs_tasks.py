"""Tasks of the SQS tests."""

from __future__ import annotations

import os
import signal

from tests.support.tasks import task


@task(name="py_kill")
def kill() -> None:
    """Ends the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)
