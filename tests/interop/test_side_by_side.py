"""The same from Go and from Python, and through a worker of each, leaves the same behind, byte for byte.

Each language has a database of its own, so the UUIDs can be the same, and all that follows a task goes to a queue that
nobody reads.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from machinery_compat import Chain, Chord, Config, Group, Server
from machinery_compat.wire import Arg, GroupMeta, Signature, TaskState, now_text
from tests.conftest import GoClientFactory, GoWorkerFactory, Names
from tests.support.python_worker import PythonWorker
from tests.support.services import RedisServer
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.go]

#: The databases of Go's worker and of Python's, which are emptied.
DATABASES = {"go": 12, "py": 13}
SINK = "nobody_reads_this"
MESSAGES = 400
#: Tasks of both languages, with the Types and Values that they take, in spellings of other peers too.
TASKS: dict[str, list[tuple[str, list[str]]]] = {
    "nothing": [],
    "fail": [("string", ['"boom"', '"é<b>\\n"', '" "'])],
    "swap": [("string", ['"a"', '"\\u2028\\u0000"']), ("int64", ["-9223372036854775808", "5"])],
    "concat": [("[]string", ["null", "[]", '["x", "<"]'])],
    "echo_bytes": [("[]byte", ['"aGk="', '""', "[104,105]"])],
    "echo_bool": [("bool", ["true"])],
    "echo_int8": [("int8", ["-128"])],
    "echo_uint64": [("uint64", ["18446744073709551615"])],
    "echo_float32": [("float32", ["0.1", "1.50E+2"])],
    "echo_float64": [("float64", ["1e21", "1e-7", "100.0"])],
    "echo_slice_float64": [("[]float64", ["[1.0,1e2]", "null"])],
    "echo_slice_uint16": [("[]uint16", ["[0,65535]", "[]"])],
}
HEADERS: list[dict[str, Any] | None] = [None, {}, {"a": "<é>", "b": None}, {"uber-trace-id": "1:2:0:1"}]
EXTRA = re.compile(rb',"Celery":"(?:[^"\\]|\\.)*"')
NOW_CREATED = re.compile(rb'(?<="CreatedAt":")20[^"]*')
NOW = re.compile(rb'"(ETA|CreatedAt)":"20[^"]*"')


class Maker:
    """Makes messages; with the same seed the same ones for both languages."""

    def __init__(self, language: str, queue: str) -> None:
        self.random = random.Random(2024)
        self.language = language
        self.queue = queue
        self.made = 0

    def signature(self, depth: int = 0, names: list[str] | None = None, **fields: Any) -> Signature:
        choose = self.random.choice
        self.made += 1
        name = choose(names or [*TASKS, "fail", "fail", "fail"])
        args = [Arg.from_raw(kind, choose(values).encode(), choose(["", "n"])) for kind, values in TASKS[name]]
        headers = choose(HEADERS)
        return Signature(
            uuid=f"task_{self.made}",
            name=f"{self.language}_{name}",
            routing_key=SINK if depth else self.queue,
            args=args or choose([None, []]),
            headers=dict(headers) if headers is not None else None,
            immutable=choose([True, False, False]),
            retry_count=choose([0, 0, 2]),
            retry_timeout=choose([100, 4000]),
            on_success=self.followers(depth),
            on_error=self.followers(depth),
            broker_message_group_id=choose(["", "g"]),
            sqs_receipt_handle=choose(["", "h"]),
            ignore_when_task_not_registered=choose([True, False]),
            **fields,
        )

    def followers(self, depth: int) -> list[Signature | None] | None:
        if depth == 2 or self.random.random() < 0.4:
            return self.random.choice([None, []])
        return [self.signature(depth + 1) for _ in range(self.random.randint(1, 2))]

    def members(self, uuid: str) -> list[Signature]:
        """A chord's. None fails: then Python tells those who wait, which Go does not."""
        count, names = self.random.randint(1, 3), [name for name in TASKS if name != "fail"]
        callback = self.signature(1)
        return [
            self.signature(1, names, group_uuid=uuid, group_task_count=count, chord_callback=callback)
            for _ in range(count)
        ]


def send(client: Redis, maker: Maker) -> None:
    while maker.made < MESSAGES:
        tasks = [maker.signature()]
        if maker.random.random() < 0.4:
            group = f"group_{maker.made}"
            tasks = maker.members(group)
            uuids = [one.uuid for one in tasks]
            client.set(group, GroupMeta(group_uuid=group, task_uuids=uuids, created_at=now_text()).encode())
        for one in tasks:
            one.routing_key = maker.queue
            state = TaskState(task_uuid=one.uuid, task_name=one.name, state="PENDING", created_at=now_text())
            client.set(one.uuid, state.encode())
        client.rpush(maker.queue, *(one.encode() for one in tasks))


def left_behind(client: Redis, language: str) -> dict[str, Any]:
    """States, groups, messages for others and delayed tasks, without what differs from run to run."""
    found: dict[str, Any] = {}
    for key in client.keys("*_*"):
        if key.startswith((b"task_", b"group_")) and not key.endswith(b":frontier"):
            found[key.decode()] = plain(client.get(key), language)
    found["sent"] = sorted(plain(body, language) for body in client.lrange(SINK, 0, -1))
    found["delayed"] = sorted(plain(body, language) for body in client.zrange("delayed_tasks", 0, -1))
    return found


def plain(data: bytes | None, language: str) -> bytes:
    data = EXTRA.sub(b"", data or b"").replace(f'"{language}_'.encode(), b'"')
    return NOW.sub(rb'"\1":"now"', data)


def is_done(client: Redis, queue: str) -> bool:
    """Whether nothing is queued and no task of this worker is under way."""
    if client.llen(queue):
        return False
    if client.keys(f"{{{queue}}}:inflight:*"):
        return False
    states = [json.loads(client.get(key) or b"{}") for key in client.keys("task_*")]
    return not any(state.get("State") in ("RECEIVED", "STARTED", "RETRY") for state in states)


def test_both_leave_the_same_behind(
    redis_server: RedisServer, go_worker: GoWorkerFactory, names: Names, tmp_path: Path
) -> None:
    urls = {language: redis_server.url(db) for language, db in DATABASES.items()}
    clients = {language: redis_server.client(db) for language, db in DATABASES.items()}
    for language, client in clients.items():
        client.flushdb()
        send(client, Maker(language, names.queue))
    go_worker(broker=urls["go"], backend=urls["go"], queue=names.queue, concurrency=1)
    python = PythonWorker(
        tmp_path, broker=urls["py"], backend=urls["py"], queue=names.queue, pool="solo", concurrency=1
    )
    seen: list[Any] = [None, None]

    def is_quiet() -> bool:
        """Whether nothing is queued or running, and nothing has changed since the last look."""
        seen[:] = seen[1], [left_behind(client, language) for language, client in clients.items()]
        return all(is_done(client, names.queue) for client in clients.values()) and seen[0] == seen[1]

    with python:
        wait_for(is_quiet, 30, interval=0.3)
    go, py = seen[1]

    assert len(go["sent"]) > 20
    assert len(go["delayed"]) > 2
    assert py == go


GROUP = re.compile(rb"group_[0-9a-f-]{36}")


def test_both_send_the_same(redis_server: RedisServer, go_client: GoClientFactory, names: Names) -> None:
    urls = {language: redis_server.url(db) for language, db in DATABASES.items()}
    clients = {language: redis_server.client(db) for language, db in DATABASES.items()}
    go = go_client(broker=urls["go"], backend=urls["go"], queue=names.queue)
    python = Server(Config(broker=urls["py"], result_backend=urls["py"], default_queue=names.queue))
    maker = Maker("go", "")
    for kind in ("send", "send_chain", "send_group", "send_chord") * 5:
        for client in clients.values():
            client.flushdb()
        tasks = [json.loads(maker.signature(1).encode()) for _ in range(1 if kind == "send" else 3)]
        tasks[0].update(ETA=maker.random.choice([None, "2099-01-02T03:04:05.5+05:30"]), RoutingKey="")
        callback = json.loads(maker.signature(1).encode())

        go.must(op=kind, literal=True, concurrency=1, signature=tasks[0], signatures=tasks, callback=callback)
        send_from_python(python, kind, [read(one) for one in tasks], read(callback))

        assert all_of(clients["py"]) == all_of(clients["go"]), kind


def send_from_python(server: Server, kind: str, tasks: list[Signature], callback: Signature) -> None:
    if kind == "send":
        server.send_task(tasks[0])
    elif kind == "send_chain":
        server.send_chain(Chain(*tasks))
    elif kind == "send_group":
        server.send_group(Group(*tasks))
    else:
        server.send_chord(Chord(Group(*tasks), callback))


def read(signature: dict[str, Any]) -> Signature:
    return Signature.decode(json.dumps(signature).encode())


def all_of(client: Redis) -> dict[bytes, list[bytes]]:
    """Each key's value; groups have UUIDs of their own."""
    found: dict[bytes, list[bytes]] = {}
    for key in client.keys("*"):
        if key.startswith(b"{machinery_compat}"):
            continue
        kind = client.type(key)
        lines = client.lrange(key, 0, -1) if kind == b"list" else []
        if kind == b"zset":
            lines = [b"%r %r" % (score, member) for member, score in client.zrange(key, 0, -1, withscores=True)]
        values = lines or [client.get(key)]
        found[GROUP.sub(b"group", key)] = sorted(NOW_CREATED.sub(b"now", GROUP.sub(b"group", one)) for one in values)
    return found
