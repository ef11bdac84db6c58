"""A message whose UUID the store of results takes for no key is buried, and the worker goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from machinery_compat import Config, Server, new_signature
from machinery_compat.errors import BackendError
from machinery_compat.transport.payloads import dead_queue
from tests.support.python_worker import PythonWorker
from tests.support.stores import DYNAMODB, dynamodb_environment
from tests.support.waiting import wait_for

QUEUE = "unstorable"
#: UUIDs that a store refuses.
REFUSED = {
    "memcache": {"": "'' cannot be a key", "a b": "'a b' cannot be a key", "x" * 251: "cannot be a key"},
    "dynamodb": {"": "has 0 bytes", "x" * 2049: "has 2049 bytes"},
}


@pytest.fixture(
    params=[
        pytest.param("memcache", marks=pytest.mark.memcache),
        pytest.param("dynamodb", marks=pytest.mark.dynamodb),
    ]
)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "memcache":
        yield request.getfixturevalue("memcached_server").url()
        return
    with ExitStack() as stack:
        stack.enter_context(dynamodb_environment(request.getfixturevalue("moto_server")))
        Server(Config(broker="eager", result_backend=DYNAMODB)).backend.create_tables()
        yield DYNAMODB


@pytest.mark.redis
def test_a_message_that_nothing_can_be_kept_of_is_buried(backend: str, redis_db: str, tmp_path: Path) -> None:
    server = Server(Config(broker=redis_db, result_backend=backend, default_queue=QUEUE))
    refused = REFUSED["dynamodb" if backend == DYNAMODB else "memcache"]
    redis = Redis.from_url(redis_db)
    for uuid in refused:
        if uuid:
            with pytest.raises(BackendError, match=r"be a key|a key in"):
                server.send_task(new_signature("py_add", 1, uuid=uuid))
        redis.rpush(QUEUE, json.dumps({"UUID": uuid, "Name": "py_add", "Args": [{"Type": "int64", "Value": 1}]}))

    with PythonWorker(tmp_path, broker=redis_db, backend=backend, queue=QUEUE, counter=redis_db):
        assert server.send_task(new_signature("py_add", 1, 2)).get_with_timeout(15) == [3]
        wait_for(lambda: redis.llen(dead_queue(QUEUE)) == len(refused), 5)

    dead = [json.loads(entry) for entry in redis.lrange(dead_queue(QUEUE), 0, -1)]
    for entry, (uuid, reason) in zip(dead, refused.items(), strict=True):
        assert json.loads(entry["body"])["UUID"] == uuid
        assert reason in entry["reason"]
    redis.close()
