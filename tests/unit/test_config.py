"""The configuration itself: defaults, where it comes from, its repr, and what cannot work."""

# ruff: noqa: S106 - the passwords are examples

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import config, errors
from machinery_compat.config import Config
from tests.support.config_keys import IDS, KEYS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yml"


@pytest.mark.parametrize(("key", "variable"), [row[:2] for row in KEYS], ids=IDS)
def test_the_docs_name_each_key_and_each_variable(key: str, variable: str) -> None:
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert any(f"`{key}`" in row and f"`{variable}`" in row for row in rows)


class TestDefaults:
    @pytest.mark.parametrize(("key", "variable", "attribute", "default", "text", "value"), KEYS, ids=IDS)
    def test_a_value_that_nobody_gives_is_gos_default(
        self, key: str, variable: str, attribute: str, default: Any, text: str, value: Any
    ) -> None:
        made = Config(sqs=config.SQSConfig(), tls_config=config.TLSConfig())
        assert attrgetter(attribute)(made) == default

    def test_the_sections_of_a_config_made_in_code(self) -> None:
        made = Config()
        assert made.amqp == config.AMQPConfig()
        assert made.redis == config.RedisConfig()
        assert made.dynamodb == config.DynamoDBConfig()
        assert (made.sqs, made.tls_config, made.gcp_pubsub, made.mongodb) == (None, None, None, None)
        assert config.MongoDBConfig().database == "machinery"
        assert config.GCPPubSubConfig().max_extension is None

    def test_two_configs_share_nothing(self) -> None:
        one, other = Config(), Config()
        assert one.redis is not None
        one.redis.max_idle = 99
        assert other == Config()

    def test_a_misspelled_attribute_is_an_error(self) -> None:
        with pytest.raises(AttributeError):
            Config().default_que = "x"  # type: ignore[attr-defined]

    def test_absent_sections_have_stand_ins(self) -> None:
        made = Config(amqp=None, redis=None)
        assert made.amqp_settings == config.AMQPConfig()
        stand_in = made.redis_settings
        assert (stand_in.max_idle, stand_in.max_active, stand_in.max_idle_timeout, stand_in.wait) == (
            10,
            100,
            300,
            True,
        )
        assert (stand_in.read_timeout, stand_in.delayed_tasks_poll_period) == (15, 500)
        given = Config()
        assert given.redis_settings is given.redis
        assert given.amqp_settings is given.amqp


class TestLoad:
    def test_a_variable_names_the_file(self, file: Path) -> None:
        file.write_text("default_queue: from_file\n")
        environ = {"MACHINERY_CONFIG": str(file), "DEFAULT_QUEUE": "from_env"}
        assert Config.load(environ).default_queue == "from_file"

    @pytest.mark.parametrize("environ", [{}, {"MACHINERY_CONFIG": ""}])
    def test_without_it_the_environment_counts(self, environ: dict[str, str]) -> None:
        assert Config.load({**environ, "DEFAULT_QUEUE": "from_env"}).default_queue == "from_env"

    def test_a_file_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(errors.ConfigError, match="Open file error: "):
            Config.load({"MACHINERY_CONFIG": "/nonexistent/config.yml"})


class TestConfig:
    def test_the_broker_may_be_several(self) -> None:
        assert Config(broker="amqp://a,b").broker_urls == ["amqp://a,b"]
        made = Config(broker="amqp://a;amqp://b", multiple_broker_separator=";")
        assert made.broker_urls == ["amqp://a", "amqp://b"]

    def test_the_repr_shows_no_password(self) -> None:
        made = Config(
            broker="amqp://u:secret@a;amqp://u:secret@b",
            multiple_broker_separator=";",
            result_backend="redis://:secret@h:1/2",
            lock="redis://secret@h:1",
            redis=config.RedisConfig(sentinel_password="secret"),
        )
        shown = repr(made)
        assert "secret" not in shown
        assert "broker='amqp://a;amqp://b'" in shown
        assert "result_backend='redis://h:1'" in shown
        assert "default_queue='machinery_tasks'" in shown

    @pytest.mark.parametrize(
        "made",
        [
            Config(),
            Config(broker="eager", result_backend="null", lock="eager"),
            Config(broker="redis://h", result_backend="redis://a,b/3", lock="redis://h"),
            Config(broker="redis+socket:///x", result_backend="memcache://h:1"),
            Config(broker="amqp://a;amqps://b", multiple_broker_separator=";"),
            Config(sqs=config.SQSConfig(receive_visibility_timeout=30, visibility_hearth_beat=True)),
            Config(tls_config=config.TLSConfig(min_version=0x0303, max_version=0x0304)),
            Config(amqp=config.AMQPConfig(exchange_type="x-delayed-message", prefetch_count=0)),
            Config(amqp=None, redis=None, dynamodb=None),
        ],
    )
    def test_a_usable_config_passes(self, made: Config) -> None:
        made.validate({})

    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"default_queue": ""}, "default_queue is empty"),
            ({"results_expire_in": -1}, "results_expire_in is -1"),
            (
                {"results_expire_in": 2147484},
                "results_expire_in is 2147484, but RabbitMQ allows at most 2147483 seconds",
            ),
            ({"broker": "ftp://h"}, "broker: Factory failed with broker URL: ftp://h"),
            ({"broker": "amqp://h;ftp://i", "multiple_broker_separator": ";"}, "broker URL: ftp://i"),
            ({"broker": "redis:///1"}, "broker: redis:// names no host"),
            ({"broker": "redis://h/-1"}, "broker: redis://h names the database -1"),
            ({"broker": "gcppubsub://p"}, "broker: gcppubsub scheme should be"),
            ({"broker": "http://h"}, "broker: Factory failed"),
            ({"result_backend": "x"}, "result_backend: Factory failed with result backend: x"),
            ({"result_backend": "redis://h:x"}, "result_backend: redis://h:x"),
            ({"lock": "redis://h/3"}, "lock: redis://h: Machinery's lock is always in database 0"),
            ({"amqp": config.AMQPConfig(prefetch_count=-1)}, "amqp.prefetch_count is -1"),
            ({"amqp": config.AMQPConfig(prefetch_count=65536)}, "amqp.prefetch_count is 65536"),
            ({"amqp": config.AMQPConfig(exchange_type="drect")}, "amqp.exchange_type is 'drect'"),
            ({"amqp": config.AMQPConfig(queue_declare_args={"a": None})}, "amqp.queue_declare_args has no value for a"),
            ({"redis": config.RedisConfig(read_timeout=-1)}, "redis.read_timeout is -1"),
            ({"redis": config.RedisConfig(master_name="m", cluster_enabled=True)}, "exclude each other"),
            ({"sqs": config.SQSConfig(receive_wait_time_seconds=21)}, "sqs.receive_wait_time_seconds is 21"),
            ({"sqs": config.SQSConfig(receive_visibility_timeout=43201)}, "sqs.receive_visibility_timeout is 43201"),
            ({"sqs": config.SQSConfig(visibility_hearth_beat=True)}, "sqs.visibility_hearth_beat needs"),
            ({"tls_config": config.TLSConfig(min_version=12)}, "tls_config.min_version is 0x000c"),
            (
                {"tls_config": config.TLSConfig(min_version=0x0304, max_version=0x0303)},
                "tls_config.min_version is above tls_config.max_version",
            ),
            ({"tls_config": config.TLSConfig(key_file="k")}, "tls_config.key_file needs tls_config.cert_file"),
            ({"dynamodb": config.DynamoDBConfig(task_states_table="")}, "dynamodb.task_states_table is empty"),
        ],
    )
    def test_a_value_that_cannot_work_is_named(self, values: dict[str, Any], problem: str) -> None:
        with pytest.raises(errors.ConfigError) as caught:
            Config(**values).validate({})
        assert problem in str(caught.value)
        assert ";" not in str(caught.value).replace(problem, "")

    def test_all_values_that_cannot_work_are_in_one_error(self) -> None:
        made = Config(default_queue="", broker="x", lock="redis://u:secret@h/1", redis=config.RedisConfig(max_idle=-1))
        with pytest.raises(errors.ConfigError) as caught:
            made.validate({})
        text = str(caught.value)
        assert all(key in text for key in ("default_queue", "broker:", "lock:", "redis.max_idle"))
        assert "secret" not in text

    def test_any_http_broker_is_fine_where_the_check_is_off(self) -> None:
        Config(broker="http://h").validate({"DISABLE_STRICT_SQS_CHECK": "1"})
