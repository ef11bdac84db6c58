"""Runs scenarios and prints what became of the tasks, as a Markdown table.

python -m tests.fault.harness [--scenario NAME]... [--broker redis|amqp]... [--system ours|celery]...
                              [--tasks 10000] [--faults 5] [--seconds 30] [--lease 3] [--times 1]
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.fault.harness.app import OURS, SYSTEMS
from tests.fault.harness.report import HEAD, row
from tests.fault.harness.run import Plan
from tests.fault.harness.scenarios import SCENARIOS, Scenario, run
from tests.fault.harness.site import AMQP, BROKERS
from tests.support.services import RabbitServer


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.harness", description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="default: all")
    parser.add_argument("--broker", action="append", choices=BROKERS, help="default: both")
    parser.add_argument("--system", action="append", choices=SYSTEMS, help="default: ours")
    parser.add_argument("--tasks", type=int, default=Plan.tasks)
    parser.add_argument("--faults", type=int, default=Plan.faults, help="how often each fault strikes")
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="of a fault that has a length")
    parser.add_argument("--lease", type=float, default=Plan.lease, help="seconds")
    parser.add_argument("--patience", type=float, default=Plan.patience, help="seconds until what is missing is lost")
    parser.add_argument("--short", type=int, default=Plan.short, help="how long most tasks sleep, in ms")
    parser.add_argument("--times", type=int, default=1, help="how often each scenario is run")
    parser.add_argument("--logs", type=Path, help="a folder that keeps journals and logs")
    return parser.parse_args(arguments)


def runs(options: argparse.Namespace) -> Iterator[tuple[str, str, Scenario]]:
    names = options.scenario or SCENARIOS
    for system, broker, name in itertools.product(options.system or [OURS], options.broker or BROKERS, names):
        scenario = SCENARIOS[name]
        if broker in scenario.brokers and system in scenario.systems:
            yield from itertools.repeat((system, broker, scenario), options.times)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    # In order, so that no server outlives this.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    plan = Plan(options.tasks, options.faults, options.seconds, options.lease, options.patience, options.short)
    lost = 0
    print(HEAD, flush=True)
    with ExitStack() as stack:
        directory = options.logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="machinery-fault-")))
        rabbit: RabbitServer | None = None
        for number, (system, broker, scenario) in enumerate(runs(options)):
            if broker == AMQP and rabbit is None:
                rabbit = stack.enter_context(RabbitServer())
            folder = directory / f"{number}-{scenario.name}-{system}-{broker}"
            folder.mkdir(parents=True)
            outcome = run(scenario, folder, plan, system, broker, rabbit)
            print(row(scenario, system, broker, outcome), flush=True)
            lost += len(outcome.lost) + outcome.failed
            for uuid, state in outcome.lost.items():
                print(
                    f"{scenario.name} ({system}, {broker}): {uuid} is lost, {state or 'no state'}",
                    file=sys.stderr,
                    flush=True,
                )
            if outcome.trouble:
                print(f"{scenario.name} ({system}, {broker}): {outcome.trouble}", file=sys.stderr, flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
