"""What a Machinery configuration says in Celery's settings."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from machinery_compat import errors, urls
from machinery_compat.config import Config, TLSConfig
from machinery_compat.transport.border import OPTION, Border
from machinery_compat.transport.redelivery import REDELIVERY_LIMIT

__all__ = ["redelivery_limit_of", "settings_of", "transport_options_of"]

logger = logging.getLogger("machinery_compat.settings")

#: How a sender tries again when the broker does not take a message: after 1, 1, 2, 3 and 5 s, at once
#: the first time if the broker had been there. 12 s, and the time that the attempts take.
PUBLISH_RETRIES = {"max_retries": 5, "interval_start": 1, "interval_step": 1, "interval_max": 5}
#: How often a worker tries to store a result again.
RESULT_RETRIES = 400


def transport_options_of(config: Config, border: Border) -> dict[str, Any]:
    """The options of the broker's transport, the application's border among them."""
    redis = config.redis_settings
    return {
        OPTION: border,
        "delayed_tasks_key": redis.delayed_tasks_key or "delayed_tasks",
        "delayed_tasks_poll_period": (redis.delayed_tasks_poll_period or 500) / 1000,
        "normal_tasks_poll_period": (redis.normal_tasks_poll_period or 1000) / 1000,
        "client_name": redis.client_name or None,
        "socket_connect_timeout": redis.connect_timeout or None,
    }


def redelivery_limit_of(conf: Any) -> int:
    """How often a message is put back at most because what ran it has died.

    Args:
        conf: the application's settings.

    Raises:
        ConfigError: the setting is no such number.
    """
    limit = conf.get("machinery_redelivery_limit", REDELIVERY_LIMIT)
    limit = conf.broker_transport_options.get("redelivery_limit", limit)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise errors.ConfigError(f"machinery_redelivery_limit is a number from 0 on, not {limit!r}")
    return limit


def settings_of(config: Config, border: Border, given: bool = True) -> dict[str, Any]:
    """The Celery settings that a Machinery configuration stands for; the user's own go before them.

    Args:
        config: the configuration.
        border: what the channels ask.
        given: whether the configuration was the user's, and so its broker and result backend count.

    Raises:
        ConfigError: it asks for what this version does not do.
    """
    amqp = config.amqp_settings
    settings: dict[str, Any] = {
        "result_expires": config.results_expire_in,
        "broker_transport_options": transport_options_of(config, border),
        "broker_connection_retry_on_startup": True,
        # As Go's workers, which try for ever.
        "broker_connection_max_retries": None,
        "task_publish_retry_policy": dict(PUBLISH_RETRIES),
        # A Redis that refuses something for a while ends no worker.
        "broker_channel_error_retry": True,
        # A result is tried to be stored for half an hour or so: half of these times, on average, 10 s.
        "result_backend_always_retry": True,
        "result_backend_max_retries": RESULT_RETRIES,
        "task_default_queue": config.default_queue,
        "task_default_exchange": amqp.exchange,
        "task_default_exchange_type": amqp.exchange_type or "direct",
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": True,
        "worker_consumer": "machinery_compat.consumer:Consumer",
        "beat_scheduler": "machinery_compat.beat:Scheduler",
    }
    if given:
        settings["broker_url"] = urls.with_colon(config.broker_urls if len(config.broker_urls) > 1 else config.broker)
        settings["result_backend"] = urls.with_colon(config.result_backend)
    if config.tls_config is not None:
        is_amqp = config.broker.startswith("amqp")
        settings["broker_use_ssl"] = amqp_tls(config.tls_config) if is_amqp else redis_tls(config.tls_config)
        settings["redis_backend_use_ssl"] = redis_tls(config.tls_config)
    return settings


def _warn_of(tls: TLSConfig, *names: str) -> None:
    without_effect = [name for name in names if getattr(tls, name)]
    if without_effect:
        logger.warning("tls_config: the client library cannot use %s", ", ".join(without_effect))


def amqp_tls(tls: TLSConfig) -> dict[str, Any]:
    """TLS as py-amqp takes it."""
    _warn_of(tls, "min_version", "max_version", "next_protos")
    options: dict[str, Any] = {
        "cert_reqs": ssl.CERT_NONE if tls.insecure_skip_verify else ssl.CERT_REQUIRED,
        "ca_certs": tls.ca_file or None,
        "certfile": tls.cert_file or None,
        "keyfile": tls.key_file or None,
        "server_hostname": tls.server_name or None,
    }
    return options


def redis_tls(tls: TLSConfig) -> dict[str, Any]:
    """TLS as redis-py takes it."""
    _warn_of(tls, "server_name", "max_version", "next_protos")
    options: dict[str, Any] = {
        "ssl_cert_reqs": "none" if tls.insecure_skip_verify else "required",
        "ssl_check_hostname": not tls.insecure_skip_verify,
        "ssl_ca_certs": tls.ca_file or None,
        "ssl_certfile": tls.cert_file or None,
        "ssl_keyfile": tls.key_file or None,
    }
    if tls.min_version:
        options["ssl_min_version"] = ssl.TLSVersion(tls.min_version)
    return options
