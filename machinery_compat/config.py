"""The configuration of Machinery: from code, a YAML file, or the environment; Go's ``config`` package.

The same file and the same variables as for Go workers; docs/configuration.md lists every key and what differs.
"""

# ruff: noqa: RUF009 - setting() and section() are dataclasses.field() with names

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from machinery_compat import errors, urls
from machinery_compat._config import environment, rules, yamlfile
from machinery_compat._config.fields import ConfigWarning, section, setting
from machinery_compat._config.sections import (
    AMQPConfig,
    DynamoDBConfig,
    GCPPubSubConfig,
    MongoDBConfig,
    RedisConfig,
    SQSConfig,
    TLSConfig,
)

__all__ = [
    "AMQPConfig",
    "Config",
    "ConfigWarning",
    "ConfigWatcher",
    "DynamoDBConfig",
    "GCPPubSubConfig",
    "MongoDBConfig",
    "RedisConfig",
    "SQSConfig",
    "TLSConfig",
]

logger = logging.getLogger(__name__)

PathLike: TypeAlias = "str | os.PathLike[str]"
_LOCAL_RABBITMQ = "amqp://guest:guest@localhost:5672/"


@dataclass(slots=True, kw_only=True, repr=False)
class Config:
    """Everything that Machinery lets one configure; Go's ``Config``.

    ``Config()`` has Go's defaults. Nothing is shared between two of them. The repr shows no passwords.

    Attributes:
        broker: the broker's URL, or several joined by ``multiple_broker_separator``.
        lock: the URL of the lock for periodic tasks.
        multiple_broker_separator: what separates the URLs of ``broker``; ``""`` is one URL.
        default_queue: the queue of tasks that name none.
        result_backend: the URL of the result store.
        results_expire_in: seconds that results are kept.
        amqp: RabbitMQ; None if a YAML file has no such section.
        sqs: Amazon SQS; None unless given, or read from the environment.
        redis: Redis; None if a YAML file has an empty ``redis:``.
        gcp_pubsub: Google Pub/Sub; in code only.
        mongodb: MongoDB; in code only.
        tls_config: TLS for all connections; None is what the URL says.
        dynamodb: Amazon DynamoDB; None if a YAML file has an empty ``dynamodb:``.
        no_unix_signals: whether a worker leaves signals alone.
    """

    broker: str = setting(_LOCAL_RABBITMQ, "string", "Broker", "broker", "BROKER")
    lock: str = setting("", "string", "Lock", "lock", "LOCK")
    multiple_broker_separator: str = setting(
        "",
        "string",
        "MultipleBrokerSeparator",
        "multiple_broker_separator",
        # The second is Go's misspelling.
        "MULTIPLE_BROKER_SEPARATOR MULTIPLE_BROKEN_SEPARATOR",
    )
    default_queue: str = setting("machinery_tasks", "string", "DefaultQueue", "default_queue", "DEFAULT_QUEUE")
    result_backend: str = setting(_LOCAL_RABBITMQ, "string", "ResultBackend", "result_backend", "RESULT_BACKEND")
    results_expire_in: int = setting(3600, "int", "ResultsExpireIn", "results_expire_in", "RESULTS_EXPIRE_IN")
    amqp: AMQPConfig | None = section(AMQPConfig, "AMQP", "amqp", present=True, needs_key=True)
    sqs: SQSConfig | None = section(SQSConfig, "SQS", "sqs", present=False)
    redis: RedisConfig | None = section(RedisConfig, "Redis", "redis", present=True)
    gcp_pubsub: GCPPubSubConfig | None = None
    mongodb: MongoDBConfig | None = None
    tls_config: TLSConfig | None = section(TLSConfig, "TLSConfig", "tlsconfig", present=False)
    no_unix_signals: bool = setting(False, "bool", "NoUnixSignals", "no_unix_signals", "NO_UNIX_SIGNALS")
    dynamodb: DynamoDBConfig | None = section(DynamoDBConfig, "DynamoDB", "dynamodb", present=True)

    @classmethod
    def from_yaml(cls, path: PathLike) -> Config:
        """Reads a YAML file; Go's ``NewFromYaml`` without its limit of 1000 bytes.

        Unknown keys, which Go ignores in silence, make one ConfigWarning.

        Raises:
            ConfigError: no such file, nothing in it, no YAML, or values of the wrong type.
        """
        made, unknown = yamlfile.read(cls, _content(path))
        if unknown:
            warnings.warn(_ignored(path, unknown), ConfigWarning, stacklevel=2)
        return made

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Reads environment variables; Go's ``NewFromEnvironment`` without its forced TLS.

        Args:
            environ: the variables (default: the process's environment).

        Raises:
            ConfigError: values of the wrong type, each in Go's words.
        """
        made, unknown = environment.read(cls, os.environ if environ is None else environ)
        if unknown:
            warnings.warn(_ignored("the environment", unknown), ConfigWarning, stacklevel=2)
        return made

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Reads the YAML file that the variable MACHINERY_CONFIG names, or else the environment.

        Raises:
            ConfigError: as :meth:`from_yaml` and :meth:`from_env`.
        """
        variables = os.environ if environ is None else environ
        path = variables.get("MACHINERY_CONFIG")
        return cls.from_yaml(path) if path else cls.from_env(variables)

    @property
    def broker_urls(self) -> list[str]:
        """The URLs in ``broker``, in the order in which they are to be tried."""
        separator = self.multiple_broker_separator
        return self.broker.split(separator) if separator else [self.broker]

    @property
    def redis_settings(self) -> RedisConfig:
        """The Redis section, or what Go uses without one."""
        return self.redis if self.redis is not None else RedisConfig.when_absent()

    @property
    def amqp_settings(self) -> AMQPConfig:
        """The AMQP section, or its defaults. (Go crashes without one.)"""
        return self.amqp if self.amqp is not None else AMQPConfig()

    def validate(self, environ: Mapping[str, str] | None = None) -> None:
        """Checks for values that cannot work.

        Args:
            environ: where to look for DISABLE_STRICT_SQS_CHECK (default: the process's environment).

        Raises:
            ConfigError: lists every such value.
        """
        found = list(rules.problems(self, os.environ if environ is None else environ))
        if found:
            raise errors.ConfigError("The configuration cannot be used: " + "; ".join(found))

    def __repr__(self) -> str:
        brokers = self.multiple_broker_separator.join(urls.redact(url) for url in self.broker_urls)
        hidden = {
            "broker": brokers,
            "lock": urls.redact(self.lock),
            "result_backend": urls.redact(self.result_backend),
        }
        shown = ", ".join(f"{name}={hidden.get(name, getattr(self, name))!r}" for name in self.__slots__)
        return f"Config({shown})"


class ConfigWatcher:
    """Reads a YAML file again and again, and hands on what has changed; Go's ``keepReloading``.

    A file that cannot be used changes nothing: the configuration stays, and the log gets one line. Usable in ``with``.

    Args:
        path: the YAML file; read at once.
        on_change: called in the watcher's thread with each new configuration, never with an equal one.
        interval: seconds between two reads.

    Raises:
        ConfigError: the file cannot be used from the start.
    """

    def __init__(self, path: PathLike, on_change: Callable[[Config], object], interval: float = 10.0) -> None:
        self._path = Path(path)
        self._on_change = on_change
        self._interval = interval
        self._content = _content(path)
        self._current = self._parse(self._content)
        self._complaint = ""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> Config:
        """The newest usable configuration: always a whole one, never changed in place."""
        return self._current

    def start(self) -> None:
        """Starts the thread; once it runs, a second call does nothing."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="machinery-config", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stops the thread and waits for its end. Inside ``on_change`` it only asks for it."""
        self._stopped.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def check(self) -> bool:
        """Reads the file once, as the thread does; returns whether there was a change."""
        try:
            content = _content(self._path)
            if content == self._content and not self._complaint:
                return False
            new = self._parse(content)
        except errors.ConfigError as exc:
            # One line for one fault, not one for every read.
            if str(exc) != self._complaint:
                self._complaint = str(exc)
                logger.error("%s cannot be used, the configuration stays as it is: %s", self._path, exc)
            return False
        self._content, self._complaint = content, ""
        if new == self._current:
            return False
        self._current = new
        logger.info("%s has changed, the new configuration is in use", self._path)
        try:
            self._on_change(new)
        except Exception:
            logger.exception("on_change failed with the new configuration from %s", self._path)
        return True

    def _parse(self, content: bytes) -> Config:
        made, unknown = yamlfile.read(Config, content)
        made.validate()
        if unknown:
            logger.warning("%s", _ignored(self._path, unknown))
        return made

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self.check()

    def __enter__(self) -> ConfigWatcher:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _content(path: PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise errors.ConfigError(f"Open file error: open {os.fspath(path)}: {reason}") from None


def _ignored(where: object, unknown: list[str]) -> str:
    return f"{where} has keys without effect: {', '.join(unknown)}"
