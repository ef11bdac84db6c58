"""The stores of results, as the tests that hold for all of them see them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import boto3
import pymongo
import pytest
from bson import decode, encode
from pymemcache.client.base import Client as MemcacheClient
from redis import Redis

from machinery_compat import Config, Server
from machinery_compat.backends import dynamo_chords, mongo_chords
from machinery_compat.backends import redis as redis_backend
from tests.support.services import MotoServer

__all__ = ["DYNAMODB", "RawStore", "dynamodb_environment", "raw_store"]

#: The URL of the results on DynamoDB, wherever the environment of AWS says that it is.
DYNAMODB = "https://dynamodb.us-east-1.amazonaws.com"


@contextmanager
def dynamodb_environment(server: MotoServer) -> Iterator[None]:
    """Lets every client of DynamoDB, in this process and in those that it starts, find a server."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {**server.ENVIRONMENT, "AWS_ENDPOINT_URL_DYNAMODB": server.url()}.items():
            environment.setenv(name, value)
        yield


@dataclass
class RawStore:
    """What lies in a store, without the code that is tested.

    Documents are JSON, on MongoDB BSON, on DynamoDB the JSON of its attributes.
    """

    kind: str
    url: str
    #: Of the eager store only, which is the memory of a process.
    documents: dict[str, bytes]

    @contextmanager
    def _redis(self) -> Iterator[Redis]:
        client = Redis.from_url(self.url)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def _memcache(self) -> Iterator[MemcacheClient]:
        client = MemcacheClient(self.url.removeprefix("memcache://"), default_noreply=False)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def _mongo(self, collection: str) -> Iterator[Any]:
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(self.url)
        try:
            yield client["machinery"][collection]
        finally:
            client.close()

    def _dynamo(self, collection: str) -> tuple[Any, str, str]:
        """A client that the environment leads to a server, the table of a collection, and its key."""
        return _dynamo_client(os.environ["AWS_ENDPOINT_URL_DYNAMODB"]), *(
            ("group_metas", "GroupUUID") if collection == "group_metas" else ("task_states", "TaskUUID")
        )

    def get(self, uuid: str, collection: str = "tasks") -> bytes | None:
        if self.kind == "redis":
            with self._redis() as redis:
                return redis.get(uuid)
        if self.kind == "memcache":
            with self._memcache() as memcache:
                return memcache.get(uuid)
        if self.kind == "mongodb":
            with self._mongo(collection) as mongo:
                found = mongo.find_one({"_id": uuid})
            return None if found is None else encode(found)
        if self.kind == "dynamodb":
            client, table, key = self._dynamo(collection)
            item = client.get_item(TableName=table, Key={key: {"S": uuid}}, ConsistentRead=True).get("Item")
            return None if item is None else json.dumps(item, default=bytes.hex).encode()
        return self.documents.get(uuid)

    def put(self, uuid: str, document: bytes, collection: str = "tasks") -> None:
        if self.kind == "redis":
            with self._redis() as redis:
                redis.set(uuid, document)
        elif self.kind == "memcache":
            with self._memcache() as memcache:
                memcache.set(uuid, document)
        elif self.kind == "mongodb":
            with self._mongo(collection) as mongo:
                mongo.replace_one({"_id": uuid}, {**decode(document), "_id": uuid}, upsert=True)
        elif self.kind == "dynamodb":
            client, table, key = self._dynamo(collection)
            client.put_item(TableName=table, Item={**json.loads(document), key: {"S": uuid}})
        else:
            self.documents[uuid] = document

    # -- chords that are watched, in the stores that do

    def watched_chords(self) -> set[str]:
        """The groups of which anything is remembered."""
        if self.kind == "redis":
            with self._redis() as redis:
                found = {*redis.hkeys(redis_backend.WATCHED), *redis.zrange(redis_backend.WATCH_TIMES, 0, -1)}
            return {key.decode().partition(":")[0] for key in found}
        if self.kind == "mongodb":
            with self._mongo(mongo_chords.COLLECTION) as mongo:
                return {str(one["_id"]) for one in mongo.find()}
        client, table, key = self._dynamo("group_metas")
        keys = [one[key]["S"] for one in client.scan(TableName=table)["Items"]]
        return {one.removeprefix(dynamo_chords.CHORD) for one in keys if one.startswith(dynamo_chords.CHORD)}

    def let_be_due(self, uuids: Iterable[str]) -> None:
        """Makes it time to look at those that are watched."""
        for uuid in self.watched_chords().intersection(uuids):
            self._change_chord(uuid, due=True)

    def spoil_chord(self, uuid: str) -> None:
        """Puts something that is no Signature in the place of a callback."""
        self._change_chord(uuid, due=False)

    def _change_chord(self, uuid: str, due: bool) -> None:
        if self.kind == "redis":
            with self._redis() as redis:
                if due:
                    redis.zadd(redis_backend.WATCH_TIMES, {uuid: 1})
                else:
                    redis.hset(redis_backend.WATCHED, uuid, b"{nonsense")
        elif self.kind == "mongodb":
            with self._mongo(mongo_chords.COLLECTION) as mongo:
                changed = {"due": datetime(2020, 1, 1, tzinfo=timezone.utc)} if due else {"callback": 7}
                mongo.update_one({"_id": uuid}, {"$set": changed})
        else:
            client, table, key = self._dynamo("group_metas")
            client.update_item(
                TableName=table,
                Key={key: {"S": dynamo_chords.CHORD + uuid}},
                UpdateExpression=f"SET {'Due' if due else 'Callback'} = :value",
                ExpressionAttributeValues={":value": {"N": "0"}},
            )

    def server(self, broker: str = "eager", **options: Any) -> Server:
        server = Server(Config(broker=broker, result_backend=self.url, **options))
        server.app.machinery.documents = self.documents
        return server


@lru_cache(maxsize=1)
def _dynamo_client(endpoint: str) -> Any:
    # It takes long to make one.
    return boto3.session.Session().client("dynamodb", endpoint_url=endpoint)


def raw_store(kind: str, url: str) -> RawStore:
    return RawStore(kind, url, {})
