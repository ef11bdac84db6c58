"""Scenarios of the harness, with few tasks: every task ends, whatever is killed, cut or frozen.

``python -m tests.fault.harness`` runs all of them with many.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fault.harness.outcome import Outcome
from tests.fault.harness.run import Plan
from tests.fault.harness.scenarios import SCENARIOS, run
from tests.fault.harness.site import AMQP
from tests.support.services import RabbitServer

#: Few tasks, of which enough are still to be done when the fault comes.
PLAN = Plan(tasks=200, faults=1, seconds=2.0, lease=2.0, patience=40.0, short=40)
#: Strikes before the bytes arrive, and after.
TWICE = replace(PLAN, tasks=300, faults=2)


def all_end(outcome: Outcome) -> None:
    assert outcome.trouble == "", outcome.trouble
    assert outcome.lost == {}, outcome
    assert outcome.failed == 0, outcome
    assert outcome.ended == outcome.sent > 0, outcome
    assert outcome.leftovers == [], outcome


@pytest.mark.redis
@pytest.mark.usefixtures("redis_server")
@pytest.mark.parametrize("name", ["kill-parent", "kill-child"])
def test_what_a_killed_process_had_is_run_by_another(name: str, tmp_path: Path) -> None:
    outcome = run(SCENARIOS[name], tmp_path, PLAN)

    all_end(outcome)
    assert outcome.hit > 0


@pytest.mark.redis
@pytest.mark.usefixtures("redis_server")
@pytest.mark.parametrize("name", ["kill-claim", "kill-ack", "kill-delayed", "kill-chord"])
def test_no_moment_to_die_at_loses_a_task(name: str, tmp_path: Path) -> None:
    all_end(run(SCENARIOS[name], tmp_path, TWICE))


@pytest.mark.redis
@pytest.mark.usefixtures("redis_server")
@pytest.mark.parametrize("name", ["cut", "restart-broker", "store-down"])
def test_lost_connections_and_servers_lose_no_task(name: str, tmp_path: Path) -> None:
    all_end(run(SCENARIOS[name], tmp_path, PLAN))


@pytest.mark.redis
@pytest.mark.usefixtures("redis_server")
def test_a_worker_that_freezes_past_its_lease_is_relieved(tmp_path: Path) -> None:
    outcome = run(SCENARIOS["freeze"], tmp_path, PLAN)

    all_end(outcome)
    assert outcome.hit > 0


@pytest.mark.redis
@pytest.mark.go
@pytest.mark.usefixtures("redis_server", "go_worker")
def test_beside_a_go_worker_that_dies_only_go_loses_tasks(tmp_path: Path) -> None:
    outcome = run(SCENARIOS["go-beside"], tmp_path, replace(TWICE, patience=8.0))

    assert outcome.trouble == "", outcome.trouble
    assert outcome.lost == {}, outcome
    assert outcome.failed == 0, outcome
    assert outcome.ended + len(outcome.go_lost) == outcome.sent, outcome


@pytest.mark.redis
@pytest.mark.rabbitmq
@pytest.mark.usefixtures("redis_server")
def test_no_moment_to_die_at_loses_a_task_on_rabbitmq(tmp_path: Path, rabbit_server: RabbitServer) -> None:
    all_end(run(SCENARIOS["kill-ack"], tmp_path, TWICE, broker=AMQP, rabbit=rabbit_server))
