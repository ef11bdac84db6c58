"""What becomes of SQS messages while this process has them: kept hidden from others, deleted, or given back."""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from machinery_compat.transport.sqs_client import Unavailable, asking

__all__ = ["Custody", "Held"]

logger = logging.getLogger("machinery_compat.transport")

#: The most messages of one call.
BATCH = 10
#: The longest time that SQS hides a message after it was received, in seconds.
LONGEST_HOLD = 43_200
#: A message is hidden anew when this part of its time is over.
PART = 3
#: Seconds until what could not be told is told again.
ERROR_PAUSE = 1.0
#: The longest time for which the end waits for what is still to be told, in seconds.
LAST_WORDS = 10.0


@dataclass(eq=False)
class Held:
    """A message that this process has received.

    Attributes:
        url: that of its queue.
        handle: its receipt handle.
        seconds: for how long it is hidden each time; 0 is not at all.
        until: when others see it again, unless it is hidden anew (time.monotonic()).
    """

    url: str
    handle: str
    seconds: int
    until: float
    since: float = field(default_factory=time.monotonic)

    def is_hidden(self) -> bool:
        return self.seconds == 0 or time.monotonic() < self.until


class Custody:
    """Keeps messages hidden from a thread of its own, and settles them from another, in batches.

    So neither a long task nor one that blocks the event loop makes others receive its message.

    Args:
        client: the boto3 client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._held: set[Held] = set()
        self._lock = threading.Lock()
        self._todo: queue.SimpleQueue[tuple[Held, int | None] | None] = queue.SimpleQueue()
        self._period = float(LONGEST_HOLD)
        self._awake = threading.Event()
        self._ended = threading.Event()
        self._retired = False
        self._threads: list[threading.Thread] = []

    def take(self, held: Held) -> None:
        """Begins to hide a message anew, again and again."""
        with self._lock:
            self._held.add(held)
            if not self._threads:
                self._threads = [
                    threading.Thread(target=run, name=f"machinery-sqs-{name}", daemon=True)
                    for name, run in (("hide", self._hide), ("settle", self._settle))
                ]
                for thread in self._threads:
                    thread.start()
            if held.seconds and held.seconds / PART < self._period:
                self._period = held.seconds / PART
                self._awake.set()

    def delete(self, held: Held) -> None:
        """Deletes a message, soon; until then it stays hidden."""
        self._todo.put((held, None))

    def release(self, held: Held, seconds: int = 0) -> None:
        """Lets others see a message after so many seconds."""
        self._todo.put((held, seconds))

    def forget(self, held: Held) -> None:
        """Leaves a message to its visibility timeout."""
        with self._lock:
            self._held.discard(held)
        if self._retired:
            self._todo.put(None)

    def retire(self) -> None:
        """Ends, when what is settled has been told; with messages that are still held it goes on until they are."""
        self._retired = True
        if not self._threads:
            return
        self._todo.put(None)
        deadline = time.monotonic() + LAST_WORDS
        while self._threads[1].is_alive() and not self._todo.empty() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._held:
            self._threads[1].join(max(deadline - time.monotonic(), 0.0))

    # -- the thread that settles

    def _settle(self) -> None:
        batch: list[tuple[Held, int | None]] = []
        while not (self._retired and not batch and self._todo.empty() and self._is_empty()):
            batch += self._waiting(bool(batch))
            try:
                while batch:
                    self._tell(batch[:BATCH])
                    del batch[:BATCH]
            except Unavailable as exc:
                logger.warning("SQS: %d messages are settled when it can be reached: %s", len(batch), exc)
                time.sleep(ERROR_PAUSE)
            except Exception:
                logger.exception("SQS: a message is not settled; it comes back when its time is over")
                for held, _ in batch[:BATCH]:
                    self.forget(held)
                del batch[:BATCH]
        self._ended.set()
        self._awake.set()

    def _waiting(self, more: bool) -> list[tuple[Held, int | None]]:
        """What is to be told; waits for the first, unless there is more already."""
        found: list[tuple[Held, int | None]] = []
        while not self._todo.empty() or not (more or found):
            one = self._todo.get()
            if one is None:
                break
            found.append(one)
        return found

    def _is_empty(self) -> bool:
        with self._lock:
            return not self._held

    def _tell(self, batch: list[tuple[Held, int | None]]) -> None:
        def kind(one: tuple[Held, int | None]) -> tuple[str, bool]:
            return one[0].url, one[1] is None

        for (url, deletes), group in groupby(sorted(batch, key=kind), kind):
            told = list(group)
            if deletes:
                entries = [{"Id": str(n), "ReceiptHandle": held.handle} for n, (held, _) in enumerate(told)]
                with asking(url):
                    answer = self._client.delete_message_batch(QueueUrl=url, Entries=entries)
            else:
                answer = self._change(url, [(held, seconds or 0) for held, seconds in told])
            for failed in answer.get("Failed", ()):
                logger.warning(
                    "SQS: a message of %s is not settled, and may come again: %s", url, failed.get("Message")
                )
            for held, _ in told:
                self.forget(held)

    def _change(self, url: str, batch: list[tuple[Held, int]]) -> Any:
        entries = [
            {"Id": str(n), "ReceiptHandle": held.handle, "VisibilityTimeout": seconds}
            for n, (held, seconds) in enumerate(batch)
        ]
        with asking(url):
            return self._client.change_message_visibility_batch(QueueUrl=url, Entries=entries)

    # -- the thread that hides

    def _hide(self) -> None:
        while not self._ended.is_set():
            self._awake.wait(min(self._period, 60.0))
            self._awake.clear()
            try:
                self._hide_anew()
            except Unavailable as exc:
                logger.warning("SQS: running messages are hidden anew when it can be reached: %s", exc)
            except Exception:
                logger.exception("SQS: running messages are hidden anew in a moment")

    def _hide_anew(self) -> None:
        now = time.monotonic()
        with self._lock:
            # Those whose time is over may be with somebody else.
            due = [one for one in self._held if now < one.until <= now + one.seconds * (PART - 1) / PART]
        by_url = sorted(due, key=lambda one: one.url)
        for url, group in groupby(by_url, lambda one: one.url):
            held = list(group)
            for first in range(0, len(held), BATCH):
                self._hide_batch(url, held[first : first + BATCH])

    def _hide_batch(self, url: str, batch: list[Held]) -> None:
        now = time.monotonic()
        wanted = [(one, min(one.seconds, int(LONGEST_HOLD - (now - one.since)) - 1)) for one in batch]
        wanted = [(one, seconds) for one, seconds in wanted if seconds > 0]
        if not wanted:
            return
        failed = {int(one["Id"]): one for one in self._change(url, wanted).get("Failed", ())}
        for number, (held, seconds) in enumerate(wanted):
            if number not in failed:
                held.until = now + seconds
            elif held in self._held:
                logger.warning(
                    "SQS: a running message of %s is this worker's no longer: %s", url, failed[number].get("Message")
                )
                held.until = now
