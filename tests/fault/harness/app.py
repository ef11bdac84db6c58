"""The same application and tasks for both systems that are compared: this project and plain Celery."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import celery
from celery import Task

import machinery_compat
from machinery_compat.config import AMQPConfig, Config, RedisConfig

__all__ = ["CELERY", "GATHER", "OURS", "SYSTEMS", "WORK", "Settings", "make"]

OURS, CELERY = "ours", "celery"
SYSTEMS = (OURS, CELERY)
WORK, GATHER = "fault.work", "fault.gather"


@dataclass(frozen=True)
class Settings:
    """What both systems are told.

    Attributes:
        system: ``ours`` or ``celery``.
        broker: URL.
        store: URL of the results.
        queue: name of the queue, and on RabbitMQ of the exchange and the binding.
        lease: seconds after which a silent worker's tasks belong to others.
        master_name: the servers are sentinels of this master.
    """

    system: str
    broker: str
    store: str
    queue: str
    lease: float
    master_name: str = ""

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Settings:
        return cls(**json.loads(text))


def make(settings: Settings) -> Any:
    """An application with the tasks of the harness."""
    app = _ours(settings) if settings.system == OURS else _celery(settings)
    app.conf.update(worker_hijack_root_logger=True, broker_heartbeat=settings.lease, worker_proc_alive_timeout=30)
    app.task(name=WORK, bind=True, shared=False)(work)
    app.task(name=GATHER, bind=True, shared=False)(gather)
    return app


def _ours(settings: Settings) -> Any:
    config = Config(
        broker=settings.broker,
        result_backend=settings.store,
        default_queue=settings.queue,
        amqp=AMQPConfig(exchange=settings.queue, binding_key=settings.queue),
        redis=RedisConfig(master_name=settings.master_name),
    )
    app = machinery_compat.Celery("fault", config=config, set_as_current=False)
    if settings.broker.startswith("redis"):
        app.conf.broker_transport_options = {"lease_time": settings.lease}
    app.conf.machinery_chord_watch_interval = settings.lease
    return app


def _celery(settings: Settings) -> Any:
    """Plain Celery with all that it has against losses, and on Redis the same time to recover."""
    app = celery.Celery("fault", broker=settings.broker, backend=settings.store, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_track_started=True,
        task_default_queue=settings.queue,
        broker_connection_retry_on_startup=True,
    )
    if settings.broker.startswith(("redis", "sentinel")):
        # By default it is an hour, looked at every 100 s.
        app.conf.broker_transport_options = {
            "visibility_timeout": settings.lease,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "master_name": settings.master_name,
        }
        app.conf.result_backend_transport_options = {"master_name": settings.master_name}
    return app


def note(what: str, uuid: str) -> None:
    """One line in one write, so that the lines of processes never mix."""
    path = os.environ.get("JOURNAL")
    if path:
        with open(path, "ab", buffering=0) as file:
            file.write(f"{uuid} {what} {os.getpid()} {time.time():.6f}\n".encode())


def work(self: Task, milliseconds: int) -> int:
    note("begin", self.request.id)
    time.sleep(milliseconds / 1000)
    note("end", self.request.id)
    return milliseconds


def gather(self: Task, *numbers: Any) -> int:
    """A chord's callback: Celery gives it one list, Machinery an argument for each member."""
    note("begin", self.request.id)
    note("end", self.request.id)
    return len(numbers)


def add(self: Task, *numbers: int) -> int:
    """A task that Go workers know too."""
    note("begin", self.request.id)
    note("end", self.request.id)
    return sum(numbers)
