"""A thread that keeps the messages of a worker from others while their tasks run, and settles them.

Pub/Sub gives a message out again when its deadline passes. The thread moves the deadlines on as long as
the process lives, so a task of ten hours is not run twice, and a killed worker's tasks come back soon.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic

from google.api_core import exceptions

from machinery_compat.gcpubsub_client import FAILED, LONGEST_DEADLINE, Clients

__all__ = ["Held", "Keeper"]

logger = logging.getLogger("machinery_compat.transport")

#: How often a deadline is moved on while it lasts.
RENEWALS = 3
#: Seconds after which a settlement that failed is tried again.
PAUSE = 1.0


@dataclass(eq=False, slots=True)
class Held:
    """One delivery of a message to this worker.

    Attributes:
        subscription: where it came from.
        ack_id: names the delivery.
        message_id: names the message.
        granted: for how long it is kept from others, in seconds.
        since: from when on, in seconds of time.monotonic().
        came: when it came, likewise.
        given_up: it has been kept for as long as it may be.
    """

    subscription: str
    ack_id: str
    message_id: str
    granted: float
    since: float
    came: float = field(default_factory=monotonic)
    given_up: bool = False

    @property
    def expires(self) -> float:
        """When others get it."""
        return self.since + self.granted


class Keeper:
    """The thread, with what it keeps.

    Args:
        clients: makes its client.
        lease: for how long a message is kept at once, in seconds.
        longest: for how long in all, in seconds; None for ever.
    """

    def __init__(self, clients: Clients, lease: float, longest: float | None = None) -> None:
        self._clients = clients
        self._lease = max(1, min(int(lease), LONGEST_DEADLINE))
        self._longest = longest
        self._held: set[Held] = set()
        #: What is to be told: None acknowledges, a number gives back after so many seconds.
        self._settled: dict[Held, int | None] = {}
        self._changed = threading.Condition()
        self._retired = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="machinery-pubsub-keeper", daemon=True)
        self._thread.start()

    def hold(self, messages: Iterable[Held]) -> None:
        """Keeps messages from now on."""
        with self._changed:
            self._held.update(messages)
            self._changed.notify_all()

    def holds(self, held: Held) -> bool:
        """Whether nobody else has been given a message."""
        return held in self._held and held.expires > monotonic()

    def settle(self, held: Held) -> None:
        """Acknowledges a message."""
        self._tell(held, None)

    def give_back(self, held: Held, seconds: int = 0) -> None:
        """Gives a message to others, after some seconds."""
        self._tell(held, min(seconds, LONGEST_DEADLINE))

    def forget(self, held: Held) -> None:
        """Keeps a message no longer, without a word."""
        with self._changed:
            self._held.discard(held)

    def retire(self, kept: Iterable[Held], timeout: float) -> None:
        """Gives everything back but what is kept until it is settled, and then ends.

        Args:
            kept: the messages of running tasks.
            timeout: how long Pub/Sub is waited for, in seconds.
        """
        with self._changed:
            self._retired = True
            for held in self._held.difference(kept, self._settled):
                self._settled[held] = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._settled, timeout)

    def _tell(self, held: Held, what: int | None) -> None:
        with self._changed:
            if held in self._held and held not in self._settled:
                self._settled[held] = what
                self._changed.notify_all()

    # -- the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._settled and not self._is_done():
                    left = self._until_renewal()
                    if left == 0:
                        break
                    self._changed.wait(left)
                if self._is_done():
                    return
                settled = dict(self._settled)
            failed = self._tell_all(settled)
            if self._renew() or failed:
                with self._changed:
                    self._changed.wait(PAUSE)

    def _is_done(self) -> bool:
        return self._retired and not self._held

    def _until_renewal(self) -> float | None:
        first = min((self._renewal(held) for held in self._held if not held.given_up), default=None)
        return None if first is None else max(first - monotonic(), 0)

    def _renewal(self, held: Held) -> float:
        """When a deadline is to be moved on."""
        return held.since + min(held.granted, self._lease) / RENEWALS

    def _tell_all(self, settled: dict[Held, int | None]) -> bool:
        """Tells Pub/Sub of what is settled; whether some of it must be told again."""
        groups: dict[tuple[str, int | None], list[Held]] = defaultdict(list)
        for held, what in settled.items():
            groups[held.subscription, what].append(held)
        failed = False
        for (subscription, what), messages in groups.items():
            ack_ids = [held.ack_id for held in messages]
            try:
                client = self._clients.get()
                if what is None:
                    client.acknowledge(subscription, ack_ids)
                else:
                    client.keep(subscription, ack_ids, what)
            except FAILED as exc:
                if not isinstance(exc, exceptions.ClientError) or isinstance(exc, exceptions.TooManyRequests):
                    logger.warning("%d messages of %s cannot be settled now: %s", len(messages), subscription, exc)
                    failed = True
                    continue
                logger.error("%d messages of %s cannot be settled: %s", len(messages), subscription, exc)
            self._let_go(messages)
        return failed

    def _let_go(self, messages: list[Held]) -> None:
        with self._changed:
            self._held.difference_update(messages)
            for held in messages:
                del self._settled[held]
            self._changed.notify_all()

    def _renew(self) -> bool:
        """Moves deadlines on; whether that failed."""
        now = monotonic()
        groups: dict[str, list[Held]] = defaultdict(list)
        with self._changed:
            due = [held for held in self._held if self._renewal(held) <= now and not held.given_up]
        for held in due:
            if self._longest is not None and now - held.came + self._lease > self._longest:
                logger.warning(
                    "a message of %s is kept no longer than max_extension (%g s); others may get it while it runs",
                    held.subscription,
                    self._longest,
                )
                held.given_up = True
            else:
                groups[held.subscription].append(held)
        failed = False
        for subscription, messages in groups.items():
            try:
                self._clients.get().keep(subscription, [held.ack_id for held in messages], self._lease)
            except FAILED as exc:
                logger.warning("the deadlines of %d messages cannot be moved on: %s", len(messages), exc)
                failed = True
                continue
            for held in messages:
                held.since, held.granted = now, self._lease
        return failed
