"""The leaves of pytest-celery's tree of fixtures, as Docker's containers."""

from __future__ import annotations

from pytest_celery import (
    DEFAULT_WORKER_CONTAINER_TIMEOUT,
    RABBITMQ_CONTAINER_TIMEOUT,
    REDIS_CONTAINER_TIMEOUT,
)
from pytest_docker_tools import build, container, fxtr

from tests.smoke.vendors import MachineryRabbitMQ, MachineryRedis, MachineryWorker
from tests.support.python_worker import ROOT

NETWORK = "{default_pytest_celery_network.name}"

smoke_worker_image = build(path=str(ROOT), dockerfile="tests/smoke/Dockerfile", tag="machinery-compat/smoke-worker")

default_redis_broker = container(
    image="{default_redis_broker_image}",
    ports=fxtr("default_redis_broker_ports"),
    environment=fxtr("default_redis_broker_env"),
    network=NETWORK,
    wrapper_class=MachineryRedis,
    timeout=REDIS_CONTAINER_TIMEOUT,
    command=MachineryRedis.command(),
)
default_redis_backend = container(
    image="{default_redis_backend_image}",
    ports=fxtr("default_redis_backend_ports"),
    environment=fxtr("default_redis_backend_env"),
    network=NETWORK,
    wrapper_class=MachineryRedis,
    timeout=REDIS_CONTAINER_TIMEOUT,
    command=MachineryRedis.command(),
)
default_rabbitmq_broker = container(
    image="{default_rabbitmq_broker_image}",
    ports=fxtr("default_rabbitmq_broker_ports"),
    environment=fxtr("default_rabbitmq_broker_env"),
    network=NETWORK,
    wrapper_class=MachineryRabbitMQ,
    timeout=RABBITMQ_CONTAINER_TIMEOUT,
)
default_worker_container = container(
    image="{smoke_worker_image.id}",
    environment=fxtr("default_worker_env"),
    network=NETWORK,
    wrapper_class=MachineryWorker,
    timeout=DEFAULT_WORKER_CONTAINER_TIMEOUT,
    command=fxtr("default_worker_command"),
)
