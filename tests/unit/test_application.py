"""What an application makes of a configuration, without any server."""

from __future__ import annotations

import ssl
from pathlib import Path

import celery
import pytest

import machinery_compat
from machinery_compat import Celery, Config, Server, enable, errors
from machinery_compat.config import AMQPConfig, RedisConfig, TLSConfig
from machinery_compat.transport import transport_for
from machinery_compat.urls import parse_redis_url
from machinery_compat.workflow import fibonacci_next
from tests.support.waiting import wait_for


def application(**options: object) -> Celery:
    return Celery("test", config=Config(**options), set_as_current=False)


def test_the_public_names_are_there() -> None:
    assert len(machinery_compat.__all__) == len(set(machinery_compat.__all__))
    for name in machinery_compat.__all__:
        if name != "app":  # made from the environment when it is asked for
            assert getattr(machinery_compat, name) is not None


def test_a_configuration_becomes_celery_settings() -> None:
    app = application(
        broker="redis://localhost:1/2",
        result_backend="redis://localhost:1/3",
        default_queue="jobs",
        results_expire_in=60,
        redis=RedisConfig(delayed_tasks_key="later", delayed_tasks_poll_period=20),
    )

    assert app.conf.broker_url == "redis://localhost:1/2"
    assert app.conf.result_backend == "redis://localhost:1/3"
    assert app.conf.task_default_queue == "jobs"
    assert app.conf.result_expires == 60
    assert app.conf.task_acks_late
    assert app.conf.broker_transport_options["delayed_tasks_key"] == "later"
    assert app.conf.broker_transport_options["delayed_tasks_poll_period"] == 0.02


def test_the_users_own_settings_go_before() -> None:
    app = application(broker="redis://localhost:1", default_queue="jobs")
    app.conf.update(task_default_queue="mine", broker_transport_options={"lease_time": 5})

    assert app.conf.task_default_queue == "mine"
    assert app.conf.broker_transport_options["lease_time"] == 5


@pytest.mark.parametrize(
    ("broker", "expected"), [("redis://localhost:1", "jobs"), ("amqp://localhost:1", "machinery_task")]
)
def test_the_default_queue_is_bound_as_go_binds_it(broker: str, expected: str) -> None:
    app = application(broker=broker, default_queue="jobs")

    queue = app.amqp.default_queue

    assert (queue.name, queue.routing_key, queue.exchange.name) == ("jobs", expected, "machinery_exchange")


def test_queues_are_declared_with_the_configured_arguments() -> None:
    app = application(
        broker="amqp://localhost:1",
        amqp=AMQPConfig(queue_declare_args={"x-max-priority": 10}, queue_binding_args={"a": "b"}),
    )

    for name in ("machinery_tasks", "another"):
        queue = app.amqp.queues[name]
        assert queue.queue_arguments == {"x-max-priority": 10}
        assert queue.binding_arguments == {"a": "b"}


def test_tls_is_what_the_configuration_says() -> None:
    tls = TLSConfig(ca_file="ca.pem", insecure_skip_verify=True)

    assert application(broker="amqp://h:1", tls_config=tls).conf.broker_use_ssl["cert_reqs"] == ssl.CERT_NONE
    assert application(broker="redis://h:1", tls_config=tls).conf.redis_backend_use_ssl["ssl_cert_reqs"] == "none"


def test_several_brokers() -> None:
    app = application(broker="amqp://a:1;amqp://b:2", multiple_broker_separator=";")

    connection = app.connection_for_write().clone()
    assert (connection.hostname, connection.port) == ("a", 1)
    connection.maybe_switch_next()

    assert (connection.hostname, connection.port) == ("b", 2)
    assert type(connection.transport).__module__ == "machinery_compat.transport.amqp"


@pytest.mark.parametrize(
    ("url", "module"),
    [
        ("redis://localhost:1", "redis"),
        ("rediss://localhost:1", "redis"),
        ("redis+socket:///tmp/s", "redis"),
        ("amqp://localhost:1", "amqp"),
        ("amqps://localhost:1", "amqp"),
        ("gcppubsub://project/subscription", "gcpubsub"),
    ],
)
def test_a_url_chooses_its_transport(url: str, module: str) -> None:
    assert transport_for(url).transport.startswith(f"machinery_compat.transport.{module}:")


@pytest.mark.parametrize("url", ["kafka://h", "ftp://x:secret@h"])
def test_an_unknown_broker_is_one_clear_error(url: str) -> None:
    with pytest.raises(errors.ConfigError, match="Factory failed with broker") as raised:
        transport_for(url)
    assert "redis" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["kafka://u:secret@h/x", "http://u:secret@h", "https://u:secret@h", "foo", "django-db", "memcached://h"]
)
def test_an_unknown_result_backend_is_one_clear_error(url: str) -> None:
    for app in (application(broker="eager", result_backend=url), Celery("test", backend=url, set_as_current=False)):
        with pytest.raises(errors.ConfigError) as caught:
            app.AsyncResult("x").state  # noqa: B018 - its value is never computed
        assert str(caught.value).startswith("Factory failed with result backend: ")
        assert "mongodb:// mongodb+srv:// [mongodb], " in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module"),
    [
        ("nullable", "machinery_compat.backends.null"),
        ("eagerly", "machinery_compat.backends.eager"),
        ("rpc://", "celery.backends.rpc"),
        ("disabled", "celery.backends.base"),
        ("celery.backends.base:DisabledBackend", "celery.backends.base"),
    ],
)
def test_a_result_backend_that_machinery_or_celery_knows_is_taken(url: str, module: str) -> None:
    assert type(Celery("test", broker="eager", backend=url, set_as_current=False).backend).__module__ == module


@pytest.mark.parametrize("url", ["redis:/h", "amqp:/u:secret@h/v"])
def test_a_url_with_one_slash_is_no_host_of_rabbitmq(url: str) -> None:
    with pytest.raises(errors.ConfigError, match="Factory failed with broker URL: ") as caught:
        transport_for(url)
    assert "secret" not in str(caught.value)


def test_a_bad_port_of_rabbitmq_is_one_clear_error() -> None:
    for use in (
        lambda url: Celery("test", broker=url, set_as_current=False).connection(),
        lambda url: Celery("test", backend=url, set_as_current=False).backend,
        lambda url: Config(broker=url, result_backend="null").validate({}),
    ):
        with pytest.raises(errors.ConfigError, match="amqp://h:x: the port must be a number"):
            use("amqp://u:secret@h:x/")


def test_a_server_takes_kombus_list_of_brokers() -> None:
    config = Config(broker="amqp://a:1;amqp://b:2", result_backend="null")
    config.validate({})

    assert len(Server(config).app.connection().alt) == 2


def test_a_server_on_an_unknown_broker_is_not_made() -> None:
    with pytest.raises(errors.ConfigError, match=r"^Factory failed with broker URL: kafka://h "):
        Server(Config(broker="kafka://u:secret@h", result_backend="eager"))


def test_enable_comes_first() -> None:
    app = celery.Celery("late", set_as_current=False)
    app.task(name="x", shared=False)(lambda: None)
    assert app.Task is not None

    with pytest.raises(errors.ConfigError, match="too late"):
        enable(app)


def test_a_plain_application_with_a_machinery_url_is_told_what_to_do() -> None:
    app = celery.Celery("plain", backend="machinery+redis://localhost:1", set_as_current=False)

    with pytest.raises(errors.ConfigError, match=r"machinery_compat\.enable"):
        _ = app.backend


def test_a_changed_file_is_used_and_a_bad_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "machinery.yml"
    text = "broker: redis://localhost:1\nresult_backend: redis://localhost:1\nresults_expire_in: {}\n"
    path.write_text(text.format(10))
    app = Celery("reload", config=Config.from_yaml(path), set_as_current=False)
    assert app.backend.expiry == 10
    app.machinery.watch(path, interval=0.02)
    try:
        path.write_text("results_expire_in: [")
        path.write_text(text.format(20))
        wait_for(lambda: app.backend.expiry == 20, message="the new expiry is not used")
    finally:
        app.machinery.unwatch()


def test_retries_wait_as_in_go() -> None:
    assert [fibonacci_next(n) for n in (0, 1, 2, 3, 4, 5, 8, 13, -1)] == [1, 2, 3, 5, 5, 8, 13, 21, 1]


def test_many_retries_stay_on_the_calendar() -> None:
    app = application(broker="redis://localhost:1")
    signature = machinery_compat.Signature(name="x", retry_count=90, retry_timeout=2**50)

    assert app.machinery.workflow.plan_retry(signature, ValueError("again")) is not None
    assert signature.eta_time is not None
    assert signature.eta_time.year < 2200


@pytest.mark.parametrize("timeout", [2**63 - 1, 7_540_113_804_746_346_429])
def test_a_retry_timeout_stays_within_the_64_bits_of_go(timeout: int) -> None:
    app = application(broker="redis://localhost:1")
    signature = machinery_compat.Signature(name="x", retry_count=1, retry_timeout=timeout)

    assert app.machinery.workflow.plan_retry(signature, ValueError("again")) is not None
    assert machinery_compat.Signature.decode(signature.encode()).retry_timeout == 2**63 - 1


WORD = "s3cr3tpw"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://{WORD}@127.0.0.1:1",
        f"redis://:{WORD}@127.0.0.1:1",
        f"redis://user:{WORD}@127.0.0.1:1/2",
        f"rediss://{WORD}@127.0.0.1:1",
        f"redis+socket://{WORD}@/tmp/none.sock:/1",
        f"redis://{WORD}@127.0.0.1:1;redis://{WORD}@127.0.0.1:2",
        f"amqp://user:{WORD}@127.0.0.1:1/v;amqp://user:{WORD}@127.0.0.1:2",
    ],
)
@pytest.mark.parametrize("by_config", [True, False])
def test_no_report_shows_a_password(url: str, by_config: bool) -> None:
    backend = f"redis://{WORD}@127.0.0.1:1"
    if by_config:
        app = application(broker=url, result_backend=backend, multiple_broker_separator=";")
    else:
        app = Celery("secret", broker=url, backend=backend, set_as_current=False)

    shown = app.bugreport() + app.conf.humanize(with_defaults=True) + repr(app.conf.table())
    # What ``celery inspect stats`` tells.
    connection = app.connection().info()
    connection.pop("password")
    assert WORD not in shown + str(connection)
    assert WORD not in app.connection().as_uri() + repr(app.connection())


def test_a_password_alone_is_still_the_password() -> None:
    app = Celery("secret", broker=f"redis://{WORD}@127.0.0.1:1", set_as_current=False)
    assert parse_redis_url(app.conf.broker_url).password == WORD
    assert app.connection().hostname == app.conf.broker_url
