"""Which run of its task a state comes from, as the state itself says it."""

from __future__ import annotations

import re

from machinery_compat.wire import TaskState

__all__ = ["run_of"]

#: The first thing in the member of ours of a state that a run after the first has written.
_RUN = re.compile(r'\{"run": (\d+)')


def run_of(state: TaskState) -> int:
    """The number of the run, 0 for the first."""
    found = _RUN.match(state.celery or "")
    return int(found[1]) if found else 0
