"""The configuration from a YAML file: each key, and values that do not fit."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import config, errors
from machinery_compat.config import Config, ConfigWarning
from tests.support.config_keys import IDS, KEYS


def as_yaml(key: str, text: str) -> str:
    section, _, name = key.rpartition(".")
    line = f"{name}: {text}\n"
    return f"{section}:\n  {line}" if section else line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yml"


def read(file: Path, text: str) -> Config:
    file.write_text(text, encoding="utf-8")
    return Config.from_yaml(file)


def refused(file: Path, text: str) -> str:
    with pytest.raises(errors.ConfigError) as caught:
        read(file, text)
    return str(caught.value)


@pytest.mark.parametrize(("key", "variable", "attribute", "default", "text", "value"), KEYS, ids=IDS)
def test_each_key_sets_its_attribute_and_nothing_else(
    file: Path, key: str, variable: str, attribute: str, default: Any, text: str, value: Any
) -> None:
    made = read(file, as_yaml(key, text))
    assert attrgetter(attribute)(made) == value
    assert type(attrgetter(attribute)(made)) is type(value)
    section, _, name = attribute.rpartition(".")
    owner = attrgetter(section)(made) if section else made
    setattr(owner, name, default)
    plain = read(file, f"{key.partition('.')[0]}: {{}}\n" if section else "# nothing\n")
    assert made == plain


def test_a_file_of_comments_has_the_defaults_without_amqp(file: Path) -> None:
    assert read(file, "# nothing\n") == Config(amqp=None)


def test_a_section_that_is_empty(file: Path) -> None:
    assert read(file, "amqp:\nredis:\ndynamodb:\nsqs:\ntlsconfig:\n") == Config(amqp=None, redis=None, dynamodb=None)
    assert read(file, "amqp: {}\nredis: {}\ndynamodb: {}\nsqs: {}\ntlsconfig: {}\n") == Config(
        sqs=config.SQSConfig(), tls_config=config.TLSConfig()
    )


def test_a_section_starts_from_the_defaults(file: Path) -> None:
    assert read(file, "amqp:\n  exchange: e\n").amqp == config.AMQPConfig(exchange="e")


def test_values_of_one_file_are_not_the_defaults_of_the_next(file: Path) -> None:
    read(file, "redis:\n  max_idle: 99\namqp:\n  exchange: e\n")
    assert read(file, "amqp: {}\n") == Config()


def test_a_long_file_is_read_to_its_end(file: Path) -> None:
    assert read(file, "# long\n" * 1000 + "default_queue: q\n").default_queue == "q"


def test_amqp_arguments_keep_their_types(file: Path) -> None:
    made = read(
        file,
        "amqp:\n"
        "  queue_declare_args: {x-max-priority: 10, x-queue-mode: lazy, x-single-active-consumer: true}\n"
        "  queue_binding_args:\n    image-type: png\n    n: 5\n    on: true\n    010: x\n",
    )
    assert made.amqp is not None
    assert made.amqp.queue_declare_args == {
        "x-max-priority": 10,
        "x-queue-mode": "lazy",
        "x-single-active-consumer": True,
    }
    assert made.amqp.queue_binding_args == {"image-type": "png", "n": 5, "on": True, "010": "x"}


def test_protocols_are_a_list(file: Path) -> None:
    made = read(file, "tlsconfig:\n  nextprotos: [a, 'b']\n")
    assert made.tls_config == config.TLSConfig(next_protos=["a", "b"])


def test_anchors_and_merge_keys_work(file: Path) -> None:
    text = "amqp: &base\n  exchange: e\nredis:\n  client_name: c\n"
    assert read(file, text).redis_settings.client_name == "c"
    with pytest.warns(ConfigWarning, match="shared"):
        made = read(file, "shared: &s {exchange: e}\namqp:\n  <<: *s\n  binding_key: k\n")
    assert made.amqp == config.AMQPConfig(exchange="e", binding_key="k")


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", "5"), ("010", "010"), ("1.0", "1.0"), ("on", "on"), ("true", "true"), ("2020-01-01", "2020-01-01")],
)
def test_a_string_is_what_the_file_says(file: Path, text: str, value: str) -> None:
    assert read(file, f"default_queue: {text}\n").default_queue == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("16", 16), ("0x10", 16), ("0b11", 3), ("0o10", 8), ("010", 8), ("1_000", 1000), ("3.0", 3), ("1e3", 1000)],
)
def test_integers_are_written_as_in_go(file: Path, text: str, value: int) -> None:
    assert read(file, f"results_expire_in: {text}\n").results_expire_in == value


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("on", True), ("y", True), ("True", True), ("off", False), ("N", False)]
)
def test_bools_are_yamls(file: Path, text: str, value: bool) -> None:
    assert read(file, f"no_unix_signals: {text}\n").no_unix_signals is value


def test_a_key_without_a_value_is_zero_as_in_go(file: Path) -> None:
    made = read(file, "broker:\nresults_expire_in: ~\nno_unix_signals: null\nsqs: {receive_visibility_timeout: }\n")
    assert (made.broker, made.results_expire_in, made.no_unix_signals) == ("", 0, False)
    assert made.sqs == config.SQSConfig()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("results_expire_in: soon\n", "results_expire_in: expected an integer, got 'soon' in line 1"),
        ("results_expire_in: '5'\n", "results_expire_in: expected an integer, got '5' in line 1"),
        ("results_expire_in: 3.5\n", "results_expire_in: expected an integer, got '3.5' in line 1"),
        ("results_expire_in: 1:30\n", "results_expire_in: expected an integer, got '1:30' in line 1"),
        ("results_expire_in: 1e99\n", "results_expire_in: expected an integer, got '1e99' in line 1"),
        ("results_expire_in: 9223372036854775808\n", "results_expire_in: expected an integer"),
        ("no_unix_signals: 1\n", "no_unix_signals: expected true or false, got '1' in line 1"),
        ("no_unix_signals: 'true'\n", "no_unix_signals: expected true or false, got 'true' in line 1"),
        ("default_queue: [a]\n", "default_queue: expected a string, got a list in line 1"),
        ("default_queue: {a: b}\n", "default_queue: expected a string, got a mapping in line 1"),
        ("amqp: 5\n", "amqp: expected a mapping, got '5' in line 1"),
        ("redis: ''\n", "redis: expected a mapping, got '' in line 1"),
        ("\namqp:\n  prefetch_count: many\n", "amqp.prefetch_count: expected an integer, got 'many' in line 3"),
        ("amqp:\n  queue_declare_args: x\n", "amqp.queue_declare_args: expected a mapping, got 'x' in line 2"),
        ("amqp:\n  queue_declare_args: {[x]: x}\n", "amqp.queue_declare_args: expected a mapping"),
        ("tlsconfig: {minversion: 70000}\n", "tlsconfig.minversion: expected an integer from 0 to 65535"),
        ("tlsconfig: {nextprotos: a}\n", "tlsconfig.nextprotos: expected a list of strings, got 'a' in line 1"),
        ("tlsconfig: {nextprotos: [[a]]}\n", "tlsconfig.nextprotos: expected a list of strings, got a list"),
        ("[1]\n", "Unmarshal YAML error: expected a mapping of keys, got a list"),
        ("~\n", "Unmarshal YAML error: expected a mapping of keys, got '~'"),
        ("a: [\n", "Unmarshal YAML error: "),
        ("broker: a\n---\nbroker: b\n", "Unmarshal YAML error: "),
        ("amqp: {queue_declare_args: {a: !!python/object:os.system x}}\n", "Unmarshal YAML error: could not"),
        ("amqp: {queue_declare_args: {a: 2020-99-99}}\n", "Unmarshal YAML error: ValueError"),
        ("broker: \x01\n", "Unmarshal YAML error: special characters are not allowed"),
        ("", "Read from file error: EOF"),
        (" \n\n", "Read from file error: EOF"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(file: Path, text: str, problem: str) -> None:
    assert problem in refused(file, text)


def test_all_values_that_do_not_fit_are_named(file: Path) -> None:
    text = refused(file, "default_queue: [a]\nresults_expire_in: x\namqp: {auto_delete: z}\n")
    assert all(key in text for key in ("default_queue", "results_expire_in", "amqp.auto_delete"))


@pytest.mark.parametrize(
    "text",
    ["broker: 'amqp://u:secret@h\n", "amqp: amqp://u:secret@h\n", "results_expire_in: redis://secret@h\n"],
)
def test_no_error_shows_a_password(file: Path, text: str) -> None:
    assert "secret" not in refused(file, text)


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"broker: \xff\xfe\n")
    with pytest.raises(errors.ConfigError, match="Unmarshal YAML error"):
        Config.from_yaml(file)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Config.from_yaml(file)
    assert str(caught.value) == f"Open file error: open {file}: no such file or directory"


def test_both_names_of_the_cluster_flag_must_agree(file: Path) -> None:
    assert read(file, "redis: {cluster_mode: true, cluster_enabled: true}\n").redis_settings.cluster_enabled
    text = refused(file, "redis: {cluster_mode: true, cluster_enabled: false}\n")
    assert "redis.cluster_enabled and redis.cluster_mode are one setting" in text


def test_unknown_keys_make_one_warning_that_names_each(file: Path) -> None:
    with pytest.warns(ConfigWarning) as caught:
        made = read(
            file,
            "defualt_queue: q\nBroker: b\nexchange: e\nzzz: 1\nmongodb: {}\n? [a]\n: b\namqp:\n  prefech_count: 9\n",
        )
    assert made == Config()
    [warning] = caught
    assert warning.filename == __file__
    text = str(warning.message)
    for part in (
        "defualt_queue (did you mean default_queue?)",
        "Broker (did you mean broker?)",
        "exchange (did you mean amqp.exchange?)",
        "zzz,",
        "mongodb (can be set in code only)",
        "(a key that is no text)",
        "amqp.prefech_count (did you mean amqp.prefetch_count?)",
    ):
        assert part in text
