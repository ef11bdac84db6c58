"""Celery applications of several kinds as members of a fleet on Redis."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest
from celery import Celery as PlainCelery
from celery.contrib.testing.worker import start_worker
from kombu import Exchange, Queue
from redis import Redis

from machinery_compat import Celery, Config, Float32, GoType, Int8, Signature, enable
from machinery_compat.errors import ConfigError, EncodeError
from tests.conftest import Names

pytestmark = pytest.mark.redis


@pytest.fixture
def client(redis_db: str) -> Iterator[Redis]:
    with Redis.from_url(redis_db) as client:
        yield client


def plain_celery(url: str, queue: str) -> PlainCelery:
    app = PlainCelery("plain", broker=url, backend=url, set_as_current=False)
    app.conf.task_default_queue = queue
    return app


def enabled(url: str, queue: str) -> PlainCelery:
    app = PlainCelery("enabled", broker=url, backend=url, set_as_current=False)
    app.conf.task_default_queue = queue
    return enable(app)


def configured(url: str, queue: str) -> PlainCelery:
    return enable(
        PlainCelery("configured", set_as_current=False), Config(broker=url, result_backend=url, default_queue=queue)
    )


def subclass(url: str, queue: str) -> Celery:
    app = Celery("subclass", broker=url, backend=url, set_as_current=False)
    app.conf.task_default_queue = queue
    return app


def prefixed(url: str, queue: str) -> PlainCelery:
    return enabled(f"machinery+{url}", queue)


def json_serializer(url: str, queue: str) -> Celery:
    app = subclass(url, queue)
    app.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])
    return app


def late_settings(url: str, queue: str) -> PlainCelery:
    app = enable(PlainCelery("late", set_as_current=False))
    app.conf.update(broker_url=url, result_backend=url, task_default_queue=queue)
    return app


APPS = [enabled, configured, subclass, prefixed, json_serializer, late_settings]


@pytest.fixture(params=APPS, ids=lambda make: make.__name__)
def app(request: pytest.FixtureRequest, redis_db: str, names: Names) -> Iterator[PlainCelery]:
    app = request.param(redis_db, names.queue)
    yield app
    app.close()


Start = Callable[[PlainCelery], None]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Celery's own testing worker for an application."""
    with ExitStack() as stack:
        # It sets up all logging in this process, and leaves it so.
        stack.callback(logging.root.setLevel, logging.root.level)
        before = logging.root.handlers[:]

        def start(app: PlainCelery) -> None:
            stack.enter_context(start_worker(app, perform_ping_check=False, shutdown_timeout=20))

        yield start
        for handler in set(logging.root.handlers).difference(before):
            if type(handler) is logging.StreamHandler:
                logging.root.removeHandler(handler)


def only(client: Redis, queue: str) -> Signature:
    (body,) = client.lrange(queue, 0, -1)
    return Signature.decode(body)


def test_what_is_sent_is_a_signature(app: PlainCelery, client: Redis, names: Names) -> None:
    result = app.send_task("add", [1, 2])

    (body,) = client.lrange(names.queue, 0, -1)
    assert json.loads(body) == json.loads(
        Signature(
            uuid=result.id,
            name="add",
            routing_key=names.queue,
            headers={},
            args=only(client, names.queue).args,
        ).encode()
    )
    assert [(one.type, one.value) for one in only(client, names.queue).args or ()] == [("int64", 1), ("int64", 2)]
    state = json.loads(client.get(result.id))
    assert (state["State"], state["TaskName"]) == ("PENDING", "add")
    assert client.ttl(result.id) > 0


def test_a_prefix_of_the_brokers_keys_is_none_of_the_results(redis_db: str, client: Redis, names: Names) -> None:
    app = subclass(redis_db, names.queue)
    app.conf.broker_transport_options = {"global_keyprefix": "mine:"}

    result = app.send_task("add", [1, 2])

    assert {key.decode() for key in client.keys("*")} == {f"mine:{names.queue}", result.id}


def test_a_queue_with_a_routing_key_of_its_own(app: PlainCelery, client: Redis, names: Names) -> None:
    """What goes there by the queue's name, by its key, or as a chain's next step, is in the list that is read."""
    own = f"{names.queue}-own"
    app.conf.task_queues = [Queue(own, Exchange("own"), routing_key="k.b")]

    app.send_task("add", [1, 2], queue=own)
    app.send_task("add", [1, 2], exchange="own", routing_key="k.b")
    app.signature("add", (1,), queue=own).apply_async(link=app.signature("add", (2,), queue=own))

    sent = [Signature.decode(body) for body in client.lrange(own, 0, -1)]
    assert [one.routing_key for one in sent] == [own] * 3
    (follower,) = sent[2].on_success or ()
    assert follower is not None
    assert follower.routing_key == own


def test_tasks_run_and_give_their_results(app: PlainCelery, start: Start) -> None:
    @app.task(name="own_add", shared=False)
    def add(one: int, other: int) -> int:
        return one + other

    @app.task(name="own_fail", shared=False)
    def fail(text: str) -> None:
        raise ValueError(text)

    start(app)

    assert add.delay(1, 2).get(timeout=10) == 3
    assert add.apply_async((1,), {"other": 2}, countdown=0.1).get(timeout=10) == 3
    with pytest.raises(ValueError, match="boom"):
        fail.delay("boom").get(timeout=10)


def test_a_prefixed_broker_in_an_application_that_is_not_ours(redis_db: str, names: Names, client: Redis) -> None:
    with plain_celery(f"machinery+{redis_db}", names.queue) as app:
        app.conf.result_backend = None
        with app.connection_for_write() as connection:
            connection.default_channel.client.ping()
            assert type(connection.transport).__module__ == "machinery_compat.transport.redis"


def test_enable_comes_too_late() -> None:
    app = PlainCelery("late", set_as_current=False)

    @app.task(name="own_add", shared=False)
    def add() -> None: ...

    add.name  # noqa: B018 - the application makes its tasks now
    with pytest.raises(ConfigError, match="too late"):
        enable(app)


def test_an_unknown_serializer_is_refused(redis_db: str, names: Names) -> None:
    app = subclass(redis_db, names.queue)

    # The channel is in the place of a serializer, whatever the settings say.
    app.conf.task_serializer = "pickle"
    app.send_task("add", [1])
    with pytest.raises(EncodeError):
        app.send_task("add", [object()])


# -- arguments


def test_keywords_take_their_places_where_the_function_is_known(redis_db: str, names: Names, client: Redis) -> None:
    app = subclass(redis_db, names.queue)

    @app.task(name="own_typed", shared=False)
    def typed(
        count: Int8, ratio: Float32, flags: Annotated[list[int], GoType("[]uint16")], *, name: str = "", tags: list[str]
    ) -> None: ...

    typed.apply_async((1,), {"flags": [], "ratio": 2, "tags": [], "name": "n"})

    assert [(one.name, one.type, one.value) for one in only(client, names.queue).args or ()] == [
        ("", "int8", 1),
        ("", "float32", 2.0),
        ("", "[]uint16", []),
        ("celery:kw=tags", "[]string", []),
        ("celery:kw=name", "string", "n"),
    ]


def test_a_value_beyond_its_hint_is_refused_at_once(redis_db: str, names: Names, client: Redis) -> None:
    app = subclass(redis_db, names.queue)

    @app.task(name="own_typed", shared=False)
    def typed(count: Int8) -> None: ...

    with pytest.raises(EncodeError, match="int8"):
        typed.delay(128)
    assert client.llen(names.queue) == 0
    assert client.keys("task_*") == []


ODD: list[Any] = [
    None,
    {"a": [1, None, {"b": 2.5}]},
    [1, "x"],
    [[1], [2]],
    datetime(2026, 1, 2, tzinfo=timezone.utc),
    Decimal("1.50"),
    UUID(int=7),
    [None],
]


def test_values_without_a_type_and_keywords_arrive(redis_db: str, names: Names, start: Start) -> None:
    app = subclass(redis_db, names.queue)

    @app.task(name="show", shared=False)
    def show(*args: Any, **kwargs: Any) -> list[str]:
        return [repr(args), repr(sorted(kwargs.items()))]

    start(app)

    result = show.apply_async((*ODD, b"bytes", (1, 2)), {"value": None, "number": 7, "values": ODD})
    assert result.get(timeout=10) == [
        repr((*ODD, b"bytes", [1, 2])),
        repr([("number", 7), ("value", None), ("values", ODD)]),
    ]


def test_odd_results_arrive(redis_db: str, names: Names, start: Start) -> None:
    app = subclass(redis_db, names.queue)

    @app.task(name="odd", shared=False)
    def odd(index: int) -> Any:
        return ODD[index]

    start(app)

    assert [odd.delay(index).get(timeout=10) for index in range(len(ODD))] == ODD


class Unpicklable(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(lambda: code)
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Textless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_odd_exceptions_have_their_text_for_go(redis_db: str, names: Names, start: Start) -> None:
    app = subclass(redis_db, names.queue)

    @app.task(name="fail", shared=False)
    def fail(kind: str) -> None:
        raise Unpicklable(code=3) if kind == "unpicklable" else Textless

    start(app)

    errors = {}
    for kind in ("unpicklable", "textless"):
        result = fail.delay(kind)
        result.get(timeout=10, propagate=False)
        errors[kind] = app.backend.task_state(result.id).error
    assert errors == {"unpicklable": "code 3", "textless": "Textless"}
