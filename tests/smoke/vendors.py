"""This project's servers and its worker as vendors of pytest-celery."""

from __future__ import annotations

from typing import Any

from celery import Celery
from pytest_celery import CeleryTestContainer, CeleryTestSetup, CeleryWorkerContainer, RabbitMQContainer, RedisContainer

import machinery_compat
from machinery_compat import Config
from machinery_compat.config import AMQPConfig
from tests.smoke.machines import ServerMachine


class _Server(CeleryTestContainer):
    """A server with its URLs: for the workers, and for the tests, which are outside of Docker."""

    @property
    def server_port(self) -> int | None:
        """The port of a process; None where the server is a container, with a port within Docker's network."""
        machine = self._container
        return machine.server.port if isinstance(machine, ServerMachine) else None

    @property
    def port(self) -> int:
        return self.server_port or int(super().port)

    @property
    def ready_prompt(self) -> str | None:
        # A process was waited for before it came here, and does not log to its standard output.
        return None if self.server_port else super().ready_prompt


class MachineryRedis(_Server, RedisContainer):
    """Redis that keeps what it has over a restart."""

    @classmethod
    def command(cls, *args: str, **kwargs: Any) -> list[str]:
        return super().command("--appendonly", "yes", "--appendfsync", "always", *args)

    @property
    def url(self) -> str:
        return self.host_url if self.server_port else f"redis://{self.hostname}:6379/0"

    @property
    def host_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class MachineryRabbitMQ(_Server, RabbitMQContainer):
    """RabbitMQ, with URLs as Machinery spells them."""

    @property
    def url(self) -> str:
        return self.host_url if self.server_port else f"amqp://guest:guest@{self.hostname}:5672/"

    @property
    def host_url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"


class MachineryWorker(CeleryWorkerContainer):
    """``celery worker`` with an application of this project."""

    @classmethod
    def command(cls, *args: str, **kwargs: Any) -> list[str]:
        return [
            *("celery", "-A", "tests.smoke.app", "worker", "-l", cls.log_level(), "-n", f"{cls.worker_name()}@%h"),
            *("-c", "1", "--without-mingle", "--without-gossip", *args),
        ]

    @classmethod
    def initial_env(cls, celery_worker_cluster_config: dict[str, Any], initial: Any = None) -> dict[str, str]:
        """The variables that Machinery reads."""
        config = celery_worker_cluster_config
        return {
            "BROKER": config["celery_broker_cluster_config"]["urls"][0],
            "RESULT_BACKEND": config["celery_backend_cluster_config"]["urls"][0],
            **(initial or {}),
        }


class MachinerySetup(CeleryTestSetup):
    """Makes the application that the tests send with a Machinery one."""

    @classmethod
    def create_setup_app(cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str) -> Celery:
        config = celery_setup_config
        queue = config["queue"]
        return machinery_compat.Celery(
            celery_setup_app_name,
            config=Config(
                broker=config["broker_url"],
                result_backend=config["result_backend"],
                default_queue=queue,
                amqp=AMQPConfig(exchange=queue, binding_key=queue),
            ),
        )
