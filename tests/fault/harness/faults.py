"""What goes wrong: each function breaks something while the tasks of a run go on, and returns after it."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from tests.fault.harness import moments
from tests.fault.harness.moments import Moment
from tests.fault.harness.run import BOUND, Run
from tests.fault.harness.site import Site, children
from tests.support.waiting import wait_for

CUT_SECONDS = 0.2
CUTS = 5


def nothing(run: Run) -> None:
    """The tasks are the trouble themselves."""
    run.start_sending(run.plan.tasks)


# -- workers that die


def kill_worker(run: Run) -> None:
    for _ in run.rounds():
        run.kill(run.workers[0])
        run.replace_victim()


def kill_parent(run: Run) -> None:
    """Kills the main process and leaves the pool to itself."""
    for _ in run.rounds():
        victim, since = run.workers[0], time.time()
        run.site.kill_parent(victim)
        run.hit([victim], since)
        run.replace_victim()


def kill_child(run: Run) -> None:
    """Kills a process of the pool that is running a task, as the kernel does when memory is short."""
    for _ in run.rounds():
        pool = children(run.workers[0])

        def busy(pool: list[psutil.Process] = pool) -> list[psutil.Process]:
            return [child for child in pool if run.journal.update().running_in({child.pid})]

        victim, since = random.choice(wait_for(busy, BOUND, lambda: str(run))), time.time()
        with suppress(psutil.NoSuchProcess):
            victim.kill()
            run.hit_tasks(run.journal.update().running_in({victim.pid}), since)


def kill_full(run: Run) -> None:
    """Kills a worker whose processes are all running a task."""
    victim = run.workers[0]
    pids = {child.pid for child in children(victim)}
    run.start_sending(run.plan.tasks)
    wait_for(lambda: len(run.journal.update().running_in(pids)) == run.concurrency, BOUND, lambda: str(run))
    run.kill(victim)
    run.replace_victim()


def kill_at(which: Callable[[Site], list[Moment]]) -> Callable[[Run], None]:
    """Kills a worker at each of some moments in turn."""

    def kill(run: Run) -> None:
        found = which(run.site)
        for number in run.rounds():
            run.kill_at(found[number % len(found)])

    return kill


def kill_delayed(run: Run) -> None:
    """Kills a worker as tasks become due: ours moves them to the queue then, plain Celery's has held them."""
    found = moments.delayed_moves(run.site)
    for number in range(run.plan.faults):
        run.is_last_round = number == run.plan.faults - 1
        run.start_sending(run.plan.tasks // run.plan.faults)
        run.wait_sent()
        wait_for(lambda: time.time() >= run.due, BOUND + run.due - time.time(), "time does not pass")
        if found:
            run.kill_at(found[number % len(found)])
        else:
            run.kill(run.workers[0])
            run.replace_victim()


# -- connections


def cut(run: Run) -> None:
    """Breaks every connection of every worker again and again."""
    for _ in run.rounds():
        end = time.monotonic() + run.plan.seconds / run.plan.faults
        while time.monotonic() < end:
            run.site.broker_proxy.cut()
            run.site.store_proxy.cut()
            time.sleep(CUT_SECONDS)
        run.hit(run.workers, time.time())


def cut_one(run: Run) -> None:
    """Breaks one worker's connections to the broker each time it has tasks that run; it may come back at once."""
    victim = run.workers[0]
    pids = {child.pid for child in children(victim)}
    for number in run.rounds():
        sent = (number + 1) * (run.plan.tasks // run.plan.faults)

        def busy(sent: int = sent) -> bool:
            return bool(run.journal.update().running_in(pids)) or run.ended() >= sent

        for _ in range(CUTS):
            wait_for(busy, BOUND, lambda: str(run))
            since = time.time()
            run.site.broker_proxy.cut()
            run.hit([victim], since)


def stall(run: Run) -> None:
    """Connections stay open and nothing passes, for longer than the lease."""
    for _ in run.rounds():
        run.site.broker_proxy.stall()
        since = time.time()
        try:
            run.wait_recovered(run.hit([run.workers[0]], since))
        finally:
            run.site.broker_proxy.flow()


def freeze(run: Run) -> None:
    """Freezes a worker until others have run what it had, and thaws it."""
    for _ in run.rounds():
        victim, since = run.workers[0], time.time()
        victim.process.signal(signal.SIGSTOP)
        try:
            run.wait_recovered(run.hit([victim], since))
        finally:
            victim.process.signal(signal.SIGCONT)


# -- servers


def restart_broker(run: Run) -> None:
    """Kills the broker and starts it again on what it has written."""
    for _ in run.rounds():
        run.wait_sent()
        run.site.broker.kill()
        run.site.broker.start()
        run.hit(run.workers, time.time())


def fail_over(run: Run) -> None:
    """Kills the master when the replica has what was sent; once, since there is one replica."""
    assert run.site.group is not None
    for number in run.rounds():
        if number == 0:
            run.wait_sent()
            since = time.time()
            run.site.group.fail_over()
            run.hit(run.workers, since)


def store_down(run: Run) -> None:
    """Stops the store of results until more tasks have ended than the workers run at once."""
    for _ in run.rounds():
        run.site.store.stop()
        enough = run.ended() + len(run.workers) * run.concurrency
        with suppress(AssertionError):
            # A worker that waits with its results ends no more of them.
            wait_for(lambda enough=enough: run.ended() >= enough, run.plan.seconds / run.plan.faults)  # type: ignore[misc]
        run.site.store.start()
        run.hit(run.workers, time.time())


# -- Go beside


def kill_go(run: Run) -> None:
    """Kills a Go worker and a Python worker of the same queue, in turn."""
    for number in run.rounds():
        if number % 2 == 0:
            run.site.go_workers[-1].kill()
            run.site.start_go()
        else:
            run.kill(run.workers[0])
            run.replace_victim()
