"""What a task and a chord cost in round trips to the store of results; docs/backends.md shows these numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
import redis
from pymongo import MongoClient, monitoring

from machinery_compat import Config, GroupMeta, Server, Signature, TaskState
from machinery_compat.backends.base import Backend
from machinery_compat.config import DynamoDBConfig, MongoDBConfig
from machinery_compat.memcache_client import Memcached
from machinery_compat.wire import now_text
from tests.conftest import Names
from tests.support.stores import DYNAMODB

MEMBERS = 100
#: For each store: PENDING, one of the worker's three states, a look at the result; of a chord of 100: its sending
#: and the watch over it, a check after a member that is not the last, the trigger, and the reading of all results.
COSTS = {
    "redis": {"pending": 1, "state": 1, "read": 1, "send": 2, "watch": 1, "check": 1, "trigger": 4, "results": 2},
    "memcache": {"pending": 1, "state": 2, "read": 1, "send": 2, "watch": 0, "check": 2, "trigger": 3, "results": 2},
    "mongodb": {"pending": 1, "state": 1, "read": 1, "send": 2, "watch": 1, "check": 2, "trigger": 1, "results": 2},
    "dynamodb": {"pending": 1, "state": 1, "read": 1, "send": 5, "watch": 2, "check": 2, "trigger": 2, "results": 2},
}
Counted = tuple[Backend, list[str]]


@contextmanager
def counted_redis(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counted: list[str] = []
    send = redis.connection.AbstractConnection.send_packed_command

    def sending(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        counted.append("redis")
        return send(self, command, *args, **kwargs)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", sending)
    yield Server(Config(broker="eager", result_backend=url)).backend, counted


@contextmanager
def counted_memcache(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counted: list[str] = []
    once = Memcached._once
    monkeypatch.setattr(
        Memcached, "_once", staticmethod(lambda pool, method, args: counted.append(method) or once(pool, method, args))
    )
    yield Server(Config(broker="eager", result_backend=url)).backend, counted


class Listener(monitoring.CommandListener):
    def __init__(self, counted: list[str]) -> None:
        self.counted = counted

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.counted.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


@contextmanager
def counted_mongodb(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counted: list[str] = []
    client: MongoClient[dict[str, Any]] = MongoClient(url, event_listeners=[Listener(counted)])
    config = Config(broker="eager", result_backend=url, mongodb=MongoDBConfig(client=client))
    yield Server(config).backend, counted
    client.close()


@contextmanager
def counted_dynamodb(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counted: list[str] = []
    options = {"endpoint_url": url, "region_name": "us-east-1"}
    credentials = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.session.Session().client("dynamodb", **options, **credentials)
    # As they leave, so that those that the client sends again count too.
    client.meta.events.register("before-send.dynamodb", lambda request, **_: counted.append(request.url))
    config = Config(broker="eager", result_backend=DYNAMODB, dynamodb=DynamoDBConfig(client=client))
    backend = Server(config).backend
    backend.create_tables()
    yield backend, counted
    client.close()


STORES = [
    pytest.param("redis", "redis_server", counted_redis, marks=pytest.mark.redis, id="redis"),
    pytest.param("memcache", "memcached_server", counted_memcache, marks=pytest.mark.memcache, id="memcache"),
    pytest.param("mongodb", "mongo_server", counted_mongodb, marks=pytest.mark.mongodb, id="mongodb"),
    pytest.param("dynamodb", "moto_server", counted_dynamodb, marks=pytest.mark.dynamodb, id="dynamodb"),
]


@pytest.mark.parametrize(("kind", "fixture", "counting"), STORES)
def test_round_trips(
    kind: str,
    fixture: str,
    counting: Callable[[str, pytest.MonkeyPatch], Any],
    request: pytest.FixtureRequest,
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = f"group_{names.queue}"
    uuids = [f"{group}-{number}" for number in range(MEMBERS)]
    with counting(request.getfixturevalue(fixture).url(), monkeypatch) as (backend, counted):

        def ended(uuid: str) -> None:
            backend.update_states([TaskState(task_uuid=uuid, state="SUCCESS", results=[])])

        def send() -> None:
            backend.put_group(GroupMeta(group_uuid=group, task_uuids=uuids, created_at=now_text()))
            backend.put_pending([Signature(uuid=uuid, name="add") for uuid in uuids])

        def cost(act: Callable[[], Any]) -> int:
            counted.clear()
            act()
            return len(counted)

        # Connections and indexes are made, and scripts are loaded, once.
        ended(f"{group}-warm-1")
        backend.put_group(GroupMeta(group_uuid=f"{group}-warm", task_uuids=[f"{group}-warm-1"], created_at=now_text()))
        assert backend.group_completed(f"{group}-warm", 1)
        backend.trigger_chord(f"{group}-warm")
        backend.watch_chord(f"{group}-warm", Signature(uuid="callback", name="add"))
        backend.unwatch_chord(f"{group}-warm")

        found = {
            "pending": cost(lambda: backend.store_pending(Signature(uuid=f"{group}-one", name="add"), "")),
            "state": cost(lambda: ended(f"{group}-one")),
            "read": cost(lambda: backend.task_state(f"{group}-one")),
            "send": cost(send),
        }
        found["watch"] = cost(lambda: backend.watch_chord(group, Signature(uuid="callback", name="add")))
        backend.unwatch_chord(group)
        for uuid in uuids[:60]:
            ended(uuid)
        assert not backend.group_completed(group, MEMBERS)
        ended(uuids[60])
        found["check"] = cost(lambda: backend.group_completed(group, MEMBERS))
        found["trigger"] = cost(lambda: backend.trigger_chord(group))
        found["results"] = cost(lambda: backend.group_task_states(group))

    assert found == COSTS[kind]
