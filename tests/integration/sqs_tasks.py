"""Tasks of the SQS tests."""

from __future__ import annotations

import os
import signal

from machinery_compat import current_signature
from tests.support.tasks import task


@task(name="py_kill")
def kill() -> None:
    """Ends the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


@task(name="py_handle")
def handle() -> str:
    """The receipt handle that the task sees."""
    signature = current_signature()
    assert signature is not None
    return signature.sqs_receipt_handle
