"""What Go does on Pub/Sub and Python does not, or the other way round; what both do is in test_matrix.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from machinery_compat import new_signature
from tests.conftest import GoClientFactory, GoWorkerFactory, Names
from tests.interop.conftest import Fleet
from tests.support.golang import PUBSUB_FLAVORS, GoError, arg, signature
from tests.support.services import PubSubServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.go, pytest.mark.pubsub, pytest.mark.redis]

WAIT = 20


@pytest.fixture
def fleet(
    request: pytest.FixtureRequest,
    pubsub_server: PubSubServer,
    redis_db: str,
    names: Names,
    tmp_path: Path,
    go_worker: GoWorkerFactory,
    go_client: GoClientFactory,
) -> Iterator[Fleet]:
    pubsub_server.make(names.queue)
    flavor, broker = getattr(request, "param", PUBSUB_FLAVORS[0]), pubsub_server.url(names.queue)
    with ExitStack() as stack:
        made = Fleet(flavor, broker, redis_db, names, tmp_path, stack, go_worker, go_client)
        yield made
        made.server.app.close()


@pytest.mark.parametrize("fleet", PUBSUB_FLAVORS, indirect=True)
def test_each_version_of_go_gets_a_delayed_task_when_it_is_due(fleet: Fleet, pubsub_server: PubSubServer) -> None:
    # The first one connects, which takes its time.
    fleet.server.send_task(new_signature("go_add", 0))
    assert len(pubsub_server.take(fleet.names.queue)) == 1
    due = datetime.now(timezone.utc) + timedelta(seconds=2)
    result = fleet.server.send_task(new_signature("go_add", 1, 2, eta=due))
    assert pubsub_server.take(fleet.names.queue) == []
    fleet.go()
    fleet.python()

    assert result.get_with_timeout(WAIT) == [3]
    assert datetime.now(timezone.utc) >= due


def test_a_sender_in_go_waits_for_the_time_itself(fleet: Fleet, pubsub_server: PubSubServer) -> None:
    due = datetime.now(timezone.utc) + timedelta(seconds=1)
    fleet.client.send(signature("py_add", arg("int64", 1), ETA=due.isoformat()))

    # The answer came when the message had been sent, and that was not before.
    assert datetime.now(timezone.utc) >= due
    assert len(pubsub_server.take(fleet.names.queue)) == 1


def test_go_gives_back_for_ever_what_python_keeps_or_drops(fleet: Fleet, pubsub_server: PubSubServer) -> None:
    go = fleet.go()
    garbage = b"no signature"
    pubsub_server.publish(fleet.names.queue, garbage)
    ignored = new_signature("nobody_knows", ignore_when_task_not_registered=True)
    fleet.server.send_task(ignored)
    wait_for(lambda: go.text().count("unmarshal error") > 2, WAIT)
    wait_for(lambda: go.text().count("task nobody_knows is not registered") > 2, WAIT)

    python = fleet.python()

    wait_for(lambda: f"kept in {fleet.names.queue}-dead" in python.text(), WAIT)
    wait_for(lambda: "IgnoreWhenTaskNotRegistered: dropped" in python.text(), WAIT)
    (entry,) = fleet.server.app.machinery.dead_letters().entries()
    assert entry.body == garbage
    # Both go on.
    for name in ("go_add", "py_add"):
        assert fleet.server.send_task(new_signature(name, 1, 2)).get_with_timeout(WAIT) == [3]


def test_neither_lists_what_waits(fleet: Fleet) -> None:
    for operation in ({"op": "pending", "queue": fleet.names.queue}, {"op": "delayed"}):
        with pytest.raises(GoError, match="Not implemented"):
            fleet.client.must(**operation)


def test_go_says_the_same_of_what_is_not_there(fleet: Fleet, go_worker: GoWorkerFactory) -> None:
    options = fleet.options()
    for change, text in (
        ({"queue": "none"}, "topic does not exist, instead got none"),
        ({"broker": "gcppubsub://project/nothing"}, "subscription does not exist, instead got nothing"),
    ):
        with pytest.raises(AssertionError, match=text):
            go_worker(**{**options, **change})
