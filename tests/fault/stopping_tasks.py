"""Tasks that are interrupted."""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration.tasks import await_file, number
from tests.support.tasks import task

__all__ = ["hold", "hold_early", "number", "number_early", "number_limited"]


@task(name="hold")
def hold(started: str, gate: str) -> str:
    """Leaves the number of its process in one file and runs until the other one exists."""
    Path(started).write_text(str(os.getpid()))
    await_file(gate)
    return gate


@task(name="hold_early", acks_late=False)
def hold_early(started: str, gate: str) -> str:
    """The same, acknowledged when it begins."""
    Path(started).write_text(str(os.getpid()))
    await_file(gate)
    return gate


@task(name="number_early", acks_late=False)
def number_early(value: int) -> int:
    """A number's task, acknowledged when it begins."""
    return value


@task(name="number_limited", rate_limit="1/h")
def number_limited(value: int) -> int:
    """A number's task that a worker begins once an hour."""
    return value
