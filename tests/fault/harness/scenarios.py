"""The scenarios by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from kombu.exceptions import OperationalError

from tests.fault.harness import faults, moments, sending
from tests.fault.harness.app import OURS, SYSTEMS
from tests.fault.harness.outcome import Outcome, finish
from tests.fault.harness.run import Plan, Run
from tests.fault.harness.site import BROKERS, CONCURRENCY, REDIS, Site
from tests.support.services import RabbitServer

__all__ = ["SCENARIOS", "Scenario", "run"]


@dataclass(frozen=True)
class Scenario:
    """A fault with a name.

    Attributes:
        name: as on the command line.
        what: for the reader of a table.
        fault: breaks something while the tasks run; returns when it is over.
        brokers: where it makes sense.
        systems: of which it can be asked.
        send: sends the tasks.
        pool: of the workers.
        workers: how many Python workers there are.
        concurrency: of each.
        proxied: how many of them reach their servers through the proxies.
        durable: whether the Redis servers keep what they have acknowledged when they are killed.
        go: whether a Go worker takes tasks too.
        lease: seconds, where they are part of the scenario.
        longest: how long a task takes at the most, in leases, where it is long.
        sentinels: whether broker and store are one Redis with a replica, behind sentinels.
    """

    name: str
    what: str
    fault: Callable[[Run], None]
    brokers: tuple[str, ...] = BROKERS
    systems: tuple[str, ...] = SYSTEMS
    send: Callable[[Run, int], None] = sending.mixed
    pool: str = "prefork"
    workers: int = 2
    concurrency: int = CONCURRENCY
    proxied: int = 0
    durable: bool = False
    go: bool = False
    lease: float | None = None
    longest: float = 0.0
    sentinels: bool = False


def run(
    scenario: Scenario,
    directory: Path,
    plan: Plan,
    system: str = OURS,
    broker: str = REDIS,
    rabbit: RabbitServer | None = None,
) -> Outcome:
    """Runs a scenario once, on servers (but for *rabbit*, when given) and with workers of its own."""
    if scenario.lease is not None:
        plan = replace(plan, lease=scenario.lease, patience=plan.patience + scenario.lease)
    plan = replace(plan, patience=plan.patience + scenario.longest * plan.lease)
    with closing(Site(system, broker, directory, plan.lease, scenario.durable, rabbit, scenario.sentinels)) as site:
        this = Run(site, plan, scenario.send, scenario.pool, scenario.concurrency, scenario.proxied)
        this.start_workers(scenario.workers)
        if scenario.go:
            site.start_go()
        began = time.time()
        trouble = ""
        try:
            scenario.fault(this)
            this.wait_sent()
        except (AssertionError, OperationalError) as error:
            # What is lost is counted all the same.
            trouble = str(error)
        return finish(this, began, scenario.go, trouble)


_ALL = (
    Scenario("kill-worker", "kill -9 of a prefork worker and its pool", faults.kill_worker),
    Scenario("kill-parent", "kill -9 of a prefork worker's main process", faults.kill_parent),
    Scenario("kill-child", "kill -9 of a pool process in a task", faults.kill_child),
    Scenario("kill-threads", "kill -9 of a worker with threads", faults.kill_worker, pool="threads"),
    Scenario("kill-claim", "kill -9 as a message arrives", faults.kill_at(moments.claims), proxied=1),
    Scenario("kill-ack", "kill -9 as a message is acknowledged", faults.kill_at(moments.acks), proxied=1),
    Scenario(
        "kill-delayed",
        "kill -9 as delayed tasks become due",
        faults.kill_delayed,
        brokers=(REDIS,),
        send=sending.delayed,
        proxied=1,
    ),
    Scenario(
        "kill-chord",
        "kill -9 as a chord's callback is sent",
        faults.kill_at(moments.chord_triggers),
        send=sending.chords,
        proxied=1,
    ),
    Scenario(
        "kill-full",
        "kill -9 with 6 running tasks, the default lease",
        faults.kill_full,
        brokers=(REDIS,),
        send=sending.full,
        workers=1,
        concurrency=6,
        lease=30.0,
    ),
    Scenario(
        "long",
        "no fault, tasks of ten times the lease",
        faults.nothing,
        brokers=(REDIS,),
        send=sending.long,
        longest=sending.TIMES_LEASE,
    ),
    Scenario("cut", "every connection cut every 0.2 s", faults.cut, proxied=2),
    Scenario("cut-one", "one of two workers cut off from the broker as it runs tasks", faults.cut_one, proxied=1),
    Scenario("freeze", "SIGSTOP past the lease, then SIGCONT", faults.freeze),
    Scenario("stall", "a worker's connections to the broker stall past the lease", faults.stall, proxied=1),
    Scenario("restart-broker", "kill -9 of the broker, and its restart", faults.restart_broker, durable=True),
    Scenario(
        "sentinel-failover",
        "kill -9 of the master behind three sentinels",
        faults.fail_over,
        brokers=(REDIS,),
        sentinels=True,
    ),
    Scenario("store-down", "the store of results down while tasks end", faults.store_down, durable=True),
    Scenario(
        "go-beside",
        "kill -9 of a Go and a Python worker in turn",
        faults.kill_go,
        systems=(OURS,),
        send=sending.shared,
        go=True,
    ),
)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
