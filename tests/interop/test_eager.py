"""The broker and the result backend ``eager``: each language runs its own tasks at once, and both come to the same.

Two processes share nothing there, so what can be compared is what becomes of the same calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from machinery_compat import Chain, Chord, Config, Group, Server, Signature, TaskState, new_signature
from tests.conftest import GoClientFactory, Names
from tests.support import tasks  # noqa: F401  (they are registered with every application)
from tests.support.golang import GoClient, arg, signature

pytestmark = [pytest.mark.go, pytest.mark.redis]


@pytest.fixture
def go(go_client: GoClientFactory, redis_db: str, names: Names) -> GoClient:
    # Version 1 has URLs for it, and makes the one who sends a task its worker.
    return go_client(flavor="v1-redis", broker="eager", backend="eager", counter=redis_db, queue=names.queue)


@pytest.fixture
def server(redis_db: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("COUNTERS", redis_db)
    server = Server(Config(broker="eager", result_backend="eager"))
    yield server
    server.app.close()


def call(name: str, *args: Any, **fields: Any) -> Signature:
    return new_signature(f"py_{name}", *args, **fields)


def told(one: Signature) -> dict[str, object]:
    """The same call of Go's task."""
    fields: dict[str, object] = {"ETA": one.eta} if one.eta else {}
    args = [arg(each.type, each.value) for each in one.args or ()]
    return signature(one.name.replace("py_", "go_"), *args, **fields)


def outcomes_in_go(go: GoClient, uuids: list[str]) -> list[Any]:
    states = [go.state(uuid) for uuid in uuids]
    return [
        (state["State"], [(one["Type"], one["Value"]) for one in state["Results"] or ()], state["Error"])
        for state in states
    ]


def outcomes(server: Server, uuids: list[str]) -> list[Any]:
    states: list[TaskState] = [server.backend.task_state(uuid) for uuid in uuids]
    return [
        (state.state, [(one.type, one.value) for one in state.results or () if one is not None], state.error)
        for state in states
    ]


def test_tasks_several_results_and_failures(server: Server, go: GoClient) -> None:
    calls = [call("add", 1, 2), call("swap", "a", 1), call("nothing"), call("fail", "no luck <&>")]

    ours = outcomes(server, [server.send_task(one.copy()).signature.uuid for one in calls])

    assert ours == outcomes_in_go(go, [go.send(told(one)) for one in calls])
    assert [state for state, _, _ in ours] == ["SUCCESS", "SUCCESS", "SUCCESS", "FAILURE"]


def test_a_delay_is_none(server: Server, go: GoClient) -> None:
    late = call("add", 1, 2, eta=datetime.now(timezone.utc) + timedelta(days=1))

    ours = outcomes(server, [server.send_task(late.copy()).signature.uuid])

    assert ours == outcomes_in_go(go, [go.send(told(late))]) == [("SUCCESS", [("int64", 3)], "")]


def test_a_retry_runs_at_once(server: Server, go: GoClient, names: Names) -> None:
    again = [call("retry_later", f"{names.queue}-{language}", 2, 60_000) for language in ("py", "go")]

    ours = outcomes(server, [server.send_task(again[0]).signature.uuid])

    assert ours == outcomes_in_go(go, [go.send(told(again[1]))]) == [("SUCCESS", [("int64", 2)], "")]


def test_groups_and_chains(server: Server, go: GoClient) -> None:
    members = [call("add", number) for number in range(5)]
    told_members = [told(one) for one in members]

    in_a_group = server.send_group(Group(*(one.copy() for one in members)))
    ours = outcomes(server, [one.signature.uuid for one in in_a_group])
    in_a_chain = server.send_chain(Chain(*(one.copy() for one in members)))
    chained = outcomes(server, [in_a_chain.results[-1].signature.uuid])

    assert ours == outcomes_in_go(go, go.must(op="send_group", signatures=told_members)["uuids"])
    assert chained == outcomes_in_go(go, go.must(op="send_chain", signatures=told_members)["uuids"][-1:])
    assert chained == [("SUCCESS", [("int64", 10)], "")]


def test_chords(server: Server, go: GoClient) -> None:
    members = [call("add", number) for number in range(5)]

    result = server.send_chord(Chord(Group(*(one.copy() for one in members)), call("add")))
    ours = outcomes(server, [result.result.signature.uuid])

    sent = go.must(op="send_chord", signatures=[told(one) for one in members], callback=told(call("add")))
    assert ours == outcomes_in_go(go, [sent["callback_uuid"]]) == [("SUCCESS", [("int64", 10)], "")]
