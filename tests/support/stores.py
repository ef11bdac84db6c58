"""The stores of results, as the tests that hold for all of them see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pymongo
from bson import decode, encode
from pymemcache.client.base import Client as MemcacheClient
from redis import Redis

from machinery_compat import Config, Server

__all__ = ["RawStore", "raw_store"]


@dataclass
class RawStore:
    """What lies in a store, without the code that is tested. Documents are JSON, on MongoDB BSON."""

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
        else:
            self.documents[uuid] = document

    def server(self, broker: str = "eager", **options: Any) -> Server:
        server = Server(Config(broker=broker, result_backend=self.url, **options))
        server.app.machinery.documents = self.documents
        return server


def raw_store(kind: str, url: str) -> RawStore:
    return RawStore(kind, url, {})
