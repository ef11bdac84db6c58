"""Items on DynamoDB: Go's and Python's are the same, attribute by attribute, but for results that Go could not read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import Chord, Group, TaskState, new_signature
from machinery_compat.errors import BackendError
from machinery_compat.wire import TaskResult
from tests.conftest import GoClientFactory, GoWorkerFactory, Names
from tests.interop.conftest import Fleet
from tests.support.dynamo_proxy import BusyDynamoDB
from tests.support.golang import arg, signature
from tests.support.services import MotoServer
from tests.support.stores import DYNAMODB, dynamodb_environment
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.go, pytest.mark.redis, pytest.mark.dynamodb]

WAIT = 10
EXPIRY = 3600
KEYS = {"task_states": "TaskUUID", "group_metas": "GroupUUID"}
Item = dict[str, dict[str, Any]]


@pytest.fixture(params=["v2-redigo", "v1-redis"])
def fleet(
    request: pytest.FixtureRequest,
    moto_server: MotoServer,
    redis_db: str,
    names: Names,
    tmp_path: Path,
    go_worker: GoWorkerFactory,
    go_client: GoClientFactory,
) -> Iterator[Fleet]:
    with ExitStack() as stack:
        stack.enter_context(dynamodb_environment(moto_server))
        fleet = Fleet(request.param, redis_db, DYNAMODB, names, tmp_path, stack, go_worker, go_client, redis_db)
        fleet.server.backend.create_tables()
        yield fleet
        fleet.server.app.close()


def item(moto: MotoServer, uuid: str, table: str = "task_states") -> Item:
    """What lies in a table; what is different each time is replaced by what it is, once it has been checked."""
    found: Item = moto.client("dynamodb").get_item(TableName=table, Key={KEYS[table]: {"S": uuid}})["Item"]
    assert found[KEYS[table]] == {"S": uuid}
    assert found["CreatedAt"]["S"].endswith("Z")
    ttl = int(found["TTL"]["N"])
    assert ttl == 0 or abs(ttl - time.time() - EXPIRY) < 60
    return {**found, KEYS[table]: {"S": "uuid"}, "CreatedAt": {"S": "now"}, "TTL": {"N": str(min(ttl, 1))}}


def without_error(fleet: Fleet, go_item: Item) -> Item:
    """Version 1 writes no empty text, as DynamoDB did not take one then."""
    if fleet.flavor == "v1-redis" and go_item["Error"] == {"NULL": True}:
        return {**go_item, "Error": {"S": ""}}
    return go_item


def test_a_task_that_is_sent(fleet: Fleet, moto_server: MotoServer) -> None:
    of_go = item(moto_server, fleet.client.send(signature("add", arg("int64", 1))))
    of_python = item(moto_server, fleet.server.send_task(new_signature("add", 1)).signature.uuid)

    assert of_go["Error"] == ({"NULL": True} if fleet.flavor == "v1-redis" else {"S": ""})
    assert without_error(fleet, of_go) == of_python
    assert of_python == {
        "TaskUUID": {"S": "uuid"},
        "TaskName": {"S": "add"},
        "State": {"S": "PENDING"},
        "Results": {"NULL": True},
        "Error": {"S": ""},
        "CreatedAt": {"S": "now"},
        "TTL": {"N": "0"},
    }


def test_a_group_that_is_sent(fleet: Fleet, moto_server: MotoServer) -> None:
    sent = fleet.client.must(op="send_group", signatures=[signature("add"), signature("add")])
    of_go = item(moto_server, sent["group_uuid"], "group_metas")
    assert [one["S"] for one in of_go.pop("TaskUUIDs")["L"]] == sent["uuids"]

    group = Group(new_signature("add"), new_signature("add"))
    fleet.server.send_group(group)
    of_python = item(moto_server, group.group_uuid, "group_metas")
    assert [one["S"] for one in of_python.pop("TaskUUIDs")["L"]] == [one.uuid for one in group.tasks]
    assert of_go == of_python


def test_tasks_that_have_ended(fleet: Fleet, moto_server: MotoServer) -> None:
    fleet.go()
    backend = fleet.server.backend
    results = {
        "go_echo_string": [TaskResult.from_raw("string", b'"a [b]"')],
        "go_swap": [TaskResult.from_raw("int64", b"1"), TaskResult.from_raw("string", b'"a"')],
        "go_nothing": [],
    }
    arguments: dict[str, tuple[Any, ...]] = {"go_echo_string": ("a [b]",), "go_swap": ("a", 1), "go_nothing": ()}
    for name, expected in results.items():
        sent = fleet.server.send_task(new_signature(name, *arguments[name]))
        sent.get_with_timeout(WAIT)
        of_go = item(moto_server, sent.signature.uuid)
        assert backend.task_state(sent.signature.uuid).results == expected
        backend.put_pending([sent.signature])
        for state in ("RECEIVED", "STARTED"):
            backend.update_states([TaskState(task_uuid=sent.signature.uuid, state=state)], run=0)
        backend.update_states([TaskState(task_uuid=sent.signature.uuid, state="SUCCESS", results=expected)], run=0)
        of_python = item(moto_server, sent.signature.uuid)
        if name == "go_swap":
            # The number, which Go writes as a text and could not even hand on.
            written = of_python["Results"]["L"][0]["M"]
            assert written == {"Type": {"S": "int64"}, "Value": {"N": "1"}}
            written["Value"] = {"S": "1"}
        assert of_go == of_python


def test_a_task_that_has_failed(fleet: Fleet, moto_server: MotoServer) -> None:
    fleet.go()
    sent = fleet.server.send_task(new_signature("go_fail", "no <luck>"))
    wait_for(lambda: fleet.server.backend.task_state(sent.signature.uuid).state == "FAILURE", WAIT)
    of_go = item(moto_server, sent.signature.uuid)
    fleet.server.backend.put_pending([sent.signature])
    fleet.server.backend.update_states(
        [TaskState(task_uuid=sent.signature.uuid, state="FAILURE", error="no <luck>")], run=0
    )

    assert of_go == item(moto_server, sent.signature.uuid)
    assert fleet.client.get(sent.signature.uuid)["error"] == "no <luck>"


def test_what_is_not_there(fleet: Fleet) -> None:
    # Go takes it for a task without a state, and so would wait for one that nobody has sent.
    assert fleet.client.state("task_nobody")["State"] == ""
    assert fleet.server.backend.task_state("task_nobody") is None
    with pytest.raises(BackendError, match="group_nobody"):
        fleet.server.backend.group_completed("group_nobody", 1)


def test_keys_that_a_busy_server_leaves(fleet: Fleet, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with BusyDynamoDB(moto_server.url()) as busy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", busy.url())
        fleet.go()
        backend = fleet.server.backend
        members = Group(*(new_signature("go_echo_string", text) for text in "ab"))
        chord = Chord(members, new_signature("go_join"))
        result = fleet.server.send_chord(chord)
        if fleet.flavor == "v1-redis":
            # Version 1 asks again, after a second.
            assert sorted(str(*result.get_with_timeout(WAIT))) == ["a", "b"]
            return
        # Version 2 counts what it was given: no member is the last one, and nobody sends the callback.
        wait_for(lambda: busy.answered_in_part == 2, WAIT)
        assert fleet.server.send_task(new_signature("go_who")).get_with_timeout(WAIT) == ["go"]
        assert backend.group_meta(members.group_uuid).chord_triggered is False

        busy.answered_in_part = 0
        assert backend.__class__(fleet.server.app, url=DYNAMODB).group_completed(members.group_uuid, 2)
        assert busy.answered_in_part == 1
