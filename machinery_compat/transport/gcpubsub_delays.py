"""Delayed tasks on Pub/Sub: they wait in ``<default queue>-delayed``, which only Python workers read.

Pub/Sub knows no delays, and a Go worker runs whatever it gets at once. Each Python worker takes from that
subscription. What is due soon it keeps and sends on in time; anything else it gives back, for as long as
Pub/Sub allows, and whoever gets it then looks again.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import count
from time import time, time_ns

from machinery_compat import errors
from machinery_compat.gcpubsub_client import FAILED, FAILURES, LONGEST_DEADLINE, Client, Clients, Received
from machinery_compat.transport import payloads

__all__ = ["Delays", "delayed_name"]

logger = logging.getLogger("machinery_compat.transport")

#: What is due within this time is kept, in seconds.
SOON = 5
#: How much longer a kept message is kept from others, in seconds: if its worker dies, they get it then.
SPARE = 10
#: The most messages that are kept.
KEPT = 1000
#: The most messages that are taken at once.
BATCH = 50
#: After this time in Pub/Sub, which forgets what is older than seven days, a message is sent anew.
REFRESHED = timedelta(days=1)
#: Seconds after which something that failed is tried again; it doubles, up to the second.
PAUSE, LONGEST_PAUSE = 1.0, 30.0


def delayed_name(default_queue: str) -> str:
    """The topic, and its subscription, of an application's delayed tasks."""
    return f"{default_queue}-delayed"


class Delays:
    """Sends delayed tasks on when they are due, in two threads.

    Args:
        clients: makes their clients.
        default_queue: the application's.
        bury: keeps a message that is no Signature, with the reason; whether it could.
        wait: for how long one look waits for messages, in seconds.
    """

    def __init__(
        self, clients: Clients, default_queue: str, bury: Callable[[bytes, str, str], bool], wait: float
    ) -> None:
        self._clients = clients
        self._default_queue = default_queue
        self._name = delayed_name(default_queue)
        self._bury = bury
        self._wait = wait
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        #: What is kept: when it is due (Unix ns), a number, its delivery, its body, its queue.
        self._kept: list[tuple[int, int, str, bytes, str]] = []
        self._numbers = count()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for run in (self._take, self._send):
            thread = threading.Thread(target=run, name=f"machinery-pubsub{run.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Takes no more, and gives back what is kept."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout: float) -> None:
        for thread in self._threads:
            thread.join(timeout)

    # -- taking

    def _take(self) -> None:
        pause, made = PAUSE, False
        while not self._stopped.is_set():
            try:
                client = self._clients.get()
                if not made:
                    client.make_pair(self._name)
                    made = True
                self._sort(client, client.pull(self._name, BATCH, self._wait))
                pause = PAUSE
            except FAILURES as exc:
                # They may be made, or deleted and made again, at any time.
                made = False
                logger.warning("delayed tasks cannot be looked after now: %s", exc)
                self._stopped.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _sort(self, client: Client, messages: list[Received]) -> None:
        for message in messages:
            if self._stopped.is_set():
                client.keep(self._name, [message.ack_id], 0)
                continue
            try:
                signature = payloads.decode(message.body)
            except errors.DecodeError as exc:
                self._unreadable(client, message, exc)
                continue
            due = signature.eta_ns or 0
            left = (due - time_ns()) / 1e9
            queue = signature.routing_key or self._default_queue
            if left <= SOON and len(self._kept) < KEPT:
                client.keep(self._name, [message.ack_id], max(int(left), 0) + SPARE)
                with self._changed:
                    heapq.heappush(self._kept, (due, next(self._numbers), message.ack_id, message.body, queue))
                    self._changed.notify_all()
            elif datetime.now(timezone.utc) - message.published > REFRESHED:
                client.publish(self._name, message.body)
                client.acknowledge(self._name, [message.ack_id])
            else:
                client.keep(self._name, [message.ack_id], min(max(int(left) - SOON + 1, 1), LONGEST_DEADLINE))

    def _unreadable(self, client: Client, message: Received, exc: errors.DecodeError) -> None:
        if self._bury(message.body, payloads.unreadable_delayed(exc), self._default_queue):
            client.acknowledge(self._name, [message.ack_id])
        else:
            client.keep(self._name, [message.ack_id], LONGEST_DEADLINE)

    # -- sending

    def _send(self) -> None:
        while True:
            with self._changed:
                while not self._stopped.is_set() and not self._is_due():
                    # Meanwhile one may come that is due before.
                    self._changed.wait(self._until_due())
                if self._stopped.is_set():
                    break
                entry = heapq.heappop(self._kept)
            self._send_on(entry)
        self._give_back()

    def _is_due(self) -> bool:
        return bool(self._kept) and self._kept[0][0] <= time_ns()

    def _until_due(self) -> float | None:
        return max(self._kept[0][0] / 1e9 - time(), 0.001) if self._kept else None

    def _send_on(self, entry: tuple[int, int, str, bytes, str]) -> None:
        _, _, ack_id, body, queue = entry
        try:
            client = self._clients.get()
            client.publish(queue, body)
            # In this order a crash leaves it twice, never not at all.
            client.acknowledge(self._name, [ack_id])
        except FAILURES as exc:
            # It comes again by itself.
            logger.warning("a delayed task cannot be sent to %s now: %s", queue, exc)

    def _give_back(self) -> None:
        with self._changed:
            kept, self._kept = self._kept, []
        if kept:
            try:
                self._clients.get().keep(self._name, [entry[2] for entry in kept], 0)
            except FAILED as exc:
                logger.warning("%d delayed tasks come back to other workers later: %s", len(kept), exc)
