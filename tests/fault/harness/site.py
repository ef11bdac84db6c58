"""The servers of one run, the ways to them, and the workers."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import psutil
from redis import Redis

from tests.fault.harness.app import CELERY, Settings, make
from tests.fault.harness.proxy import Proxy
from tests.support.golang import GoWorker
from tests.support.python_worker import PythonWorker
from tests.support.services import RabbitServer, RedisGroup, RedisServer, Server

__all__ = ["AMQP", "BROKERS", "REDIS", "Site", "children"]

REDIS, AMQP = "redis", "amqp"
BROKERS = (REDIS, AMQP)
QUEUE = "fault"
CONCURRENCY = 4
STOP_SECONDS = 30.0


class Site:
    """One broker and one store of results, each also by way of a proxy.

    Args:
        system: ``ours`` or ``celery``.
        broker: ``redis`` or ``amqp``.
        directory: for logs and journals.
        lease: seconds.
        durable: whether the Redis servers keep what they have acknowledged when they are killed.
        rabbit: a RabbitMQ that runs already and is not stopped at the end.
        sentinels: whether broker and store are one Redis with a replica, behind sentinels.
    """

    def __init__(
        self,
        system: str,
        broker: str,
        directory: Path,
        lease: float,
        durable: bool = False,
        rabbit: RabbitServer | None = None,
        sentinels: bool = False,
    ) -> None:
        self.system, self.broker_kind, self.directory, self.lease = system, broker, directory, lease
        self.journal, self.go_journal = directory / "journal", directory / "go-journal"
        self.queue = f"{QUEUE}-{directory.name}"
        self.workers: list[PythonWorker] = []
        self.go_workers: list[GoWorker] = []
        self._orphans: list[psutil.Process] = []
        self.group: RedisGroup | None = None
        with ExitStack() as stack:
            if sentinels:
                self.group = stack.enter_context(RedisGroup())
                self.store = self.group.servers[0]
                self.broker: Server = self.store
            else:
                self.store = stack.enter_context(RedisServer(appendonly=durable))
                self.broker = self._start_broker(stack, durable, rabbit)
            self.store_proxy = stack.enter_context(Proxy(self.store.port))
            self.broker_proxy = stack.enter_context(Proxy(self.broker.port))
            self._stack = stack.pop_all()
        self.app = make(self.settings(proxied=False))

    def _start_broker(self, stack: ExitStack, durable: bool, rabbit: RabbitServer | None) -> Server:
        if self.broker_kind == REDIS:
            return stack.enter_context(RedisServer(appendonly=durable))
        return rabbit or stack.enter_context(RabbitServer())

    # -- addresses

    def settings(self, proxied: bool) -> Settings:
        if self.group is not None:
            urls = self.group.url(0), self.group.url(1)
            if self.system == CELERY:
                urls = _in_celerys_form(urls[0]), _in_celerys_form(urls[1])
            return Settings(self.system, *urls, self.queue, self.lease, self.group.name)
        assert isinstance(self.broker, RedisServer | RabbitServer)
        broker, store = self.broker.url(), self.store.url()
        if proxied:
            broker = broker.replace(f":{self.broker.port}/", f":{self.broker_proxy.port}/")
            store = store.replace(f":{self.store.port}/", f":{self.store_proxy.port}/")
        return Settings(self.system, broker, store, self.queue, self.lease)

    def store_client(self) -> Redis:
        """A client of the store of results, which the caller closes."""
        return self.store.client() if self.group is None else self.group.client(1)

    # -- workers

    def start_worker(self, pool: str, proxied: bool, concurrency: int) -> PythonWorker:
        """Starts a Python worker of the site's system; it consumes when it is ready."""
        settings = self.settings(proxied)
        worker = PythonWorker(
            self.directory,
            self.journal,
            broker=settings.broker,
            backend=settings.store,
            queue=self.queue,
            pool=pool,
            concurrency=concurrency,
            app="tests.fault.harness.worker_app",
            tasks="tests.fault.harness.app",
            FAULT_APP=settings.encode(),
        )
        self.workers.append(worker)
        return worker

    def start_go(self) -> GoWorker:
        """Starts a Go worker on the same queue."""
        settings = self.settings(proxied=False)
        worker = GoWorker(
            self.directory,
            self.go_journal,
            flavor="v2-redigo" if self.broker_kind == REDIS else "v2-amqp",
            broker=settings.broker,
            backend=settings.store,
            queue=self.queue,
            exchange=self.queue,
            binding_key=self.queue,
            concurrency=CONCURRENCY,
        )
        self.go_workers.append(worker)
        return worker.wait_ready()

    def kill_parent(self, worker: PythonWorker) -> None:
        """Kills a worker's main process alone; its pool notices by itself."""
        self._orphans += children(worker)
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.popen.wait()

    def stop_workers(self) -> str:
        """Ends all that still run in order, as a process manager does; returns what was left of who did not end."""
        running = [worker for worker in self.workers if worker.process.running()]
        for worker in running:
            os.kill(worker.process.pid, signal.SIGTERM)
        hung = ""
        for worker in running:
            try:
                worker.process.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                hung += f"a worker did not stop in {STOP_SECONDS:g} s\n{worker.process.tail()}\n"
                worker.kill()
        for go in self.go_workers:
            go.kill()
        return hung

    # -- what is left

    def leftovers(self) -> list[str]:
        """What lies at the broker after all tasks have ended and all workers have stopped."""
        if isinstance(self.broker, RabbitServer):
            queues = {name: count for name, count in self.broker.list_queues().items() if self.queue in name}
            return [f"{name} ({count})" for name, count in sorted(queues.items()) if count or name != self.queue]
        assert isinstance(self.broker, RedisServer)
        client = (self.group or self.broker).client()
        try:
            names = sorted(key.decode() for key in client.keys("*"))
        finally:
            client.close()
        return [name for name in names if not name.startswith("_kombu.binding")]

    def close(self) -> None:
        for worker in [*self.workers, *self.go_workers]:
            worker.kill()
        for orphan in self._orphans:
            if orphan.is_running():
                orphan.kill()
        self.app.close()
        self._stack.close()


def _in_celerys_form(url: str) -> str:
    """A list of sentinels as Celery has it."""
    hosts, _, db = url.removeprefix("redis://").rpartition("/")
    return ";".join(f"sentinel://{host}/{db}" for host in hosts.split(","))


def children(worker: PythonWorker) -> list[psutil.Process]:
    """The processes of a worker's pool."""
    found: list[psutil.Process] = psutil.Process(worker.process.pid).children(recursive=True)
    return found
