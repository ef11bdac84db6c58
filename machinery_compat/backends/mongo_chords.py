"""The chords on MongoDB whose callbacks have not been sent, in a collection of Python's own."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from machinery_compat.backends.store import Watched

__all__ = ["COLLECTION", "WatchedChords"]

#: ``_id`` is the group; callback: Signature JSON; due: when to look; began, suspected: marks; delete_at.
COLLECTION = "machinery_compat_chords"
#: Seconds between the two looks that find a callback unsent, at most.
SUSPECT_FOR = 2.0
#: How many chords are given out at a look.
AT_ONCE = 100


class WatchedChords:
    """What the watchdog of chords keeps.

    Args:
        collection: where.
        interval: seconds between two looks at a chord.
        expiry: seconds after which a chord that nobody looks at is forgotten; 0 for never.
    """

    def __init__(self, collection: Any, interval: float, expiry: int) -> None:
        self.collection = collection
        self.interval = interval
        self.expiry = expiry

    def _times(self, seconds: float) -> dict[str, datetime]:
        now = datetime.now(timezone.utc)
        times = {"due": now + timedelta(seconds=seconds)}
        if self.expiry:
            times["delete_at"] = now + timedelta(seconds=seconds + self.expiry)
        return times

    def watch(self, uuid: str, callback: bytes, began: bool) -> None:
        change: dict[str, Any] = {"$setOnInsert": {"callback": callback}}
        if began:
            change["$set"] = {"began": True, **self._times(self.interval)}
        else:
            change["$setOnInsert"].update(self._times(self.interval))
        self.collection.update_one({"_id": uuid}, change, upsert=True)

    def unwatch(self, uuid: str) -> None:
        self.collection.delete_one({"_id": uuid})

    def suspect(self, uuid: str) -> None:
        times = self._times(min(SUSPECT_FOR, self.interval))
        self.collection.update_one({"_id": uuid}, {"$set": {"suspected": True, **times}})

    def overdue(self) -> list[Watched]:
        found: list[Watched] = []
        now = datetime.now(timezone.utc)
        while len(found) < AT_ONCE:
            # One at a time, so that each goes to one caller.
            change = {"$set": {"due": now + timedelta(seconds=self.interval)}}
            chord = self.collection.find_one_and_update({"due": {"$lte": now}}, change)
            if chord is None:
                break
            callback = chord.get("callback")
            if isinstance(callback, bytes):
                marks = chord.get("began") is True, chord.get("suspected") is True
                found.append(Watched(chord["_id"], callback, *marks))
            else:
                self.unwatch(chord["_id"])
        return found
