"""Results on RabbitMQ with Go on the other side: what Go reads is gone, so each result has one reader here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone

import pytest

from machinery_compat import Chain, Chord, Group, Signature, TaskError, new_signature
from tests.conftest import Names, go_clients, go_workers
from tests.interop.conftest import Fleet
from tests.support.golang import arg, signature
from tests.support.services import RabbitServer, RedisServer

pytestmark = [pytest.mark.go, pytest.mark.rabbitmq, pytest.mark.redis]

WAIT = 20


@pytest.fixture(scope="module", params=["v2-amqp"])
def pair(
    request: pytest.FixtureRequest,
    rabbit_server: RabbitServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """A Go and a Python worker on one queue; broker and results on one RabbitMQ."""
    directory = tmp_path_factory.mktemp("pair")
    names = Names(*(f"{kind}-results-{request.param}" for kind in ("queue", "exchange", "key")))
    url = rabbit_server.url()
    with ExitStack() as stack:
        start_go, start_client = stack.enter_context(go_workers(directory)), stack.enter_context(go_clients(directory))
        counter = redis_server.url(15)
        fleet = Fleet(request.param, url, url, names, directory, stack, start_go, start_client, counter)
        fleet.go()
        fleet.python()
        yield fleet
        fleet.server.app.close()
        fleet.server.backend.channel.close()


def alternating(count: int) -> list[Signature]:
    return [new_signature(f"{('go', 'py')[number % 2]}_add", number) for number in range(count)]


def of_go(count: int) -> list[dict[str, object]]:
    return [signature(f"{('py', 'go')[number % 2]}_add", arg("int64", number)) for number in range(count)]


def test_tasks_failures_and_several_results(pair: Fleet) -> None:
    for language in ("go", "py"):
        result = pair.server.send_task(new_signature(f"{language}_add", 1, 2))
        assert result.get_with_timeout(WAIT) == [3]
        # Python has put it back, so Go finds it.
        assert pair.client.values(result.signature.uuid) == [3]
        assert pair.client.values(pair.client.send(signature(f"{language}_add", arg("int64", 42)))) == [42]
        with pytest.raises(TaskError, match=r"^no luck <&>$"):
            pair.server.send_task(new_signature(f"{language}_fail", "no luck <&>")).get_with_timeout(WAIT)
        uuid = pair.client.send(signature(f"{language}_fail", arg("string", "no luck <&>")))
        assert pair.client.get(uuid)["error"] == "no luck <&>"
        assert pair.server.app.send_task(f"{language}_swap", ["a", 1]).get(timeout=WAIT) == (1, "a")
        swapped = pair.client.send(signature(f"{language}_swap", arg("string", "a"), arg("int64", 1)))
        assert pair.client.values(swapped) == [1, "a"]


def test_a_state_of_go_has_its_name(pair: Fleet) -> None:
    result = pair.server.app.send_task("go_add", [1])
    assert result.get(timeout=WAIT) == 1
    # Go writes neither name nor time after PENDING; who reads the whole history knows them.
    state = pair.server.backend.task_state(result.id)
    assert (state.task_name, state.created_at > "2000") == ("go_add", True)


def test_a_retry_and_a_delay(pair: Fleet) -> None:
    for language in ("go", "py"):
        sent = new_signature(f"{language}_retry_later", f"{pair.names.queue}-{language}", 2, 30)
        assert pair.server.send_task(sent).get_with_timeout(WAIT) == [2]
        due = datetime.now(timezone.utc) + timedelta(seconds=0.3)
        assert pair.server.send_task(new_signature(f"{language}_add", 1, eta=due)).get_with_timeout(WAIT) == [1]
        assert datetime.now(timezone.utc) >= due


def test_groups_and_chains(pair: Fleet) -> None:
    results = pair.server.send_group(Group(*alternating(10)))
    assert [one.get_with_timeout(WAIT) for one in results] == [[number] for number in range(10)]
    uuids = pair.client.must(op="send_group", signatures=of_go(10))["uuids"]
    assert [pair.client.values(uuid) for uuid in uuids] == [[number] for number in range(10)]
    assert pair.server.send_chain(Chain(*alternating(6))).get_with_timeout(WAIT) == [15]
    uuids = pair.client.must(op="send_chain", signatures=of_go(6))["uuids"]
    assert pair.client.values(uuids[-1], timeout=WAIT) == [15]


def test_chords(pair: Fleet) -> None:
    chords = [Chord(Group(*alternating(10)), new_signature(("go_add", "py_add")[n % 2])) for n in range(4)]
    results = [pair.server.send_chord(chord) for chord in chords]
    assert [result.get_with_timeout(WAIT) for result in results] == [[45]] * 4
    for callback in ("go_add", "py_add"):
        sent = pair.client.must(op="send_chord", signatures=of_go(10), callback=signature(callback))
        assert pair.client.values(sent["callback_uuid"], timeout=WAIT) == [45]
    runs = [one.uuid for one in pair.executions()]
    # The states of a group can be taken by one worker only.
    assert [runs.count(chord.callback.uuid) for chord in chords] == [1] * 4
