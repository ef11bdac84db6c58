"""Keeps what a task has become from those who come late.

A worker that was frozen or cut off has its tasks run again by another one, and then comes back to
write what it has. A run that is not the first says which one it is in the member of ours of the
documents that it writes, as the first thing there, so that a store's script can find it. A
document of a first run has no such thing and is Go's, byte for byte.

RECEIVED says that a task has begun its way. A worker that learns late of a message that another one
has run by now does not write it over the task's end.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from celery.exceptions import Ignore
from kombu.utils import json as kombu_json

from machinery_compat.transport.redelivery import deliveries
from machinery_compat.wire import FAILURE, RECEIVED, SUCCESS, TaskState

__all__ = ["ENDS", "Superseded", "is_superseded", "may_replace", "run_of", "sign", "supersede", "written_by"]

logger = logging.getLogger("machinery_compat.backends")


class Superseded(Ignore):  # type: ignore[misc]
    """A run that must not begin, since the store knows of a later one of its task."""


#: What RECEIVED never replaces.
ENDS = frozenset({SUCCESS, FAILURE})
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


def written_by(state: TaskState) -> int:
    """Which run of its task a state comes from, 0 for the first."""
    found = _RUN.match(state.celery or "")
    return int(found[1]) if found else 0


def may_replace(old: TaskState | None, new: str, only_over: str = "", run: int | None = None) -> bool:
    """Whether a state may be written over the present one; a store looks and writes in one step.

    Args:
        old: the present state.
        new: the name of the new one.
        only_over: the name that the present one must have.
        run: which run writes; None for none.
    """
    if old is None:
        return not only_over
    if (only_over and old.state != only_over) or (new == RECEIVED and old.state in ENDS):
        return False
    return run is None or written_by(old) <= run


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
