"""Send and consume rates of a task that does nothing: this project, plain Celery and Go's Machinery.

All of them use the same broker, and the same Redis for their results, each at its own defaults; the
Python workers have the same pool and concurrency. "Celery, alike" is plain Celery with the settings
that come nearest to the defaults here: late acknowledgements, STARTED told, and on RabbitMQ
confirmed messages. The systems take turns, round by round, and each
figure is the median of its rounds, so that a machine whose speed drifts treats them alike.

    python benchmarks/throughput.py [--broker amqp] [--tasks 3000] [--rounds 3] [--pool prefork] [--concurrency 2]

What is sent waits in the queue until it is all there. The rate of consuming is that of the last
nine tenths, when the worker is warm.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import apps  # noqa: E402
from tests.support.golang import GoClient, GoWorker, arg, signature  # noqa: E402
from tests.support.processes import Process, Unavailable  # noqa: E402
from tests.support.services import RabbitServer, RedisServer  # noqa: E402
from tests.support.waiting import wait_for  # noqa: E402

QUEUE = apps.QUEUE
LOOK_SECONDS = 0.05


class System:
    """One of the systems that are compared."""

    name = ""
    #: What the state of a finished task contains.
    done = b""
    key_prefix = ""

    def __init__(self, broker: str, redis: RedisServer, directory: Path, pool: str, concurrency: int) -> None:
        self.broker, self.results, self.directory = broker, redis.url(0), directory
        self.pool, self.concurrency = pool, concurrency
        self.client = redis.client(0)

    def send(self, count: int) -> list[str]:
        """Sends so many tasks, one after the other, and returns their UUIDs."""
        raise NotImplementedError

    def start_worker(self) -> Callable[[], object]:
        """Starts a worker and returns what ends it."""
        raise NotImplementedError

    def round(self, count: int) -> tuple[float, float]:
        """The rates of sending and of consuming, in tasks a second."""
        self.client.flushdb()
        self.send(50)
        began = time.perf_counter()
        uuids = self.send(count)
        sending = count / (time.perf_counter() - began)
        stop = self.start_worker()
        try:
            first, began = self.wait_for(uuids, count // 10)
            last, end = self.wait_for(uuids, count)
            return sending, (last - first) / (end - began)
        finally:
            stop()

    def wait_for(self, uuids: list[str], ended: int) -> tuple[int, float]:
        """Waits until so many tasks have ended; returns how many those are, and when that was."""
        keys = [f"{self.key_prefix}{uuid}" for uuid in uuids]

        def look() -> tuple[int, float] | None:
            now = time.perf_counter()
            found = sum(value is not None and self.done in value for value in self.client.mget(keys))
            return (found, now) if found >= ended else None

        return wait_for(look, timeout=300, interval=LOOK_SECONDS, message=f"{self.name}: not all tasks ended")

    def python_worker(self, app: str) -> Callable[[], object]:
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            app,
            "worker",
            "-P",
            self.pool,
            "-c",
            str(self.concurrency),
            "-l",
            "WARNING",
            "--without-gossip",
            "--without-mingle",
        ]
        environment = {"PYTHONPATH": str(ROOT), "BENCH_BROKER": self.broker, "BENCH_RESULTS": self.results}
        process = Process(command, self.directory / f"{self.name}.log", environment)
        return process.stop


class Ours(System):
    name = "machinery_compat"
    done = b'"State":"SUCCESS"'

    def send(self, count: int) -> list[str]:
        task = apps.ours(self.broker, self.results)
        return [task.delay(1, 2).id for _ in range(count)]

    def start_worker(self) -> Callable[[], object]:
        return self.python_worker("benchmarks.worker_ours")


class PlainCelery(System):
    name = "Celery"
    done = b'"status": "SUCCESS"'
    key_prefix = "celery-task-meta-"

    def send(self, count: int) -> list[str]:
        task = apps.plain(self.broker, self.results)
        return [task.delay(1, 2).id for _ in range(count)]

    def start_worker(self) -> Callable[[], object]:
        return self.python_worker("benchmarks.worker_plain")


class CeleryAlike(PlainCelery):
    name = "Celery, alike"

    def send(self, count: int) -> list[str]:
        task = apps.alike(self.broker, self.results)
        return [task.delay(1, 2).id for _ in range(count)]

    def start_worker(self) -> Callable[[], object]:
        return self.python_worker("benchmarks.worker_alike")


class Go(System):
    name = "Go Machinery"
    done = b'"State":"SUCCESS"'

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.options = {
            "flavor": "v2-amqp" if self.broker.startswith("amqp") else "v2-redigo",
            "broker": self.broker,
            "backend": self.results,
            "queue": QUEUE,
            "binding_key": QUEUE,
            "concurrency": self.concurrency,
        }
        self.sender = GoClient(self.directory, **self.options)

    def send(self, count: int) -> list[str]:
        one = signature("add", arg("int64", 1), arg("int64", 2))
        return self.sender.send_many([one] * count, timeout=300)

    def start_worker(self) -> Callable[[], object]:
        return GoWorker(self.directory, **self.options).wait_ready().kill


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=["redis", "amqp"], default="redis")
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pool", default="prefork")
    parser.add_argument("--concurrency", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        directory = Path(folder)
        redis = stack.enter_context(RedisServer())
        systems: list[System] = []
        broker = stack.enter_context(RabbitServer()).url() if options.broker == "amqp" else redis.url(0)
        for kind in (Ours, PlainCelery, CeleryAlike, Go):
            try:
                systems.append(kind(broker, redis, directory, options.pool, options.concurrency))
            except Unavailable as error:
                print(f"without {kind.name}: {error}")
        figures: dict[str, list[tuple[float, float]]] = {system.name: [] for system in systems}
        for number in range(options.rounds):
            for system in systems:
                figures[system.name].append(system.round(options.tasks))
                send, consume = figures[system.name][-1]
                print(
                    f"round {number + 1}: {system.name:<18} sends {send:7.0f}/s  consumes {consume:7.0f}/s", flush=True
                )
        report(figures)
    return 0


def report(figures: dict[str, list[tuple[float, float]]]) -> None:
    medians = {
        name: tuple(statistics.median(column) for column in zip(*rounds, strict=True))
        for name, rounds in figures.items()
    }
    ours = medians[Ours.name]
    heads = ("median of the rounds", "sends/s", "consumes/s", "ours : it, sending", "consuming")
    print("\n{:<20} {:>9} {:>11}   {:>19} {:>10}".format(*heads))
    for name, (send, consume) in medians.items():
        print(f"{name:<20} {send:>9.0f} {consume:>11.0f}   {ours[0] / send:>18.2f}x {ours[1] / consume:>9.2f}x")


if __name__ == "__main__":
    sys.exit(main())
