"""How messages come from Pub/Sub into a worker's event loop: a thread a subscription takes them when it is asked to."""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from machinery_compat.gcpubsub_client import FAILURES
from machinery_compat.transport.gcpubsub_keeper import Held
from machinery_compat.wire import Signature

if TYPE_CHECKING:
    from machinery_compat.transport.gcpubsub import Channel

__all__ = ["Arrived", "Inbox", "Puller"]

logger = logging.getLogger("machinery_compat.transport")

#: The most messages that are taken at once.
BATCH = 100
#: Seconds after which something that failed is tried again; it doubles, up to the second.
PAUSE, LONGEST_PAUSE = 1.0, 30.0


@dataclass(eq=False, slots=True)
class Arrived:
    """A message that this worker has taken.

    Attributes:
        held: keeps it from others.
        queue: where it came from.
        body: its bytes.
        attempt: which delivery it is, from 1; 0 where Pub/Sub does not count.
        signature: what it says, as soon as it is read.
    """

    held: Held
    queue: str
    body: bytes
    attempt: int
    signature: Signature | None = None


class Inbox:
    """What has come, behind a socket that an event loop can watch."""

    def __init__(self) -> None:
        self._batches: deque[tuple[Puller, list[Arrived]]] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def put(self, puller: Puller, batch: list[Arrived]) -> None:
        """Called by the threads, with an empty batch too: the next one may be asked for."""
        self._batches.append((puller, batch))
        # It is full, and so readable; or closed, and then the messages come back by themselves.
        with suppress(OSError):
            self._writer.send(b"\0")

    def wait(self, timeout: float | None) -> bool:
        """Waits in place of an event loop; whether something came."""
        self._reader.settimeout(timeout)
        try:
            return bool(self._batches) or bool(self._reader.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return False
        finally:
            self._reader.setblocking(False)

    def take(self) -> tuple[Puller, list[Arrived]] | None:
        """The next batch; None when there is none, until the socket becomes readable again."""
        if not self._batches:
            with suppress(BlockingIOError):
                while self._reader.recv(4096):
                    pass
        # One may have come just now, whose sign was among those read.
        return self._batches.popleft() if self._batches else None

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class Puller:
    """Takes messages from one subscription, as many as it is asked for, and then waits to be asked again.

    Args:
        channel: the channel that consumes.
        queue: the queue.
        subscription: its subscription.
        deadline: for how long Pub/Sub keeps from others what it gives out, in seconds.
        wait: for how long one look waits for messages, in seconds.
    """

    def __init__(self, channel: Channel, queue: str, subscription: str, deadline: int, wait: float) -> None:
        self.channel = channel
        self.queue = queue
        self.subscription = subscription
        self._deadline = deadline
        self._wait = wait
        self._inbox = channel.inbox
        self._wanted = 0
        self._busy = False
        self._asked = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"machinery-pubsub-{subscription}", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def idle(self) -> bool:
        """Whether it waits to be asked, and all that it has taken is delivered."""
        return not self._busy

    def ask(self, count: int) -> None:
        """Takes that many messages at most, in its thread."""
        with self._asked:
            self._wanted, self._busy = min(count, BATCH), True
            self._asked.notify()

    def delivered(self) -> None:
        """Called when the messages that it was asked for are dealt with."""
        self._busy = False

    def stop(self) -> None:
        """Takes nothing more; what still comes goes back at once."""
        with self._asked:
            self._stopped = True
            self._asked.notify()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def pull(self, count: int, wait: float) -> list[Arrived]:
        """Takes messages, in the calling thread.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: or another of FAILED.
        """
        clients, keeper = self.channel.clients, self.channel.keeper
        received = clients.get().pull(self.subscription, count, wait)
        # Its deadline has begun when it was given out, which was about now.
        now = monotonic()
        batch = [
            Arrived(Held(self.subscription, one.ack_id, one.message_id, self._deadline, now), self.queue, *one[2:4])
            for one in received
        ]
        keeper.hold(one.held for one in batch)
        return batch

    def _run(self) -> None:
        pause = PAUSE
        while True:
            with self._asked:
                self._asked.wait_for(lambda: self._wanted or self._stopped)
                if self._stopped:
                    return
                wanted, self._wanted = self._wanted, 0
            batch: list[Arrived] = []
            try:
                batch = self.pull(wanted, self._wait)
                pause = PAUSE
            except FAILURES as exc:
                logger.warning("nothing can be taken from the subscription %s now: %s", self.subscription, exc)
                with self._asked:
                    self._asked.wait_for(lambda: self._stopped, pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            if self._stopped:
                for one in batch:
                    self.channel.keeper.give_back(one.held)
                return
            self._inbox.put(self, batch)
