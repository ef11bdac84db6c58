"""pytest-celery's fixtures with this project's vendors."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_celery import CELERY_RABBITMQ_BROKER, CELERY_REDIS_BACKEND, CELERY_REDIS_BROKER, CeleryTestBroker

from tests.conftest import Names
from tests.smoke import as_processes, in_docker
from tests.smoke.runtime import DOCKER, runtime
from tests.smoke.vendors import MachinerySetup, MachineryWorker

BROKERS = [
    pytest.param(CELERY_REDIS_BROKER, marks=pytest.mark.redis, id="redis"),
    pytest.param(CELERY_RABBITMQ_BROKER, marks=[pytest.mark.redis, pytest.mark.rabbitmq], id="rabbitmq"),
]

_leaves: Any = in_docker if runtime() == DOCKER else as_processes
default_redis_broker = _leaves.default_redis_broker
default_redis_backend = _leaves.default_redis_backend
default_rabbitmq_broker = _leaves.default_rabbitmq_broker
default_worker_container = _leaves.default_worker_container
smoke_worker_image = in_docker.smoke_worker_image


@pytest.fixture(params=BROKERS)
def celery_broker(request: pytest.FixtureRequest) -> CeleryTestBroker:
    broker: CeleryTestBroker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def celery_backend(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(CELERY_REDIS_BACKEND)


@pytest.fixture
def celery_setup_cls() -> type[MachinerySetup]:
    return MachinerySetup


@pytest.fixture
def celery_setup_config(
    celery_setup_cls: type[MachinerySetup], celery_worker_cluster_config: dict[str, Any], names: Names
) -> dict[str, Any]:
    return {**celery_setup_cls.config(celery_worker_cluster_config), "queue": names.queue}


@pytest.fixture
def default_worker_container_cls() -> type[MachineryWorker]:
    return MachineryWorker


@pytest.fixture
def default_worker_env(
    default_worker_container_cls: type[MachineryWorker], celery_worker_cluster_config: dict[str, Any], names: Names
) -> dict[str, str]:
    """A queue of this test's own: RabbitMQ may be everybody's."""
    queue = {"DEFAULT_QUEUE": names.queue, "AMQP_EXCHANGE": names.queue, "AMQP_BINDING_KEY": names.queue}
    return default_worker_container_cls.initial_env(celery_worker_cluster_config, queue)
