"""Machinery's URL rules. The tables follow what Go Machinery v1 does with the same URLs."""

# ruff: noqa: S106, S108 - the passwords and the paths are examples

from __future__ import annotations

import pytest

from machinery_compat import errors, urls
from machinery_compat.urls import RedisAddress

LOCAL = "127.0.0.1"
BAD_SOCKET = (
    "Redis socket connection string should be in format "
    "redis+socket://password@/path/to/file.sock:/db, instead got redis+socket://"
)
BAD_PUBSUB = (
    "gcppubsub scheme should be in format gcppubsub://YOUR_GCP_PROJECT_ID/YOUR_PUBSUB_SUBSCRIPTION_NAME, instead got "
)

SINGLE = [
    ("redis://127.0.0.1:5672", RedisAddress(((LOCAL, 5672),))),
    ("redis://pwd@127.0.0.1:5672/2", RedisAddress(((LOCAL, 5672),), password="pwd", db=2)),
    (
        "redis://user:pwd:with:colon@127.0.0.1:5672",
        RedisAddress(((LOCAL, 5672),), username="user", password="pwd:with:colon"),
    ),
    ("redis://user:@127.0.0.1:5672", RedisAddress(((LOCAL, 5672),), username="user")),
    ("redis://:pwd@127.0.0.1:5672", RedisAddress(((LOCAL, 5672),), password="pwd")),
    ("redis:/", RedisAddress((("", 6379),))),
    ("redis:", RedisAddress((("", 6379),))),
    ("redis://h:1/x", RedisAddress((("h", 1),))),
    ("redis://h:1/", RedisAddress((("h", 1),))),
    ("redis://h:1/2/3", RedisAddress((("h", 1),), db=2)),
    ("redis://h:1/-2", RedisAddress((("h", 1),), db=-2)),
    ("redis://h:1/+2", RedisAddress((("h", 1),), db=2)),
    ("redis://h:1/%32", RedisAddress((("h", 1),), db=2)),
    ("redis://h:1/3?a=b", RedisAddress((("h", 1),), db=3)),
    ("redis://h:1/3?a=b,c", RedisAddress((("h", 1),), db=3)),
    ("redis://h:1/3#part", RedisAddress((("h", 1),), db=3)),
    ("redis://h", RedisAddress((("h", 6379),))),
    ("redis://h:/1", RedisAddress((("h", 6379),), db=1)),
    ("REDIS://h:1/3", RedisAddress((("h", 1),), db=3)),
    ("rediss://h:1/3", RedisAddress((("h", 1),), db=3, tls=True)),
    ("redis://[::1]:7000/2", RedisAddress((("::1", 7000),), db=2)),
    ("redis://[::1]", RedisAddress((("::1", 6379),))),
    ("redis://[fe80::1%25eth0]:1", RedisAddress((("fe80::1%eth0", 1),))),
    ("redis://:@h:1", RedisAddress((("h", 1),))),
    ("redis://@h:1", RedisAddress((("h", 1),))),
    ("redis://u:p@w@h:1", RedisAddress((("h", 1),), username="u", password="p@w")),
    ("redis://u%40x:p%2Fw%2Cx@h:1/2", RedisAddress((("h", 1),), username="u@x", password="p/w,x", db=2)),
]

LISTS = [
    ("redis://p@h1:1,h2:2/3", RedisAddress((("h1", 1), ("h2", 2)), password="p", db=3, is_list=True)),
    ("redis://h1:1,h2:2", RedisAddress((("h1", 1), ("h2", 2)), is_list=True)),
    ("redis://h1,h2/x", RedisAddress((("h1", 6379), ("h2", 6379)), is_list=True)),
    ("redis://h1,h2/4?a=b", RedisAddress((("h1", 6379), ("h2", 6379)), db=4, is_list=True)),
    (
        "rediss://u:p@[::1]:1,[::2],h:3/4",
        RedisAddress((("::1", 1), ("::2", 6379), ("h", 3)), "u", "p", 4, tls=True, is_list=True),
    ),
    (
        "redis://a:b:c@d@h:1,i:2",
        RedisAddress((("h", 1), ("i", 2)), username="a", password="b:c@d", is_list=True),
    ),
    # Nothing is decoded, and a '/' needs no escape.
    (
        "redis://u%40:p%2F/x@h:1,i:2",
        RedisAddress((("h", 1), ("i", 2)), username="u%40", password="p%2F/x", is_list=True),
    ),
]

SOCKETS = [
    (
        "redis+socket://user:pwd@/tmp/redis.sock:/2",
        RedisAddress(unix_socket="/tmp/redis.sock", username="user", password="pwd", db=2),
    ),
    ("redis+socket:///tmp/redis.sock", RedisAddress(unix_socket="/tmp/redis.sock")),
    ("redis+socket://pwd@/tmp/redis.sock", RedisAddress(unix_socket="/tmp/redis.sock", password="pwd")),
    ("redis+socket://pwd@/tmp/redis.sock:/x", RedisAddress(unix_socket="/tmp/redis.sock", password="pwd")),
    ("redis+socket://pwd@/tmp/redis.sock:2", RedisAddress(unix_socket="/tmp/redis.sock", password="pwd")),
    ("redis+socket://pwd@/tmp/redis.sock:/2:3", RedisAddress(unix_socket="/tmp/redis.sock", password="pwd")),
    ("redis+socket:///tmp/redis.sock::/2", RedisAddress(unix_socket="/tmp/redis.sock", db=2)),
    ("redis+socket://a:b:c@/x:/2", RedisAddress(unix_socket="/x", username="a", password="b:c", db=2)),
    ("redis+socket://a@b@/x:/2", RedisAddress(unix_socket="b@/x", password="a", db=2)),
    ("redis+socket://:p@/x", RedisAddress(unix_socket="/x", password="p")),
    ("redis+socket://u:@/x", RedisAddress(unix_socket="/x", username="u")),
    ("redis+socket://p%40@/x%20y", RedisAddress(unix_socket="/x%20y", password="p%40")),
    ("redis+socket:///a,b.sock", RedisAddress(unix_socket="/a,b.sock")),
]

BAD_REDIS = [
    ("redis+socket:/", "No redis scheme found"),
    ("http://h:1", "No redis scheme found"),
    ("redis", "No redis scheme found"),
    ("", "No redis scheme found"),
    ("redis+socket://", BAD_SOCKET),
    ("redis+socket://pwd@", BAD_SOCKET),
    ("redis+socket://pwd@:/2", BAD_SOCKET + ":"),
    ("redis://h:x/3", "redis://h:x: 'h:x' is no host with a port from 1 to 65535"),
    ("redis://h:99999/3", "redis://h:99999: 'h:99999' is no host with a port from 1 to 65535"),
    ("redis://h:0", "redis://h:0: 'h:0' is no host with a port from 1 to 65535"),
    ("redis://::1", "redis://::1: '::1' is no host with a port from 1 to 65535"),
    ("redis://[::1", "redis://[::1: '[::1' is no host with a port from 1 to 65535"),
    ("redis://h1/3,h2", "redis://h1: 'h1/3' is no host with a port from 1 to 65535"),
    ("redis://u:s%zzt@h:1", "redis://h:1: invalid URL escape; a '%' must be written as %25"),
]


@pytest.mark.parametrize(("url", "expected"), [*SINGLE, *LISTS, *SOCKETS])
def test_a_redis_url_is_read_as_in_go(url: str, expected: RedisAddress) -> None:
    assert urls.parse_redis_url(url) == expected


@pytest.mark.parametrize(("url", "text"), BAD_REDIS)
def test_a_bad_redis_url_is_refused(url: str, text: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        urls.parse_redis_url(url)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:secret/x@h:1/2",
        "redis://u:secret?x@h:1/2",
        "redis://secret#x@h:1/2",
        "redis://u:secret,x@h:1",
        "redis://h:1,u:secret@i:1",
        "redis://u:secret%@h:1",
        "redis+socket://u:secret@",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        urls.parse_redis_url(url)
    assert "secret" not in str(caught.value)


def test_one_server_can_be_read_by_the_rules_of_a_list() -> None:
    expected = RedisAddress((("h", 1),), "a", "b:c@d%2F", 2, is_list=True)
    assert urls.parse_redis_url("redis://a:b:c@d%2F@h:1/2", as_list=True) == expected


def test_an_address_shows_no_password() -> None:
    assert "secret" not in repr(urls.parse_redis_url("redis://u:secret@h:1"))


def test_the_lock_takes_all_user_info_for_the_password() -> None:
    assert urls.parse_lock_url("redis://u:p@h:1") == RedisAddress((("h", 1),), password="u:p", is_list=True)
    assert urls.parse_lock_url("redis://h:1,i:2") == RedisAddress((("h", 1), ("i", 2)), is_list=True)
    assert urls.parse_lock_url("redis://h:1/0") == RedisAddress((("h", 1),), is_list=True)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://p@h:1/3", "redis://h:1: Machinery's lock is always in database 0, so leave the /3 out"),
        ("rediss://h:1", "No redis scheme found"),
    ],
)
def test_a_bad_lock_url_is_refused(url: str, text: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        urls.parse_lock_url(url)
    assert str(caught.value) == text


def test_a_pubsub_url_names_project_and_subscription() -> None:
    assert urls.parse_gcppubsub_url("gcppubsub://p/s") == ("p", "s")


@pytest.mark.parametrize("url", ["gcppubsub://p", "gcppubsub://p/s/t", "gcppubsub:///s", "gcppubsub://p/"])
def test_a_pubsub_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        urls.parse_gcppubsub_url(url)
    assert str(caught.value) == BAD_PUBSUB + url


def test_pubsub_needs_its_scheme() -> None:
    with pytest.raises(errors.ConfigError, match=r"^No gcppubsub scheme found$"):
        urls.parse_gcppubsub_url("x://p/s")


def test_a_memcache_url_names_servers() -> None:
    expected = ["10.0.0.1:11211", "10.0.0.2:11211"]
    assert urls.memcache_servers("memcache://10.0.0.1:11211,10.0.0.2:11211") == expected
    with pytest.raises(errors.ConfigError, match=r"Factory failed with result backend: redis://h$"):
        urls.memcache_servers("redis://u:p@h")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memcache://h1:1,h2", [("h1", 1), ("h2", 11211)]),
        ("memcache://[::1]:7", [("::1", 7)]),
        ("memcache:///tmp/a.sock,h:1", ["/tmp/a.sock", ("h", 1)]),
    ],
)
def test_a_memcache_address_is_a_host_with_a_port_or_a_socket(url: str, expected: list[object]) -> None:
    assert urls.memcache_addresses(url) == expected


@pytest.mark.parametrize("url", ["memcache://", "memcache://h:1,", "memcache://u:secret@h", "memcache://h:99999"])
def test_a_bad_memcache_address_is_refused(url: str) -> None:
    with pytest.raises(errors.ConfigError, match="a Memcache URL is memcache://host:port") as caught:
        urls.memcache_addresses(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["amqp://", "amqp://h", "amqps://u:p@h:5671/v", "amqp://u:p%2F%40@[::1]:1//"])
def test_a_usable_port_of_amqp_passes(url: str) -> None:
    urls.check_amqp_url(url)


@pytest.mark.parametrize("url", ["amqp://u:secret@h:x/", "amqp://h:0", "amqp://h:65536", "amqp://u:secret/x@h:1/"])
def test_a_bad_port_of_amqp_is_refused(url: str) -> None:
    with pytest.raises(errors.ConfigError, match="the port must be a number from 1 to 65535") as caught:
        urls.check_amqp_url(url)
    assert "secret" not in str(caught.value)


BROKERS = [
    ("amqp://h/", "amqp"),
    ("amqps://h/", "amqp"),
    ("redis://h:1", "redis"),
    ("redis://h:1,i:2/3", "redis"),
    ("rediss://h:1", "redis"),
    ("redis+socket:///x", "redis"),
    ("eager", "eager"),
    ("eager://x", "eager"),
    ("eagerly", "eager"),
    ("https://sqs.us-east-2.amazonaws.com/1", "sqs"),
    ("gcppubsub://p/s", "gcpubsub"),
]


@pytest.mark.parametrize(("url", "kind"), BROKERS)
def test_a_broker_url_selects_its_broker(url: str, kind: str) -> None:
    assert urls.broker_kind(url, {}) == kind
    assert urls.broker_kind(url, {"DISABLE_STRICT_SQS_CHECK": "1"}) == kind


@pytest.mark.parametrize("url", ["http://localhost:9324", "https://localhost:9324"])
def test_any_http_url_is_sqs_once_the_check_is_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISABLE_STRICT_SQS_CHECK", raising=False)
    with pytest.raises(
        errors.ConfigError, match="SQS of others than Amazon with the variable DISABLE_STRICT_SQS_CHECK"
    ):
        urls.broker_kind(url)
    monkeypatch.setenv("DISABLE_STRICT_SQS_CHECK", "")
    assert urls.broker_kind(url) == "sqs"


@pytest.mark.parametrize("url", ["AMQP://x", "null", "", "memcache://h", "kafka://u:secret@h:1/x"])
def test_an_unknown_broker_is_refused_with_what_is_supported(url: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        urls.broker_kind(url, {})
    text = str(caught.value)
    assert f"Factory failed with broker URL: {urls.redact(url)}" in text
    assert "secret" not in text
    assert text.endswith(
        "(supported: amqp:// amqps:// [amqp], redis:// rediss:// redis+socket:// [redis], eager, https://sqs [sqs], "
        "gcppubsub:// [gcpubsub], where [NAME] is the extra with the driver: pip install 'machinery-compat[NAME]')"
    )


BACKENDS = [
    ("amqp://h/", "amqp"),
    ("amqps://h/", "amqp"),
    ("memcache://h:1,h2:1", "memcache"),
    ("redis://h:1", "redis"),
    ("rediss://h:1", "redis"),
    ("redis+socket:///x", "redis"),
    ("mongodb://h", "mongodb"),
    ("mongodb+srv://h", "mongodb"),
    ("eager", "eager"),
    ("null", "null"),
    ("nullx", "null"),
    ("https://dynamodb.us-east-2.amazonaws.com", "dynamodb"),
]


@pytest.mark.parametrize(("url", "kind"), BACKENDS)
def test_a_backend_url_selects_its_backend(url: str, kind: str) -> None:
    assert urls.backend_kind(url) == kind


@pytest.mark.parametrize("url", ["https://foo", "ftp://u:secret@h", ""])
def test_an_unknown_backend_is_refused_with_what_is_supported(url: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        urls.backend_kind(url)
    assert f"Factory failed with result backend: {urls.redact(url)}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "mongodb:// mongodb+srv:// [mongodb], eager, null, https://dynamodb [dynamodb], " in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h:1", "redis"),
        ("eager", "eager"),
        ("rediss://h:1", "eager"),
        ("redis+socket:///x", "eager"),
        ("", "eager"),
        ("foo", "eager"),
    ],
)
def test_only_plain_redis_is_a_shared_lock(url: str, kind: str) -> None:
    assert urls.lock_kind(url) == kind


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:guest@localhost:5672", "amqp://localhost:5672"),
        ("amqp://guest:guest@localhost:5672/vhost?a=b", "amqp://localhost:5672"),
        ("redis://p@h1:1,h2:2/3", "redis://h1:1,h2:2"),
        ("redis+socket://u:p@/tmp/x.sock:/2", "redis+socket://"),
        ("redis://u:p%zz@h:1", "redis://h:1"),
        ("redis://u:p/w?x#y@h:1/2", "redis://h:1"),
        ("redis://[::1]:6379/2", "redis://[::1]:6379"),
        ("u:p@h", "h"),
        ("eager", "eager"),
        ("null", "null"),
        ("", ""),
    ],
)
def test_a_redacted_url_shows_scheme_and_servers_only(url: str, shown: str) -> None:
    assert urls.redact(url) == shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://pw@h:1/2", "redis://:pw@h:1/2"),
        ("rediss://pw@h", "rediss://:pw@h"),
        ("machinery+redis://pw@h", "machinery+redis://:pw@h"),
        ("redis+socket://pw@/tmp/s:/2", "redis+socket://:pw@/tmp/s:/2"),
        ("redis://pw@h1:1,h2:2/3", "redis://:pw@h1:1,h2:2/3"),
        ("redis://pw@a;redis://pw@b", "redis://:pw@a;redis://:pw@b"),
        (["redis://pw@a", "redis://b"], ["redis://:pw@a", "redis://b"]),
        ("redis://user:pw@h", "redis://user:pw@h"),
        ("redis://:pw@h", "redis://:pw@h"),
        ("redis://h:1", "redis://h:1"),
        ("redis://h/1?x=a:b", "redis://h/1?x=a:b"),
        ("amqp://user@h", "amqp://user@h"),
        ("eager", "eager"),
    ],
)
def test_a_password_alone_gets_its_colon(url: str | list[str], expected: str | list[str]) -> None:
    assert urls.with_colon(url) == expected
    if isinstance(url, str) and url.startswith("redis") and ";" not in url:
        assert urls.parse_redis_url(url) == urls.parse_redis_url(urls.with_colon(url))
