"""The sections of the configuration, with the defaults of Go Machinery's ``config.go``."""

# ruff: noqa: RUF009 - setting() is dataclasses.field() with names

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from machinery_compat._config.fields import setting

__all__ = [
    "AMQPConfig",
    "DynamoDBConfig",
    "GCPPubSubConfig",
    "MongoDBConfig",
    "RedisConfig",
    "SQSConfig",
    "TLSConfig",
]


@dataclass(slots=True, kw_only=True)
class AMQPConfig:
    """RabbitMQ; Go's ``AMQPConfig``.

    Attributes:
        exchange: the exchange that tasks go to.
        exchange_type: its type: direct, fanout, topic, headers, or a plug-in's ``x-…``.
        queue_declare_args: arguments of ``queue.declare``, such as ``{"x-max-priority": 10}``.
        queue_binding_args: arguments of ``queue.bind``.
        binding_key: the key that binds a queue to the exchange.
        prefetch_count: how many unacknowledged messages one consumer holds; 0 is no limit.
        auto_delete: whether queues of delayed tasks go when their last consumer has gone.
        delayed_queue: the one queue for all delayed tasks; ``""`` is one queue a delay.
    """

    exchange: str = setting("machinery_exchange", "string", "Exchange", "exchange", "AMQP_EXCHANGE")
    exchange_type: str = setting("direct", "string", "ExchangeType", "exchange_type", "AMQP_EXCHANGE_TYPE")
    queue_declare_args: dict[str, Any] | None = setting(
        None, "declare args", "QueueDeclareArgs", "queue_declare_args", "AMQP_QUEUE_DECLARE_ARGS"
    )
    queue_binding_args: dict[str, Any] | None = setting(
        None, "binding args", "QueueBindingArgs", "queue_binding_args", "AMQP_QUEUE_BINDING_ARGS"
    )
    binding_key: str = setting("machinery_task", "string", "BindingKey", "binding_key", "AMQP_BINDING_KEY")
    prefetch_count: int = setting(3, "int", "PrefetchCount", "prefetch_count", "AMQP_PREFETCH_COUNT")
    auto_delete: bool = setting(False, "bool", "AutoDelete", "auto_delete", "AMQP_AUTO_DELETE")
    delayed_queue: str = setting("", "string", "DelayedQueue", "delayed_queue", "AMQP_DELAYED_QUEUE")


@dataclass(slots=True, kw_only=True)
class SQSConfig:
    """Amazon SQS; Go's ``SQSConfig``.

    Attributes:
        client: a boto3 SQS client to use instead of a new one; in code only.
        receive_wait_time_seconds: seconds that one receive waits for a message (0 to 20).
        receive_visibility_timeout: seconds that a received message stays hidden; None is the queue's own value.
        visibility_hearth_beat: whether a running task keeps extending that time (spelled as in Go).
    """

    client: Any = field(default=None, repr=False)
    receive_wait_time_seconds: int = setting(
        0, "int", "WaitTimeSeconds", "receive_wait_time_seconds", "SQS_WAIT_TIME_SECONDS"
    )
    receive_visibility_timeout: int | None = setting(
        None, "*int", "VisibilityTimeout", "receive_visibility_timeout", "SQS_VISIBILITY_TIMEOUT"
    )
    visibility_hearth_beat: bool = setting(
        False, "bool", "VisibilityHeartBeat", "visibility_hearth_beat", "SQS_VISIBILITY_HEARTBEAT"
    )


@dataclass(slots=True, kw_only=True)
class RedisConfig:
    """Redis; Go's ``RedisConfig``.

    Attributes:
        max_idle: idle connections kept in the pool.
        max_active: connections of the pool at most; 0 is no limit.
        max_idle_timeout: seconds after which an idle connection is closed.
        wait: whether a full pool makes the caller wait, instead of an error.
        read_timeout: seconds.
        write_timeout: seconds.
        connect_timeout: seconds.
        normal_tasks_poll_period: milliseconds that one wait for a task lasts; 0 is 1000.
        delayed_tasks_poll_period: milliseconds between two looks at the delayed tasks; 0 is 500.
        delayed_tasks_key: the sorted set of delayed tasks; ``""`` is ``delayed_tasks``.
        client_name: the name that connections give themselves.
        master_name: the master's name at the sentinels; if set, the addresses are sentinels.
        cluster_enabled: whether the addresses are nodes of a cluster (``cluster_mode`` in v1).
        sentinel_password: the password of the sentinels; never part of the repr.
    """

    max_idle: int = setting(3, "int", "MaxIdle", "max_idle", "REDIS_MAX_IDLE")
    max_active: int = setting(0, "int", "MaxActive", "max_active", "REDIS_MAX_ACTIVE")
    max_idle_timeout: int = setting(240, "int", "IdleTimeout", "max_idle_timeout", "REDIS_IDLE_TIMEOUT")
    wait: bool = setting(False, "bool", "Wait", "wait", "REDIS_WAIT")
    read_timeout: int = setting(15, "int", "ReadTimeout", "read_timeout", "REDIS_READ_TIMEOUT")
    write_timeout: int = setting(15, "int", "WriteTimeout", "write_timeout", "REDIS_WRITE_TIMEOUT")
    connect_timeout: int = setting(15, "int", "ConnectTimeout", "connect_timeout", "REDIS_CONNECT_TIMEOUT")
    normal_tasks_poll_period: int = setting(
        1000, "int", "NormalTasksPollPeriod", "normal_tasks_poll_period", "REDIS_NORMAL_TASKS_POLL_PERIOD"
    )
    delayed_tasks_poll_period: int = setting(
        500, "int", "DelayedTasksPollPeriod", "delayed_tasks_poll_period", "REDIS_DELAYED_TASKS_POLL_PERIOD"
    )
    delayed_tasks_key: str = setting("", "string", "DelayedTasksKey", "delayed_tasks_key", "REDIS_DELAYED_TASKS_KEY")
    client_name: str = setting("", "string", "ClientName", "client_name", "REDIS_CLIENT_NAME")
    master_name: str = setting("", "string", "MasterName", "master_name", "REDIS_MASTER_NAME")
    cluster_enabled: bool = setting(
        False,
        "bool",
        "ClusterEnabled ClusterMode",
        "cluster_enabled cluster_mode",
        "REDIS_CLUSTER_ENABLED REDIS_CLUSTER_MODE",
    )
    sentinel_password: str = setting("", "string", "SentinelPassword", "sentinel_password", "REDIS_SENTINEL_PASSWORD")

    @classmethod
    def when_absent(cls) -> RedisConfig:
        """What Go uses when the section is nil: the values that its code comments call the defaults."""
        return cls(max_idle=10, max_active=100, max_idle_timeout=300, wait=True)


@dataclass(slots=True, kw_only=True)
class DynamoDBConfig:
    """Amazon DynamoDB; Go's ``DynamoDBConfig``.

    Attributes:
        client: a boto3 DynamoDB client to use instead of a new one; in code only.
        task_states_table: the table of task states.
        group_metas_table: the table of groups.
    """

    client: Any = field(default=None, repr=False)
    task_states_table: str = setting(
        "task_states", "string", "TaskStatesTable", "task_states_table", "TASK_STATES_TABLE"
    )
    group_metas_table: str = setting(
        "group_metas", "string", "GroupMetasTable", "group_metas_table", "GROUP_METAS_TABLE"
    )


@dataclass(slots=True, kw_only=True)
class TLSConfig:
    """TLS for connections to brokers and stores; the part of Go's ``tls.Config`` that text can say.

    Attributes:
        server_name: the name to verify the server's certificate against; ``""`` is the host of the URL.
        insecure_skip_verify: whether any certificate is accepted.
        min_version: the lowest TLS version as on the wire (0x0303 is TLS 1.2); 0 is the library's choice.
        max_version: the highest, likewise.
        next_protos: ALPN protocols, in order.
        ca_file: path of a PEM file with the authorities to trust; ``""`` is the system's. Not in Go.
        cert_file: path of a PEM file with the client's certificate. Not in Go.
        key_file: path of a PEM file with its key. Not in Go.
    """

    server_name: str = setting("", "string", "ServerName", "servername", "TLSCONFIG_SERVERNAME")
    insecure_skip_verify: bool = setting(
        False, "bool", "InsecureSkipVerify", "insecureskipverify", "TLSCONFIG_INSECURESKIPVERIFY"
    )
    min_version: int = setting(0, "uint16", "MinVersion", "minversion", "TLSCONFIG_MINVERSION")
    max_version: int = setting(0, "uint16", "MaxVersion", "maxversion", "TLSCONFIG_MAXVERSION")
    next_protos: list[str] | None = setting(None, "[]string", "NextProtos", "nextprotos", "TLSCONFIG_NEXTPROTOS")
    ca_file: str = setting("", "string", "CAFile", "cafile", "TLSCONFIG_CAFILE")
    cert_file: str = setting("", "string", "CertFile", "certfile", "TLSCONFIG_CERTFILE")
    key_file: str = setting("", "string", "KeyFile", "keyfile", "TLSCONFIG_KEYFILE")


@dataclass(slots=True, kw_only=True)
class GCPPubSubConfig:
    """Google Pub/Sub; in code only; Go's ``GCPPubSubConfig``.

    Attributes:
        client: the Pub/Sub client to use instead of a new one.
        max_extension: how long a message's deadline is extended at most; None is the library's choice.
    """

    client: Any = field(default=None, repr=False)
    max_extension: timedelta | None = None


@dataclass(slots=True, kw_only=True)
class MongoDBConfig:
    """MongoDB; in code only; Go's ``MongoDBConfig``.

    Attributes:
        client: the MongoClient to use instead of a new one.
        database: the name of the database. One in the URL is ignored, as in Go.
    """

    client: Any = field(default=None, repr=False)
    database: str = "machinery"
