"""Keeps the state that a later run of a task has written from the runs before it.

A worker that was frozen or cut off has its tasks run again by another one, and then comes back to
write what it has. A run that is not the first says which one it is in the member of ours of the
documents that it writes, as the first thing there, so that a store's script can find it. A
document of a first run has no such thing and is Go's, byte for byte.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from kombu.utils import json as kombu_json

from machinery_compat.transport.redelivery import deliveries
from machinery_compat.wire import TaskState

__all__ = ["is_superseded", "may_write", "run_of", "sign", "supersede"]

logger = logging.getLogger("machinery_compat.backends")

_RUN = re.compile(r'\{"run": (\d+)')


def run_of(request: Any, task_id: str) -> int | None:
    """Which run of a task a request is, 0 for the first; None when it is not that task's."""
    raw = getattr(request, "machinery", None)
    return deliveries(raw) if raw and request.id == task_id else None


def sign(state: TaskState, run: int | None) -> None:
    """Writes into a state which run of its task it comes from."""
    if run:
        extra = kombu_json.loads(state.celery) if state.celery else {}
        state.celery = kombu_json.dumps({"run": run, **extra})


def may_write(old: TaskState | None, run: int | None) -> bool:
    """Whether a run may write over a state; a store does both in one step."""
    if old is None or run is None or not old.celery:
        return True
    found = _RUN.match(old.celery)
    return found is None or int(found[1]) <= run


def supersede(request: Any, state: TaskState, run: int | None) -> None:
    """Notes with a request that its state was refused, see :func:`is_superseded`."""
    request.machinery_superseded = True
    logger.warning(
        "task %s: another worker has been given it since its run number %d began here; "
        "the state %s is not stored and nothing follows it",
        state.task_uuid,
        (run or 0) + 1,
        state.state,
    )


def is_superseded(request: Any) -> bool:
    """Whether a later run of the task has begun, so that nothing may follow this one."""
    return getattr(request, "machinery_superseded", False) is True
