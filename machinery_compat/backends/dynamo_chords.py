"""The chords on DynamoDB whose callbacks have not been sent, in items of Python's own in the table of groups.

Two kinds, both under keys that no group has:

* ``machinery_compat_chord:<group>``: Callback (B, Signature JSON), Due (N, ms since 1970), Began and
  Suspected (BOOL), TTL. Written by whoever sends the chord and by workers that see its members;
  goes when the callback has been sent.
* ``machinery_compat_chords:<number>``: Groups (SS), all that have an item of the first kind; the table
  has no index by which those could be found. There are several, since one takes 400 KB.
"""

from __future__ import annotations

import logging
import re
import time
import zlib
from typing import Any

from machinery_compat.backends.dynamo_client import ConditionFailed, Database
from machinery_compat.backends.limits import TooLarge
from machinery_compat.backends.store import Watched

__all__ = ["WatchedChords"]

logger = logging.getLogger("machinery_compat.backends")

KEY = "GroupUUID"
CHORD, LIST = "machinery_compat_chord:", "machinery_compat_chords:"
#: How many lists of chords there are.
LISTS = 16
#: Seconds between the two looks that find a callback unsent, at most.
SUSPECT_FOR = 2.0
#: How many chords are given out at a look.
AT_ONCE = 100


class WatchedChords:
    """What the watchdog of chords keeps.

    Args:
        database: where.
        table: the table of groups.
        interval: seconds between two looks at a chord.
        expiry: seconds after which a chord that nobody looks at is forgotten; 0 for never.
    """

    def __init__(self, database: Database, table: str, interval: float, expiry: int) -> None:
        self.database = database
        self.table = table
        self.interval = interval
        self.expiry = expiry

    def watch(self, uuid: str, callback: bytes, began: bool, listed: bool) -> None:
        """Remembers a chord.

        Args:
            uuid: the group.
            callback: the callback as its members carry it.
            began: whether it is sent now.
            listed: whether it is known to be remembered already.
        """
        values: dict[str, Any] = {":Callback": {"B": callback}}
        change = "SET #Callback = if_not_exists(#Callback, :Callback)"
        for name, value in self._times(self.interval).items():
            values[f":{name}"] = value
            change += f", #{name} = :{name}" if began else f", #{name} = if_not_exists(#{name}, :{name})"
        if began:
            values[":Began"] = {"BOOL": True}
            change += ", #Began = :Began"
        self._update(CHORD + uuid, change, values)
        if not listed:
            try:
                self._list("ADD", uuid)
            except TooLarge as exc:
                logger.warning("the chord of group %s is not watched, too many are: %s", uuid, exc)

    def unwatch(self, uuid: str) -> None:
        # In this order: what the list names and is not there is no chord any more.
        self.database.call("delete_item", self.table, Key={KEY: {"S": CHORD + uuid}})
        self._list("DELETE", uuid)

    def suspect(self, uuid: str) -> None:
        times = self._times(min(SUSPECT_FOR, self.interval))
        values = {":Suspected": {"BOOL": True}, **{f":{name}": value for name, value in times.items()}}
        change = "SET " + ", ".join(f"#{name[1:]} = {name}" for name in values)
        try:
            self._update(CHORD + uuid, change, values, "attribute_exists(#Callback)")
        except ConditionFailed:
            return  # it was forgotten meanwhile

    def overdue(self) -> list[Watched]:
        lists = self.database.get_many(self.table, KEY, [f"{LIST}{number}" for number in range(LISTS)])
        uuids = sorted({uuid for one in lists.values() for uuid in one.get("Groups", {}).get("SS", ())})
        if not uuids:
            return []
        chords = self.database.get_many(self.table, KEY, [CHORD + uuid for uuid in uuids])
        found: list[Watched] = []
        now = _now()
        for uuid in uuids:
            chord = chords.get(CHORD + uuid)
            if chord is None or "B" not in chord.get("Callback", {}):
                self.unwatch(uuid)
            elif _due(chord) <= now and self._take(uuid, chord):
                marks = ("BOOL" in chord.get(name, {}) for name in ("Began", "Suspected"))
                found.append(Watched(uuid, bytes(chord["Callback"]["B"]), *marks))
                if len(found) == AT_ONCE:
                    break
        return found

    def _take(self, uuid: str, chord: dict[str, Any]) -> bool:
        """Puts a chord off, so that nobody else looks at it now; False if somebody else was first."""
        # Without the callback, what was sent and forgotten meanwhile would be made again.
        condition, values = "attribute_exists(#Callback)", {":next": self._times(self.interval)["Due"]}
        if "Due" in chord:
            condition, values[":due"] = f"{condition} AND #Due = :due", chord["Due"]
        try:
            self._update(CHORD + uuid, "SET #Due = :next", values, condition)
        except ConditionFailed:
            return False
        return True

    def _times(self, seconds: float) -> dict[str, dict[str, str]]:
        times = {"Due": {"N": str(_now() + int(seconds * 1000))}}
        if self.expiry:
            times["TTL"] = {"N": str(int(time.time() + seconds + self.expiry))}
        return times

    def _list(self, how: str, uuid: str) -> None:
        number = zlib.crc32(uuid.encode()) % LISTS
        self._update(f"{LIST}{number}", f"{how} #Groups :one", {":one": {"SS": [uuid]}})

    def _update(self, key: str, change: str, values: dict[str, Any], condition: str = "") -> None:
        names = sorted(set(re.findall(r"#(\w+)", change + condition)))
        self.database.update(self.table, {KEY: {"S": key}}, change, names, values, condition)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _due(chord: dict[str, Any]) -> int:
    try:
        return int(chord.get("Due", {}).get("N", "0"))
    except ValueError:
        return 0
