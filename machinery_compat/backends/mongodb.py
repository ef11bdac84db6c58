"""Results on MongoDB: the collections ``tasks`` and ``group_metas`` that Go's backend has."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from pymongo import errors as pymongo_errors

from machinery_compat import errors, urls
from machinery_compat.backends import fence, mongo_chords
from machinery_compat.backends import mongo_documents as documents
from machinery_compat.backends.base import Backend
from machinery_compat.backends.frontier import Frontier
from machinery_compat.backends.limits import TooLarge
from machinery_compat.backends.store import STATES, Watched, grown
from machinery_compat.wire import RECEIVED, ZERO_TIME, GroupMeta, Signature, TaskState

__all__ = ["MongoBackend"]

logger = logging.getLogger("machinery_compat.backends")

#: The database of a Go server that has no MongoDB configuration; Go ignores the one in the URL.
DATABASE = "machinery"
#: Milliseconds until the lack of a server is an error; the URL's own ``serverSelectionTimeoutMS`` goes before.
SELECTION_TIMEOUT = 10_000
#: How many documents are asked for, or written, at once.
BATCH = 1000
#: How many chords a process remembers as watched.
REMEMBERED = 10_000
#: The server's code for a document that is there already.
DUPLICATE = 11000
#: Its codes for a document of more than 16 MiB, as it came or as it would be.
TOO_LARGE = {10334, 17419, 17420}
#: Times beyond Python's years must not fail the reading of others.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)


class MongoBackend(Frontier, Backend):
    """Results on MongoDB. URL: ``mongodb://`` or ``mongodb+srv://`` as MongoDB has them.

    ``Config.mongodb`` gives another database or a client of the application's own.
    """

    persistent = True
    tries_again = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        # One for all threads: the client is.
        self.thread_safe = True
        if not url:
            raise errors.ConfigError("the MongoDB result backend needs a URL, such as mongodb://localhost:27017")
        self.url: str = url
        self.connection_errors = (pymongo_errors.ConnectionFailure, OSError)
        #: The chords that this process has asked to be watched, the oldest first.
        self._watched: dict[str, None] = {}
        #: The process and its client.
        self._client: tuple[int, Any] = (0, None)

    def as_uri(self, include_password: bool = False) -> str:
        return self.url if include_password else urls.redact(self.url)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, self.connection_errors)

    # -- the connection

    @property
    def client(self) -> Any:
        """The client, in each process its own; it connects at its first use.

        Raises:
            ConfigError: the URL cannot be used.
        """
        # Without a lock, which a fork could copy while it is held; a client made twice does no harm.
        process, client = self._client
        if process != os.getpid():
            settings = self.app.machinery.config.mongodb
            client = settings.client if settings and settings.client is not None else self._connect()
            self._create_indexes(client)
            self._client = (os.getpid(), client)
        return client

    def _connect(self) -> Any:
        options: dict[str, Any] = dict(self.app.conf.result_backend_transport_options or {})
        if "serverselectiontimeoutms" not in self.url.lower():
            options.setdefault("serverSelectionTimeoutMS", SELECTION_TIMEOUT)
        try:
            client: Any = pymongo.MongoClient(self.url, connect=False, **options)
        except (pymongo_errors.PyMongoError, ValueError, TypeError) as exc:
            # Its text may repeat the URL, and so the password.
            reason = str(exc).replace(self.url, urls.redact(self.url))
            password = self.url.rpartition("@")[0].rpartition(":")[2]
            raise errors.ConfigError(
                f"{urls.redact(self.url)}: {reason.replace(password, '***') if password else reason}"
            ) from None
        # Not at exit: a forked process would try to reach the server.
        weakref.finalize(self, client.close).atexit = False
        return client

    def _collection(self, name: str, client: Any) -> Any:
        settings = self.app.machinery.config.mongodb
        database = settings.database if settings else DATABASE
        return client.get_database(database).get_collection(name, codec_options=CODEC)

    def _create_indexes(self, client: Any) -> None:
        """Makes MongoDB delete what has expired; Go makes the same index on its first use."""
        for name in ("tasks", "group_metas", mongo_chords.COLLECTION):
            try:
                self._collection(name, client).create_index("delete_at", expireAfterSeconds=0, background=True)
            except pymongo_errors.OperationFailure as exc:
                logger.warning(
                    "results in MongoDB will not expire, its index on %s.delete_at is refused: %s", name, exc
                )

    @property
    def _tasks(self) -> Any:
        return self._collection("tasks", self.client)

    @property
    def _groups(self) -> Any:
        return self._collection("group_metas", self.client)

    # -- tasks

    def put_pending(self, signatures: Sequence[Signature]) -> None:
        writes = [self._replacement(self.pending_state(signature)) for signature in signatures]
        for first in range(0, len(writes), BATCH):
            self._write(lambda share: self._tasks.bulk_write(share), writes[first : first + BATCH])

    def task_states(self, uuids: Sequence[str]) -> list[TaskState | None]:
        found: dict[str, TaskState] = {}
        for first in range(0, len(uuids), BATCH):
            share = list(uuids[first : first + BATCH])
            for document in self._find(self._tasks, share):
                found[document["_id"]] = self._state_of(document)
        return [found.get(uuid) for uuid in uuids]

    def _find(self, collection: Any, uuids: list[str]) -> list[dict[str, Any]]:
        wanted = {"_id": uuids[0]} if len(uuids) == 1 else {"_id": {"$in": uuids}}
        try:
            # All at once: the documents are small, and a cursor would cost a round trip for each hundred.
            return list(collection.find(wanted, batch_size=len(uuids) + 1))
        except (BSONError, UnicodeEncodeError) as exc:
            some = ", ".join(map(repr, uuids[:3]))
            raise errors.BackendError(f"a document of {some} cannot be read: {exc}") from exc

    def _state_of(self, document: dict[str, Any]) -> TaskState:
        uuid = document["_id"]
        try:
            state = documents.state_of(document)
        except errors.DecodeError as exc:
            raise errors.BackendError(f"the document under {uuid} is no TaskState: {exc}") from exc
        if state.state not in STATES:
            raise errors.BackendError(f"the document under {uuid} is no TaskState: its state is {state.state!r}")
        return state

    def put_state(self, state: TaskState, server: str = "", command: Any = None) -> None:
        self._write(lambda share: self._tasks.bulk_write(share), [self._replacement(state)])

    def _replacement(self, state: TaskState) -> Any:
        members, _ = documents.state_document(state, self.expiry)
        if state.task_name:
            members["task_name"] = state.task_name
        if state.created_at != ZERO_TIME:
            members["created_at"] = documents.created(state.created_at)
        return pymongo.ReplaceOne({"_id": state.task_uuid}, members, upsert=True)

    def update_states(self, states: Sequence[TaskState], only_over: str = "", run: int | None = None) -> Any:
        if only_over and len(states) > 1:
            return [written for state in states for written in self.update_states([state], only_over, run)]
        if not states:
            return []
        writes = [self._update(state, only_over, run) for state in states]
        try:
            found = self._write(lambda share: self._tasks.bulk_write(share, ordered=False), writes)
        except pymongo_errors.BulkWriteError as exc:
            failures = exc.details["writeErrors"]
            if exc.details["writeConcernErrors"] or any(one["code"] != DUPLICATE for one in failures):
                raise
            # The document is there and does not meet the condition, so that a second one would have been made.
            refused = {one["index"] for one in failures}
            return [index not in refused for index in range(len(states))]
        return [bool(found.matched_count or found.upserted_count)] if only_over else [True] * len(states)

    def _update(self, state: TaskState, only_over: str, run: int | None) -> Any:
        members, gone = documents.state_document(state, self.expiry)
        condition: dict[str, Any] = {"_id": state.task_uuid}
        if only_over:
            condition["state"] = only_over
        elif state.state == RECEIVED:
            condition["state"] = {"$nin": sorted(fence.ENDS)}
        if run is not None:
            condition["$nor"] = [
                {"state": name, "celery.state": name, "celery.run": {"$gt": run}} for name in sorted(STATES)
            ]
        change: dict[str, Any] = {"$set": members}
        if gone:
            change["$unset"] = dict.fromkeys(gone, "")
        return pymongo.UpdateOne(condition, change, upsert=not only_over)

    def _write(self, write: Any, operations: list[Any]) -> Any:
        try:
            return write(operations)
        except (pymongo_errors.DocumentTooLarge, pymongo_errors.OperationFailure) as exc:
            if isinstance(exc, pymongo_errors.OperationFailure) and not _codes(exc) & TOO_LARGE:
                raise
            raise TooLarge(f"a document is larger than MongoDB takes ({exc}); return a reference to the data") from None
        except (BSONError, UnicodeEncodeError, OverflowError) as exc:
            raise errors.BackendError(f"a document cannot be written to MongoDB: {exc}") from exc

    # -- groups

    def group_meta(self, uuid: str) -> GroupMeta | None:
        for document in self._find(self._groups, [uuid]):
            try:
                return documents.group_of(document)
            except errors.DecodeError as exc:
                raise errors.BackendError(f"the document under {uuid} is no GroupMeta: {exc}") from exc
        return None

    def put_group(self, meta: GroupMeta) -> None:
        document = documents.group_document(meta)
        self._write(
            lambda share: self._groups.bulk_write(share),
            [pymongo.ReplaceOne({"_id": meta.group_uuid}, document, upsert=True)],
        )

    def trigger_chord(self, uuid: str) -> bool:
        """Marks a group's chord as triggered, in one step.

        Go makes the same update and does not look whether it has changed anything: a Go worker that
        ends a member at the same moment sends the callback too.
        """
        change: dict[str, Any] = {"chord_triggered": True}
        if self.expiry:
            # Go's groups stay for ever.
            change["delete_at"] = datetime.now(timezone.utc) + timedelta(seconds=self.expiry)
        found = self._groups.update_one({"_id": uuid, "chord_triggered": {"$ne": True}}, {"$set": change})
        if found.matched_count:
            return True
        self.known_group(uuid)
        return False

    def add_member(self, uuid: str, member: str, described: str) -> None:
        while True:
            meta = self.known_group(uuid)
            before = {"_id": uuid, "task_uuids": meta.task_uuids, "celery": meta.celery}
            meta = grown(meta, member, described)
            change = {"task_uuids": meta.task_uuids, **({"celery": meta.celery} if meta.celery else {})}
            if self._groups.update_one(before, {"$set": change}).matched_count:
                return

    # -- chords that are watched

    @property
    def _chords(self) -> mongo_chords.WatchedChords:
        collection = self._collection(mongo_chords.COLLECTION, self.client)
        return mongo_chords.WatchedChords(collection, self.watch_interval, self.expiry)

    def watch_chord(self, uuid: str, callback: Signature, began: bool = False) -> None:
        if began or uuid not in self._watched:
            self._chords.watch(uuid, callback.encode(), began)
            self._watched[uuid] = None
            while len(self._watched) > REMEMBERED:
                self._watched.pop(next(iter(self._watched)), None)

    def unwatch_chord(self, uuid: str) -> None:
        self._chords.unwatch(uuid)

    def suspect_chord(self, uuid: str) -> None:
        self._chords.suspect(uuid)

    def overdue_chords(self) -> list[Watched]:
        return self._chords.overdue()

    def purge(self, uuid: str) -> None:
        # Nothing tells whether it is a task or a group.
        self._tasks.delete_one({"_id": uuid})
        self._groups.delete_one({"_id": uuid})


def _codes(exc: pymongo_errors.OperationFailure) -> set[int]:
    """The server's codes in an error."""
    failures = exc.details.get("writeErrors", ()) if exc.details else ()
    return {one["code"] for one in failures} | ({exc.code} if exc.code is not None else set())
