"""What became of the tasks of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.fault.harness.run import RECEIVED, Fault, Run
from tests.fault.harness.states import FAILURE, SUCCESS, States
from tests.support.workers import read_journal

__all__ = ["Outcome", "finish"]

LOOK_SECONDS = 0.2


@dataclass
class Outcome:
    """The count of a run.

    Attributes:
        sent: tasks in.
        ended: those with the state SUCCESS.
        failed: those with the state FAILURE.
        lost: the others that are Python's to answer for, with their last state.
        go_lost: those of the others, which no Python worker ever had.
        again: tasks that were begun more than once.
        twice: tasks that were run to their end more than once.
        hit: how many tasks the faults have hit.
        recovery: seconds from a fault until the last task that it hit had ended; the longest of all faults.
        seconds: how long the whole took.
        leftovers: what was left at the broker.
        trouble: what did not go as the scenario wants it, such as workers that did not go on.
    """

    sent: int
    ended: int
    failed: int
    lost: dict[str, str]
    go_lost: dict[str, str]
    again: int
    twice: int
    hit: int
    recovery: float
    seconds: float
    leftovers: list[str] = field(default_factory=list)
    trouble: str = ""


def finish(run: Run, began: float, with_go: bool, trouble: str = "") -> Outcome:
    """Waits until all tasks have ended, or nothing has for long, and counts."""
    states = States(run.site, run.uuids)
    _wait(run, states)
    seconds = time.time() - began
    hung = run.site.stop_workers()
    journal = run.journal.update()
    by_go = {line.uuid for line in read_journal(run.site.go_journal)}
    ended = list(states.ended.values())
    # What Go has taken and lost never came to a Python worker; without Go there is no such thing.
    mine = _received(run) if with_go else states.open.keys()
    return Outcome(
        sent=len(run.uuids),
        ended=ended.count(SUCCESS),
        failed=ended.count(FAILURE),
        lost={uuid: state for uuid, state in states.open.items() if uuid in mine},
        go_lost={uuid: state for uuid, state in states.open.items() if uuid not in mine},
        again=sum(len(lines) + (uuid in by_go) > 1 for uuid, lines in journal.begins.items()),
        twice=sum(len(lines) + (uuid in by_go) > 1 for uuid, lines in journal.ends.items()),
        hit=sum(len(fault.held) for fault in run.faults),
        recovery=max((_recovery(run, fault) for fault in run.faults), default=0.0),
        seconds=seconds,
        leftovers=run.site.leftovers(),
        trouble=trouble + hung,
    )


def _wait(run: Run, states: States) -> None:
    count, last = states.update(), time.monotonic()
    while states.open and time.monotonic() - last < run.plan.patience:
        time.sleep(LOOK_SECONDS)
        before, count = count, states.update()
        if count > before:
            last = time.monotonic()


def _received(run: Run) -> set[str]:
    """The tasks that some Python worker has had in hand."""
    return {uuid for worker in run.site.workers for uuid in RECEIVED.findall(worker.text())}


def _recovery(run: Run, fault: Fault) -> float:
    ends = run.journal.ends
    return max((ends[uuid][0].time - fault.time for uuid in fault.held if uuid in ends), default=0.0)
