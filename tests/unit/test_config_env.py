"""The configuration from the environment: each variable, and Go's own errors."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest

from machinery_compat import config, errors
from machinery_compat.config import Config, ConfigWarning
from tests.support.config_keys import IDS, KEYS


@pytest.mark.parametrize(("key", "variable", "attribute", "default", "text", "value"), KEYS, ids=IDS)
def test_each_variable_sets_its_attribute_and_nothing_else(
    key: str, variable: str, attribute: str, default: Any, text: str, value: Any
) -> None:
    made = Config.from_env({variable: text})
    assert attrgetter(attribute)(made) == value
    section, _, name = attribute.rpartition(".")
    setattr(attrgetter(section)(made) if section else made, name, default)
    if section == "tls_config":
        assert made.tls_config == config.TLSConfig()
        made.tls_config = None
    assert made == Config(sqs=config.SQSConfig())


@pytest.mark.parametrize(
    ("key", "variable", "attribute", "default", "text", "value"),
    [row for row in KEYS if "." in row[0] and not row[0].startswith("tlsconfig")],
)
def test_the_name_with_the_section_wins_over_the_plain_one(
    key: str, variable: str, attribute: str, default: Any, text: str, value: Any
) -> None:
    primary = f"{key.partition('.')[0].upper()}_{variable}"
    assert attrgetter(attribute)(Config.from_env({primary: text})) == value
    assert attrgetter(attribute)(Config.from_env({primary: text, variable: "1"})) == value


def test_the_correct_spelling_of_the_separator_wins() -> None:
    environ = {"MULTIPLE_BROKEN_SEPARATOR": ",", "MULTIPLE_BROKER_SEPARATOR": ";"}
    assert Config.from_env(environ).multiple_broker_separator == ";"


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_QUEUE", "from_process")
    assert Config.from_env().default_queue == "from_process"


def test_an_empty_variable_counts_as_set() -> None:
    made = Config.from_env({"BROKER": "", "AMQP_AMQP_EXCHANGE": "", "AMQP_EXCHANGE": "e"})
    assert made.broker == ""
    assert made.amqp_settings.exchange == ""


def test_tls_is_absent_unless_a_variable_asks_for_it() -> None:
    assert Config.from_env({"TLSCONFIG": "x"}).tls_config is None
    made = Config.from_env({"TLSCONFIG_NEXTPROTOS": "a,b"})
    assert made.tls_config == config.TLSConfig(next_protos=["a", "b"])
    assert Config.from_env({"TLSCONFIG_NEXTPROTOS": ""}).tls_config == config.TLSConfig(next_protos=[])


def test_a_tls_variable_without_effect_is_named() -> None:
    with pytest.warns(ConfigWarning, match="TLSCONFIG_CIPHERSUITES") as caught:
        made = Config.from_env({"TLSCONFIG_CIPHERSUITES": "1"})
    assert made.tls_config == config.TLSConfig()
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("0", 0),
        ("+5", 5),
        ("-5", -5),
        ("0x10", 16),
        ("0X1F", 31),
        ("-0x10", -16),
        ("0x_1", 1),
        ("0b11", 3),
        ("0B1", 1),
        ("0o17", 15),
        ("0O7", 7),
        ("017", 15),
        ("0_7", 7),
        ("1_000", 1000),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_integers_are_gos_literals(text: str, value: int) -> None:
    assert Config.from_env({"RESULTS_EXPIRE_IN": text}).results_expire_in == value


@pytest.mark.parametrize(
    ("text", "details"),
    [
        *((text, "invalid syntax") for text in ("", "x", "_5", "1_", "1__0", "0x", "0_", "0x1_", "08", " 5", "5 ")),
        *((text, "invalid syntax") for text in ("٣", "3.0", "1e3", "--5", "é")),
        *((text, "value out of range") for text in ("9223372036854775808", "-9223372036854775809", "9" * 5000)),
    ],
)
def test_no_integer_is_gos_error(text: str, details: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Config.from_env({"RESULTS_EXPIRE_IN": text})
    assert str(caught.value) == (
        f"envconfig.Process: assigning RESULTS_EXPIRE_IN to ResultsExpireIn: converting '{text}' to type int. "
        f'details: strconv.ParseInt: parsing "{text}": {details}'
    )


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_what_is_true(text: str) -> None:
    assert Config.from_env({"NO_UNIX_SIGNALS": text}).no_unix_signals is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_what_is_false(text: str) -> None:
    assert Config.from_env({"NO_UNIX_SIGNALS": text}).no_unix_signals is False


@pytest.mark.parametrize("text", ["", "yes", "tRUE", " true", "on", "2"])
def test_no_bool_is_gos_error(text: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Config.from_env({"NO_UNIX_SIGNALS": text})
    assert str(caught.value) == (
        f"envconfig.Process: assigning NO_UNIX_SIGNALS to NoUnixSignals: converting '{text}' to type bool. "
        f'details: strconv.ParseBool: parsing "{text}": invalid syntax'
    )


@pytest.mark.parametrize(
    ("variable", "start"),
    [
        ("AMQP_PREFETCH_COUNT", "AMQP_AMQP_PREFETCH_COUNT to PrefetchCount: converting 'x' to type int. "),
        ("AMQP_AMQP_AUTO_DELETE", "AMQP_AMQP_AUTO_DELETE to AutoDelete: converting 'x' to type bool. "),
        ("SQS_WAIT_TIME_SECONDS", "SQS_SQS_WAIT_TIME_SECONDS to WaitTimeSeconds: converting 'x' to type int. "),
        (
            "SQS_VISIBILITY_TIMEOUT",
            "SQS_SQS_VISIBILITY_TIMEOUT to VisibilityTimeout: converting 'x' to type *int. ",
        ),
        (
            "SQS_VISIBILITY_HEARTBEAT",
            "SQS_SQS_VISIBILITY_HEARTBEAT to VisibilityHeartBeat: converting 'x' to type b",
        ),
        ("REDIS_MAX_IDLE", "REDIS_REDIS_MAX_IDLE to MaxIdle: converting 'x' to type int. "),
        ("REDIS_IDLE_TIMEOUT", "REDIS_REDIS_IDLE_TIMEOUT to IdleTimeout: converting 'x' to type int. "),
        ("REDIS_CLUSTER_ENABLED", "REDIS_REDIS_CLUSTER_ENABLED to ClusterEnabled: converting 'x' to type bool. "),
        ("REDIS_CLUSTER_MODE", "REDIS_REDIS_CLUSTER_MODE to ClusterMode: converting 'x' to type bool. "),
        ("TLSCONFIG_MINVERSION", "TLSCONFIG_MINVERSION to MinVersion: converting 'x' to type uint16. "),
    ],
)
def test_errors_name_the_variable_and_the_field_as_go_does(variable: str, start: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Config.from_env({variable: "x"})
    assert str(caught.value).startswith(f"envconfig.Process: assigning {start}")


@pytest.mark.parametrize(("text", "details"), [("-1", "invalid syntax"), ("70000", "value out of range")])
def test_unsigned_integers(text: str, details: str) -> None:
    with pytest.raises(errors.ConfigError, match=f'strconv.ParseUint: parsing "{text}": {details}$'):
        Config.from_env({"TLSCONFIG_MINVERSION": text})


def test_all_bad_variables_are_named() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Config.from_env({"RESULTS_EXPIRE_IN": "x", "REDIS_WAIT": "maybe"})
    assert "RESULTS_EXPIRE_IN" in str(caught.value)
    assert "REDIS_REDIS_WAIT" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "declare", "binding"),
    [
        ("", {}, {}),
        (" ", {}, {}),
        ("a:b", {"a": "b"}, {"a": "b"}),
        ("x-max-priority:10,a:true", {"x-max-priority": 10, "a": True}, {"x-max-priority": "10", "a": "true"}),
        ("a:-1,b:1.5,c:0x1", {"a": -1, "b": "1.5", "c": "0x1"}, {"a": "-1", "b": "1.5", "c": "0x1"}),
        (" a: 1", {" a": " 1"}, {" a": " 1"}),
        (":,a:", {"": "", "a": ""}, {"": "", "a": ""}),
    ],
)
def test_amqp_arguments(text: str, declare: dict[str, Any], binding: dict[str, str]) -> None:
    made = Config.from_env({"AMQP_QUEUE_DECLARE_ARGS": text, "AMQP_QUEUE_BINDING_ARGS": text})
    assert made.amqp is not None
    assert made.amqp.queue_declare_args == declare
    assert made.amqp.queue_binding_args == binding


@pytest.mark.parametrize(("text", "item"), [("a", "a"), ("a:1,b", "b"), ("a:1,", ""), (",", ""), ("a:b:c", "a:b:c")])
@pytest.mark.parametrize(("which", "field"), [("DECLARE", "QueueDeclareArgs"), ("BINDING", "QueueBindingArgs")])
def test_an_argument_needs_one_colon(which: str, field: str, text: str, item: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Config.from_env({f"AMQP_QUEUE_{which}_ARGS": text})
    assert str(caught.value) == (
        f"envconfig.Process: assigning AMQP_AMQP_QUEUE_{which}_ARGS to {field}: converting '{text}' "
        f'to type config.{field}. details: invalid map item: "{item}"'
    )
