"""Outcomes as rows of a Markdown table."""

from __future__ import annotations

from tests.fault.harness.app import OURS
from tests.fault.harness.outcome import Outcome
from tests.fault.harness.scenarios import Scenario

__all__ = ["HEAD", "row"]

COLUMNS = (
    "Scenario",
    "System",
    "Broker",
    "Tasks in",
    "Ended",
    "Failed",
    "Lost",
    "Begun again",
    "Ended twice",
    "Hit",
    "Recovery, s",
    "Total, s",
    "Left at the broker",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
NAMES = {OURS: "machinery_compat", "celery": "Celery"}
#: How many leftovers are named.
SHOWN = 3


def row(scenario: Scenario, system: str, broker: str, outcome: Outcome) -> str:
    lost = str(len(outcome.lost))
    if scenario.go:
        lost += f" (Go: {len(outcome.go_lost)})"
    cells = (
        f"`{scenario.name}`",
        NAMES[system],
        broker,
        outcome.sent,
        outcome.ended,
        outcome.failed,
        lost,
        outcome.again,
        outcome.twice,
        outcome.hit,
        f"{outcome.recovery:.1f}" if outcome.hit else "",
        f"{outcome.seconds:.0f}",
        _shown(outcome.leftovers),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _shown(leftovers: list[str]) -> str:
    if not leftovers:
        return "nothing"
    more = f" and {len(leftovers) - SHOWN} more" if len(leftovers) > SHOWN else ""
    return ", ".join(f"`{name}`" for name in leftovers[:SHOWN]) + more
