"""Nothing that this project publishes can hurt a Go worker: it is refused, or Go can read and convert it.

Whatever is sent goes through the real applications into a list on Redis, and from there to Go.
"""

from __future__ import annotations

import json
import string
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from redis import Redis

from machinery_compat import Arg, Config, GoNumber, Server, Signature, new_signature
from machinery_compat.errors import EncodeError, WireError
from machinery_compat.wire import TYPES
from machinery_compat.wire.trees import tree_of
from tests.support import strategies
from tests.support.oracle import Oracle, go_oracle

pytestmark = [pytest.mark.redis, pytest.mark.go]

QUEUE = "to-go"
EXAMPLES = settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.one_of(strategies.texts, st.text(max_size=8), st.text("\ud800\udfff<\x00é", max_size=4))
numbers = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400]),
    st.floats(),
    st.sampled_from(["1", "1.0", "-0", "1e400", "012", ""]).map(GoNumber),
)
scalars = st.one_of(
    st.none(),
    numbers,
    texts,
    st.binary(max_size=8),
    st.sampled_from([
        datetime(2026, 1, 2, tzinfo=timezone.utc), date(2026, 1, 2), Decimal("1.50"), uuid.UUID(int=7),
        object(), 1j, {1, 2}, range(3), bytearray(b"\xff"), memoryview(b"x"), len, Ellipsis,
    ]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(texts, st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=6,
)
#: JSON and what looks like it, for the Values of Args that are made by hand.
raws = st.one_of(
    st.sampled_from([
        b"1", b"-1", b"-0", b"1.0", b"1e2", b"012", b"1e400", b"18446744073709551615", b"18446744073709551616", b"300",
        b"3.5e38", b'"x"', b'""', b'"AP8="', b'"\\ud800"', b"true", b"null", b"{}", b'{"a":1}', b"[]", b"[1,2]",
        b"[1.5]", b'["a"]', b"[null]", b"[true]", b"[300]", b"[-1]", b"[-0]", b"[3.5e38]", b"[[1]]",
        b"[18446744073709551616]",
        b"", b" 1 ", b"x", b"}", b"1,2", b'"\xff"', b"1]", b"1}", b'1,"Type":"x"',
    ]),
    st.binary(max_size=4),
    values.map(lambda value: json.dumps(value, default=str, skipkeys=True).encode()),
)  # fmt: skip
kinds = st.one_of(
    st.sampled_from(sorted(TYPES)), st.sampled_from(["", "byte", "rune", "map", "[][]int64", "error", "json"])
)


def by_hand(kind: str, raw: bytes, name: str) -> Any:
    """An Arg that no check has seen, or what a careless caller puts in its place."""
    try:
        return Arg.from_raw(kind, raw, name)
    except WireError:
        return None


args = st.one_of(strategies.args, st.builds(by_hand, kinds, raws, texts))
identifiers = st.one_of(st.text(string.ascii_letters + ",=:", min_size=1, max_size=5), texts)
headers = st.dictionaries(
    st.one_of(
        identifiers, st.sampled_from(["task", "id", "eta", "retries", "timelimit", "celery", "headers", "group"])
    ),
    st.one_of(texts, values),
    max_size=3,
)


class Wire:
    """Sends, and looks at what Go makes of it."""

    def __init__(self, url: str, client: Redis, oracle: Oracle) -> None:
        self.server = Server(Config(broker=url, result_backend=url, default_queue=QUEUE))
        self.client = client
        self.oracle = oracle
        self.sent = 0

    def send(self, how: Callable[[], object]) -> None:
        """Sends in that way, or is refused; Go must be able to work with what was sent."""
        self.client.flushdb()
        try:
            how()
        except EncodeError:
            assert self.client.dbsize() == 0, "something was sent or stored in spite of the error"
            return
        self.sent += 1
        bodies = list(self.client.zrange("delayed_tasks", 0, -1))
        for key in self.client.scan_iter(_type="list"):
            bodies += self.client.lrange(key, 0, -1)
        (body,) = bodies
        self.expect_harmless(body)

    def expect_harmless(self, body: bytes) -> None:
        answer = self.oracle.ask(body)
        assert not answer.error, body
        for one in tree_of(Signature.decode(body)):
            answer = self.oracle.ask(one.encode())
            assert [arg for arg in answer.args if arg["error"]] == []
            # A range that Go does not look at would show as another value.
            assert len(answer.args) == len(one.args or ())
            assert one.name
            again = json.loads(answer.reencoded)["Headers"] or {}
            assert all(value is None or isinstance(value, (str, bool)) for value in again.values())


@pytest.fixture
def wire(redis_db: str, go_oracle: Oracle) -> Iterator[Wire]:
    client = Redis.from_url(redis_db)
    made = Wire(redis_db, client, go_oracle)
    yield made
    client.close()
    assert made.sent > 10, "nearly everything was refused"


@EXAMPLES
@given(
    positional=st.lists(st.one_of(values, args), max_size=3),
    keywords=st.dictionaries(identifiers, st.one_of(values, args), max_size=2),
    headers=headers,
    options=st.fixed_dictionaries(
        {},
        optional={
            "priority": st.one_of(st.integers(-1, 300), st.sampled_from([1.5, True])),
            "shadow": texts,
            "countdown": st.sampled_from([0, 5, 1e6]),
            "expires": st.sampled_from([5, datetime(2999, 1, 1, tzinfo=timezone.utc)]),
            "group_id": identifiers,
            "time_limit": st.integers(0, 9),
            "ignore_result": st.booleans(),
        },
    ),
)
def test_whatever_is_sent_through_celery(
    wire: Wire, positional: list[Any], keywords: dict[str, Any], headers: dict[str, Any], options: dict[str, Any]
) -> None:
    app = wire.server.app

    wire.send(lambda: app.send_task("go_add", positional, keywords, headers=headers, **options))


fields = st.fixed_dictionaries(
    {"name": st.one_of(st.just("add"), texts)},
    optional={
        "uuid": st.one_of(texts, numbers),
        "eta": st.one_of(strategies.times, st.sampled_from(["", "tomorrow", "2026-01-02", 5])),
        "group_task_count": numbers,
        "priority": st.one_of(st.integers(-1, 256), numbers),
        "immutable": st.one_of(st.booleans(), st.none(), st.integers(0, 1)),
        "retry_count": numbers,
        "args": st.one_of(st.lists(args, max_size=3), st.none(), st.lists(values, max_size=2)),
        "headers": st.one_of(st.none(), headers, st.dictionaries(identifiers, st.sampled_from(["x", True, None]))),
        "broker_message_group_id": st.one_of(texts, st.none()),
        "ignore_when_task_not_registered": st.one_of(st.booleans(), st.just("yes")),
    },
)
callbacks = st.one_of(
    st.none(), st.lists(st.one_of(st.none(), st.builds(Signature, name=st.just("add"), args=st.none()), st.just("add")))
)
whole = st.one_of(
    st.builds(lambda given: Signature(**given), fields),
    st.builds(
        lambda given, inner, where: Signature(**{**given, where: inner}),
        fields,
        st.lists(st.builds(lambda given: Signature(**given), fields), max_size=2),
        st.sampled_from(["on_success", "on_error"]),
    ),
    st.builds(
        lambda inner, called: Signature(name="add", on_success=inner, chord_callback=called),
        callbacks,
        st.sampled_from([None, Signature(), Signature(name="multiply"), 5]),
    ),
    # A queue that has the name of another key of this test would be found out by Redis.
    strategies.signatures.map(lambda made: structs.replace(made, routing_key=QUEUE)),
)


@EXAMPLES
@given(signature=whole)
def test_whatever_is_sent_through_machinery(wire: Wire, signature: Signature) -> None:
    wire.send(lambda: wire.server.send_task(signature))


@EXAMPLES
@given(given=st.lists(st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=3))
def test_whatever_a_signature_is_made_of(wire: Wire, given: list[Any]) -> None:
    wire.send(lambda: wire.server.send_task(new_signature("add", *given)))


__all__ = ["go_oracle"]
