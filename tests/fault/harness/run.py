"""One run of one scenario: tasks in, a fault, and what became of every task."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.fault.harness.app import WORK
from tests.fault.harness.journal import Journal
from tests.fault.harness.moments import Moment
from tests.fault.harness.site import Site
from tests.support.python_worker import PythonWorker
from tests.support.waiting import wait_for
from tests.support.workers import read_journal

__all__ = ["BOUND", "LONG", "Fault", "Plan", "Run"]

T = TypeVar("T")

#: How many threads send.
SENDERS = 8
RECEIVED = re.compile(r"Task \S+?\[([^\]]+)\] received")
#: One task in LONG_EVERY sleeps for so long, in ms.
LONG, LONG_EVERY = 200, 20
#: Longest wait for the tasks to get as far as a fault wants them, in seconds.
PROGRESS_SECONDS = 120.0
#: Longest wait for what must come after a fault, in seconds.
BOUND = 60.0


@dataclass(frozen=True)
class Plan:
    """How large a run is.

    Attributes:
        tasks: how many are sent.
        faults: how often the fault strikes.
        seconds: how long a fault lasts that has a length, all times together.
        lease: seconds after which a silent worker's tasks belong to others.
        patience: seconds without a newly ended task after which the rest counts as lost.
        short: how long most tasks sleep, in ms.
    """

    tasks: int = 10_000
    faults: int = 5
    seconds: float = 30.0
    lease: float = 3.0
    patience: float = 45.0
    short: int = 10


@dataclass
class Fault:
    """A moment at which something broke, and the tasks that it hit.

    Attributes:
        time: Unix seconds.
        held: the tasks that the victims had and that had not ended.
    """

    time: float
    held: set[str]


class Run:
    """What a scenario works with; the first of its workers is the victim.

    Args:
        site: the servers.
        plan: how large it is.
        send: sends so many tasks.
        pool: of the workers.
        concurrency: of each.
        proxied: how many of the workers, from the first one, reach their servers through the proxies.
    """

    def __init__(
        self, site: Site, plan: Plan, send: Callable[[Run, int], None], pool: str, concurrency: int, proxied: int
    ) -> None:
        self.site, self.plan = site, plan
        self.pool, self.concurrency, self.proxied = pool, concurrency, proxied
        self.journal = Journal(site.journal)
        self.uuids: list[str] = []
        self.faults: list[Fault] = []
        self.workers: list[PythonWorker] = []
        #: When delayed tasks become due, in Unix seconds.
        self.due = 0.0
        self.is_last_round = False
        self._send = send
        self._sender = ThreadPoolExecutor(1)
        self._sending: Future[None] | None = None

    # -- workers

    def start_workers(self, count: int) -> None:
        """Starts the first workers, at the same time."""
        self.workers = [self._start(place) for place in range(count)]
        for worker in self.workers:
            worker.wait_ready()

    def replace_victim(self) -> None:
        """Starts a worker in the first one's place, if there is another fault to come or nobody else."""
        if self.is_last_round and len(self.workers) > 1:
            del self.workers[0]
        else:
            self.workers[0] = self._start(0).wait_ready()

    def _start(self, place: int) -> PythonWorker:
        return self.site.start_worker(self.pool, place < self.proxied, self.concurrency)

    # -- tasks

    def send(self, count: int, **options: Any) -> None:
        """Sends short tasks with a long one among them now and then."""
        task = self.site.app.tasks[WORK]
        milliseconds = [LONG if n % LONG_EVERY == 0 else self.plan.short for n in range(count)]
        self.send_each(lambda time: [task.apply_async((time,), **options).id], milliseconds)

    def send_each(self, send: Callable[[T], list[str]], items: Iterable[T]) -> None:
        """Sends something for each item, several at a time; *send* returns the UUIDs of the tasks."""
        with ThreadPoolExecutor(SENDERS) as senders:
            for uuids in senders.map(send, items):
                self.uuids += uuids

    def start_sending(self, count: int) -> None:
        """Sends so many of the scenario's tasks while the workers work and things go wrong."""
        self._sending = self._sender.submit(self._send, self, count)

    def wait_sent(self) -> None:
        """Waits until all is sent; an error of the sending comes up here."""
        if self._sending is not None:
            self._sending.result()

    def ended(self) -> int:
        """How many tasks have ended, as the journals say (Go's tasks write when they begin)."""
        by_go = {line.uuid for line in read_journal(self.site.go_journal)}
        return len(self.journal.update().ends.keys() | by_go)

    def wait_ended(self, count: int) -> None:
        wait_for(lambda: self.ended() >= count, PROGRESS_SECONDS, lambda: f"{self.ended()} of {count} ended\n{self}")

    def rounds(self) -> Iterator[int]:
        """Sends the tasks in as many shares as there are faults, and gives the moment for each fault."""
        share = self.plan.tasks // self.plan.faults
        for number in range(self.plan.faults):
            self.is_last_round = number == self.plan.faults - 1
            before = self.ended()
            self.start_sending(share)
            self.wait_ended(before + share // 4)
            yield number
            self.wait_sent()

    # -- faults

    def hit(self, victims: Sequence[PythonWorker], since: float) -> Fault:
        """Notes that workers were struck at that time, and what they had in hand."""
        received = {uuid for worker in victims for uuid in RECEIVED.findall(worker.text())}
        return self.hit_tasks(received - self.journal.update().ends.keys(), since)

    def hit_tasks(self, held: set[str], since: float) -> Fault:
        fault = Fault(since, held)
        self.faults.append(fault)
        return fault

    def kill(self, victim: PythonWorker) -> None:
        """SIGKILL to a worker and its whole pool."""
        since = time.time()
        victim.kill()
        self.hit([victim], since)

    def kill_at(self, moment: Moment) -> None:
        """Kills the first worker at a moment, and starts another in its place."""
        victim, struck = self.workers[0], []

        def strike() -> None:
            struck.append(time.time())
            victim.kill()

        trap = moment.proxy.trap(moment.mark, moment.direction, moment.before, strike)
        try:
            wait_for(trap.sprung.is_set, PROGRESS_SECONDS, lambda: f"{moment} never came\n{self}")
        finally:
            moment.proxy.forget(trap)
        self.hit([victim], struck[0])
        self.replace_victim()

    def wait_recovered(self, fault: Fault) -> None:
        """Waits until all that a fault has hit has ended."""

        def left() -> set[str]:
            return fault.held - self.journal.update().ends.keys()

        wait_for(lambda: not left(), BOUND, lambda: f"not ended: {left()}\n{self}")

    def __str__(self) -> str:
        return "\n".join(f"--- {worker.log.name}\n{worker.process.tail()}" for worker in self.site.workers)
