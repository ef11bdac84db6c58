"""Results on Amazon DynamoDB: the two tables that Go's backend has."""

from __future__ import annotations

import time
import uuid as uuids_of_python
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from machinery_compat import errors, urls
from machinery_compat.backends import dynamo_chords, dynamo_client, dynamo_tables, fence
from machinery_compat.backends import dynamo_documents as documents
from machinery_compat.backends.base import Backend
from machinery_compat.backends.dynamo_client import ConditionFailed, Item, check_key
from machinery_compat.backends.frontier import Frontier
from machinery_compat.backends.store import STATES, Watched, grown
from machinery_compat.config import DynamoDBConfig
from machinery_compat.wire import RECEIVED, GroupMeta, Signature, TaskState

__all__ = ["DynamoDBBackend"]

#: The keys of the two tables.
TASK, GROUP = "TaskUUID", "GroupUUID"
#: Bytes of an item beside what an update writes: the key, the name of the task and when it was made.
OTHERS = 600
#: How many states are written at the same time.
TOGETHER = 8
#: Seconds between two looks at a group that a Go worker has locked, and until it counts as dead.
LOCK_PAUSE, LOCK_LIFE = 0.005, 5.0
#: Seconds in which a Go worker that has read the group before it was marked will have locked it.
SETTLE = 0.02
#: Which worker has triggered a chord; Go never sees it.
MARK = "CeleryTrigger"
#: How many chords a process remembers as watched.
REMEMBERED = 10_000


class DynamoDBBackend(Frontier, Backend):
    """Results on DynamoDB. URL: ``https://dynamodb…``, as in Machinery; it only says that it is DynamoDB.

    Region, credentials and endpoint come from the environment of AWS, from
    ``result_backend_transport_options``, or from a client of the application's own in ``Config.dynamodb``.
    """

    persistent = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        # One for all threads: the client is.
        self.thread_safe = True
        if not url:
            raise errors.ConfigError("the DynamoDB result backend needs a URL: https://dynamodb.REGION.amazonaws.com")
        self.url: str = url
        self.connection_errors = dynamo_client.CONNECTION_ERRORS
        #: The chords that this process has asked to be watched, the oldest first.
        self._watched: dict[str, None] = {}
        self._database = dynamo_client.Database(self._make_client)

    def as_uri(self, include_password: bool = False) -> str:
        return self.url if include_password else urls.redact(self.url)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, self.connection_errors)

    @property
    def _settings(self) -> DynamoDBConfig:
        return self.app.machinery.config.dynamodb or DynamoDBConfig()

    def _make_client(self) -> Any:
        given = self._settings.client
        if given is not None:
            # Its idle connections may be those of a parent process, which uses them, too.
            given.close()
            return given
        client = dynamo_client.connect(self.url, self.app.conf.result_backend_transport_options or {})
        dynamo_client.close_with(self, client)
        return client

    @property
    def client(self) -> Any:
        """The client, in each process its own; it connects at its first use.

        Raises:
            ConfigError: no region is known, or an option cannot be used.
        """
        return self._database.client

    @property
    def _tasks(self) -> str:
        return self._settings.task_states_table

    @property
    def _groups(self) -> str:
        return self._settings.group_metas_table

    # -- tasks

    def check_uuid(self, uuid: str) -> None:
        check_key(uuid)

    def put_pending(self, signatures: Sequence[Signature]) -> None:
        # Of two with one UUID, which a batch must not have, the last counts.
        states = {one.uuid: self.pending_state(one) for one in signatures}
        self._database.put_many(self._tasks, [self._item(state) for state in states.values()])

    def task_states(self, uuids: Sequence[str]) -> list[TaskState | None]:
        items = self._database.get_many(self._tasks, TASK, uuids) if uuids else {}
        return [self._state_of(uuid, items[uuid]) if uuid in items else None for uuid in uuids]

    def _state_of(self, uuid: str, item: Item) -> TaskState:
        try:
            state = documents.state_of(item)
        except errors.DecodeError as exc:
            raise errors.BackendError(f"the document under {uuid} is no TaskState: {exc}") from exc
        if state.state not in STATES:
            raise errors.BackendError(f"the document under {uuid} is no TaskState: its State is {state.state!r}")
        return state

    def put_state(self, state: TaskState, server: str = "", command: Any = None) -> None:
        self._database.call("put_item", self._tasks, Item=self._item(state))

    def _item(self, state: TaskState) -> Item:
        check_key(state.task_uuid)
        item = documents.state_item(state, self.expiry)
        documents.check_size(state.task_uuid, item)
        return item

    def update_states(self, states: Sequence[TaskState], only_over: str = "", run: int | None = None) -> Any:
        # Each in a request of its own: together DynamoDB changes items only if all conditions are met.
        if len(states) < 2:
            return [self._update(state, only_over, run) for state in states]
        with ThreadPoolExecutor(min(TOGETHER, len(states))) as pool:
            return list(pool.map(lambda state: self._update(state, only_over, run), states))

    def _update(self, state: TaskState, only_over: str, run: int | None) -> bool:
        check_key(state.task_uuid)
        members, gone = documents.fitting(state, self.expiry, OTHERS)
        names = {*members, *gone}
        values = {f":{name}": attribute for name, attribute in members.items()}
        change = _set(members) + "".join(f" REMOVE #{name}" for name in gone)
        conditions = []
        if only_over:
            conditions.append("#State = :over")
            values[":over"] = {"S": only_over}
        elif state.state == RECEIVED:
            ends = {f":end{number}": {"S": end} for number, end in enumerate(sorted(fence.ENDS))}
            conditions.append(f"(attribute_not_exists(#State) OR NOT #State IN ({', '.join(ends)}))")
            values |= ends
        if run is not None:
            names |= {"Celery", "Run"}
            # What says which run it is counts only as long as the state is the one that it came with.
            later = "attribute_exists(#Celery.#Run) AND #Celery.#Run > :run AND #Celery.#State = #State"
            conditions.append(f"NOT ({later})")
            values[":run"] = {"N": str(run)}
        key = {TASK: {"S": state.task_uuid}}
        try:
            self._database.update(self._tasks, key, change, list(names), values, " AND ".join(conditions))
        except ConditionFailed:
            return False
        return True

    # -- groups

    def group_meta(self, uuid: str) -> GroupMeta | None:
        item = self._database.get(self._groups, GROUP, uuid)
        return None if item is None else self._meta_in(uuid, item)

    def _meta_in(self, uuid: str, item: Item) -> GroupMeta:
        try:
            return documents.group_of(item)
        except errors.DecodeError as exc:
            raise errors.BackendError(f"the document under {uuid} is no GroupMeta: {exc}") from exc

    def put_group(self, meta: GroupMeta) -> None:
        check_key(meta.group_uuid)
        item = documents.group_item(meta, self.expiry)
        documents.check_size(meta.group_uuid, item)
        self._database.call("put_item", self._groups, Item=item)

    def trigger_chord(self, uuid: str) -> bool:
        """Marks a group's chord as triggered, in one step.

        Go reads the document, writes it locked, then triggered, then unlocked, and compares nothing.
        A lock of Go's is waited for. The mark takes the lock's attribute away, so that it is there
        again when a Go worker has read the group before the mark came: that one is left to send the
        callback.
        """
        check_key(uuid)
        own = {"S": uuids_of_python.uuid4().hex}
        deadline = time.monotonic() + LOCK_LIFE
        while not self._mark(uuid, own, locked=time.monotonic() >= deadline):
            if self.known_group(uuid).chord_triggered:
                return False
            time.sleep(LOCK_PAUSE)
        time.sleep(SETTLE)
        item = self._database.get(self._groups, GROUP, uuid)
        return item is None or (item.get(MARK) == own and "Lock" not in item)

    def _mark(self, uuid: str, own: dict[str, str], locked: bool) -> bool:
        """Marks the chord of a group that is not marked yet.

        Args:
            uuid: the group.
            own: the mark.
            locked: whether a lock of Go's is passed over.
        """
        changed: Item = {"ChordTriggered": {"BOOL": True}, MARK: own, **documents.expiring(self.expiry)}
        condition = f"attribute_exists(#{GROUP}) AND #ChordTriggered <> :ChordTriggered"
        if not locked:
            condition += " AND #Lock <> :ChordTriggered"
        values = {f":{name}": attribute for name, attribute in changed.items()}
        names = [*changed, "Lock", GROUP]
        try:
            self._database.update(
                self._groups, {GROUP: {"S": uuid}}, f"{_set(changed)} REMOVE #Lock", names, values, condition
            )
        except ConditionFailed as exc:
            # It was written, and only the answer was lost.
            return exc.item is not None and exc.item.get(MARK) == own
        return True

    def add_member(self, uuid: str, member: str, described: str) -> None:
        while True:
            item = self._database.get(self._groups, GROUP, uuid)
            if item is None:
                raise self.group_missing(uuid)
            before = self._meta_in(uuid, item)
            count = len(before.task_uuids or ())
            if member in (before.task_uuids or ()):
                return
            after = documents.group_item(grown(before, member, described), self.expiry)
            documents.check_size(uuid, after)
            changed: Item = {name: after[name] for name in ("TaskUUIDs", "Celery") if name in after}
            values = {f":{name}": attribute for name, attribute in changed.items()}
            if count:
                # Groups only grow, so their number tells whether somebody else was here.
                condition, values[":before"] = "size(#TaskUUIDs) = :before", {"N": str(count)}
            elif "TaskUUIDs" in item:
                condition, values[":before"] = "#TaskUUIDs = :before", item["TaskUUIDs"]
            else:
                condition = "attribute_not_exists(#TaskUUIDs)"
            try:
                self._database.update(
                    self._groups, {GROUP: {"S": uuid}}, _set(changed), list(changed), values, condition
                )
            except ConditionFailed:
                continue
            return

    def purge(self, uuid: str) -> None:
        # Nothing tells whether it is a task or a group.
        check_key(uuid)
        self._database.call("delete_item", self._tasks, Key={TASK: {"S": uuid}})
        self._database.call("delete_item", self._groups, Key={GROUP: {"S": uuid}})

    # -- chords that are watched

    @property
    def _chords(self) -> dynamo_chords.WatchedChords:
        return dynamo_chords.WatchedChords(self._database, self._groups, self.watch_interval, self.expiry)

    def watch_chord(self, uuid: str, callback: Signature, began: bool = False) -> None:
        if self.watch_interval <= 0:
            return  # writes cost money, and nobody looks
        known = uuid in self._watched
        if began or not known:
            self._chords.watch(uuid, callback.encode(), began, listed=known)
            self._watched[uuid] = None
            while len(self._watched) > REMEMBERED:
                self._watched.pop(next(iter(self._watched)), None)

    def unwatch_chord(self, uuid: str) -> None:
        if self.watch_interval > 0:
            self._chords.unwatch(uuid)

    def suspect_chord(self, uuid: str) -> None:
        self._chords.suspect(uuid)

    def overdue_chords(self) -> list[Watched]:
        return self._chords.overdue()

    # -- tables

    def create_tables(self) -> list[tuple[str, bool]]:
        """Creates the tables that are not there, and lets DynamoDB delete what has expired in them.

        Returns:
            of each table its name, and whether it was made now.

        Raises:
            ConfigError: a table of that name is another one.
            BackendError: DynamoDB refuses.
        """
        tables = {self._tasks: TASK, self._groups: GROUP}
        return [(name, dynamo_tables.create_table(self.client, name, key)) for name, key in tables.items()]


def _set(members: Item) -> str:
    return "SET " + ", ".join(f"#{name} = :{name}" for name in members)
