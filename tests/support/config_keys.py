"""Every key of the configuration, for the tests of each place that it can come from."""

from __future__ import annotations

from typing import Any

__all__ = ["IDS", "KEYS"]

LOCAL = "amqp://guest:guest@localhost:5672/"

#: YAML key, plain variable, attribute, default, text of another value, that value.
KEYS: list[tuple[str, str, str, Any, str, Any]] = [
    ("broker", "BROKER", "broker", LOCAL, "redis://h:1", "redis://h:1"),
    ("lock", "LOCK", "lock", "", "redis://h:1", "redis://h:1"),
    ("multiple_broker_separator", "MULTIPLE_BROKEN_SEPARATOR", "multiple_broker_separator", "", ";", ";"),
    ("multiple_broker_separator", "MULTIPLE_BROKER_SEPARATOR", "multiple_broker_separator", "", ";", ";"),
    ("default_queue", "DEFAULT_QUEUE", "default_queue", "machinery_tasks", "010", "010"),
    ("result_backend", "RESULT_BACKEND", "result_backend", LOCAL, "eager", "eager"),
    ("results_expire_in", "RESULTS_EXPIRE_IN", "results_expire_in", 3600, "0x10", 16),
    ("no_unix_signals", "NO_UNIX_SIGNALS", "no_unix_signals", False, "true", True),
    ("amqp.exchange", "AMQP_EXCHANGE", "amqp.exchange", "machinery_exchange", "e", "e"),
    ("amqp.exchange_type", "AMQP_EXCHANGE_TYPE", "amqp.exchange_type", "direct", "topic", "topic"),
    ("amqp.binding_key", "AMQP_BINDING_KEY", "amqp.binding_key", "machinery_task", "k", "k"),
    ("amqp.prefetch_count", "AMQP_PREFETCH_COUNT", "amqp.prefetch_count", 3, "7", 7),
    ("amqp.auto_delete", "AMQP_AUTO_DELETE", "amqp.auto_delete", False, "true", True),
    ("amqp.delayed_queue", "AMQP_DELAYED_QUEUE", "amqp.delayed_queue", "", "d", "d"),
    ("sqs.receive_wait_time_seconds", "SQS_WAIT_TIME_SECONDS", "sqs.receive_wait_time_seconds", 0, "20", 20),
    ("sqs.receive_visibility_timeout", "SQS_VISIBILITY_TIMEOUT", "sqs.receive_visibility_timeout", None, "0", 0),
    ("sqs.visibility_hearth_beat", "SQS_VISIBILITY_HEARTBEAT", "sqs.visibility_hearth_beat", False, "true", True),
    ("redis.max_idle", "REDIS_MAX_IDLE", "redis.max_idle", 3, "0", 0),
    ("redis.max_active", "REDIS_MAX_ACTIVE", "redis.max_active", 0, "5", 5),
    ("redis.max_idle_timeout", "REDIS_IDLE_TIMEOUT", "redis.max_idle_timeout", 240, "5", 5),
    ("redis.wait", "REDIS_WAIT", "redis.wait", False, "true", True),
    ("redis.read_timeout", "REDIS_READ_TIMEOUT", "redis.read_timeout", 15, "5", 5),
    ("redis.write_timeout", "REDIS_WRITE_TIMEOUT", "redis.write_timeout", 15, "5", 5),
    ("redis.connect_timeout", "REDIS_CONNECT_TIMEOUT", "redis.connect_timeout", 15, "5", 5),
    (
        "redis.normal_tasks_poll_period",
        "REDIS_NORMAL_TASKS_POLL_PERIOD",
        "redis.normal_tasks_poll_period",
        1000,
        "1_500",
        1500,
    ),
    (
        "redis.delayed_tasks_poll_period",
        "REDIS_DELAYED_TASKS_POLL_PERIOD",
        "redis.delayed_tasks_poll_period",
        500,
        "0o17",
        15,
    ),
    ("redis.delayed_tasks_key", "REDIS_DELAYED_TASKS_KEY", "redis.delayed_tasks_key", "", "k", "k"),
    ("redis.client_name", "REDIS_CLIENT_NAME", "redis.client_name", "", "c", "c"),
    ("redis.master_name", "REDIS_MASTER_NAME", "redis.master_name", "", "m", "m"),
    ("redis.cluster_mode", "REDIS_CLUSTER_MODE", "redis.cluster_enabled", False, "true", True),
    ("redis.cluster_enabled", "REDIS_CLUSTER_ENABLED", "redis.cluster_enabled", False, "true", True),
    ("redis.sentinel_password", "REDIS_SENTINEL_PASSWORD", "redis.sentinel_password", "", "p", "p"),
    ("dynamodb.task_states_table", "TASK_STATES_TABLE", "dynamodb.task_states_table", "task_states", "t", "t"),
    ("dynamodb.group_metas_table", "GROUP_METAS_TABLE", "dynamodb.group_metas_table", "group_metas", "t", "t"),
    ("tlsconfig.servername", "TLSCONFIG_SERVERNAME", "tls_config.server_name", "", "h", "h"),
    (
        "tlsconfig.insecureskipverify",
        "TLSCONFIG_INSECURESKIPVERIFY",
        "tls_config.insecure_skip_verify",
        False,
        "true",
        True,
    ),
    ("tlsconfig.minversion", "TLSCONFIG_MINVERSION", "tls_config.min_version", 0, "0x0303", 0x0303),
    ("tlsconfig.maxversion", "TLSCONFIG_MAXVERSION", "tls_config.max_version", 0, "772", 0x0304),
    ("tlsconfig.cafile", "TLSCONFIG_CAFILE", "tls_config.ca_file", "", "f", "f"),
    ("tlsconfig.certfile", "TLSCONFIG_CERTFILE", "tls_config.cert_file", "", "f", "f"),
    ("tlsconfig.keyfile", "TLSCONFIG_KEYFILE", "tls_config.key_file", "", "f", "f"),
]
IDS = [row[1] for row in KEYS]
