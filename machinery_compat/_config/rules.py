"""What a configuration cannot mean: the checks of ``Config.validate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from machinery_compat import errors, urls

if TYPE_CHECKING:
    from machinery_compat._config.sections import AMQPConfig, RedisConfig, SQSConfig, TLSConfig
    from machinery_compat.config import Config

__all__ = ["problems"]

#: AMQP's x-expires and x-message-ttl are 32-bit milliseconds.
MAX_AMQP_EXPIRY = 2147483
#: The numbers of TLS 1.0 to 1.3, and 0 for the library's choice.
TLS_VERSIONS = (0, 0x0301, 0x0302, 0x0303, 0x0304)
EXCHANGE_TYPES = ("direct", "fanout", "topic", "headers")


def problems(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    """One text for each value that cannot work."""
    if not config.default_queue:
        yield "default_queue is empty"
    if config.results_expire_in < 0:
        yield f"results_expire_in is {config.results_expire_in}, but cannot be negative"
    yield from _urls(config, environ)
    if config.amqp is not None:
        yield from _amqp(config.amqp)
    if config.redis is not None:
        yield from _redis(config.redis)
    if config.sqs is not None:
        yield from _sqs(config.sqs)
    if config.tls_config is not None:
        yield from _tls(config.tls_config)
    if config.dynamodb is not None:
        for name in ("task_states_table", "group_metas_table"):
            if not getattr(config.dynamodb, name):
                yield f"dynamodb.{name} is empty"


def _urls(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    for url in config.broker_urls:
        yield from _failure("broker", lambda url=url: _check_url(urls.broker_kind(url, environ), url))  # type: ignore[misc]
    backend = config.result_backend
    yield from _failure("result_backend", lambda: _check_url(urls.backend_kind(backend), backend))
    if urls.lock_kind(config.lock) == "redis":
        yield from _failure("lock", lambda: _check_redis(urls.parse_lock_url(config.lock), config.lock))
    expiry = config.results_expire_in
    if backend.startswith(("amqp://", "amqps://")) and expiry > MAX_AMQP_EXPIRY:
        yield f"results_expire_in is {expiry}, but RabbitMQ allows at most {MAX_AMQP_EXPIRY} seconds"


def _failure(key: str, check: Callable[[], None]) -> Iterator[str]:
    try:
        check()
    except errors.ConfigError as exc:
        yield f"{key}: {exc}"


def _check_url(kind: str, url: str) -> None:
    if kind == "redis":
        _check_redis(urls.parse_redis_url(url), url)
    elif kind == "gcpubsub":
        urls.parse_gcppubsub_url(url)
    elif kind == "memcache":
        urls.memcache_addresses(url)
    elif kind == "amqp":
        for one in url.split(";"):  # Kombu's list of servers
            urls.check_amqp_url(one)


def _check_redis(address: urls.RedisAddress, url: str) -> None:
    if not address.unix_socket and not all(host for host, _ in address.hosts):
        raise errors.ConfigError(f"{urls.redact(url)} names no host")
    if address.db < 0:
        raise errors.ConfigError(f"{urls.redact(url)} names the database {address.db}")


def _amqp(amqp: AMQPConfig) -> Iterator[str]:
    if not 0 <= amqp.prefetch_count <= 65535:
        yield f"amqp.prefetch_count is {amqp.prefetch_count}, but must be from 0 to 65535"
    if amqp.exchange_type not in EXCHANGE_TYPES and not amqp.exchange_type.startswith("x-"):
        yield f"amqp.exchange_type is {amqp.exchange_type!r}, but must be one of {', '.join(EXCHANGE_TYPES)}, or x-…"
    for name in ("queue_declare_args", "queue_binding_args"):
        empty = [key for key, value in (getattr(amqp, name) or {}).items() if value is None]
        if empty:
            yield f"amqp.{name} has no value for {', '.join(empty)}"


def _redis(redis: RedisConfig) -> Iterator[str]:
    for name in (
        "max_idle",
        "max_active",
        "max_idle_timeout",
        "read_timeout",
        "write_timeout",
        "connect_timeout",
        "normal_tasks_poll_period",
        "delayed_tasks_poll_period",
    ):
        value = getattr(redis, name)
        if value < 0:
            yield f"redis.{name} is {value}, but cannot be negative"
    if redis.master_name and redis.cluster_enabled:
        yield "redis.master_name (sentinels) and redis.cluster_enabled exclude each other"


def _sqs(sqs: SQSConfig) -> Iterator[str]:
    if not 0 <= sqs.receive_wait_time_seconds <= 20:
        yield f"sqs.receive_wait_time_seconds is {sqs.receive_wait_time_seconds}, but must be from 0 to 20"
    timeout = sqs.receive_visibility_timeout
    if timeout is not None and not 0 <= timeout <= 43200:
        yield f"sqs.receive_visibility_timeout is {timeout}, but must be from 0 to 43200"
    if sqs.visibility_hearth_beat and not timeout:
        yield "sqs.visibility_hearth_beat needs sqs.receive_visibility_timeout above 0"


def _tls(tls: TLSConfig) -> Iterator[str]:
    for name in ("min_version", "max_version"):
        if getattr(tls, name) not in TLS_VERSIONS:
            yield f"tls_config.{name} is {getattr(tls, name):#06x}, but must be 0 or from 0x0301 to 0x0304"
    if tls.max_version and tls.min_version > tls.max_version:
        yield "tls_config.min_version is above tls_config.max_version"
    if tls.key_file and not tls.cert_file:
        yield "tls_config.key_file needs tls_config.cert_file"
