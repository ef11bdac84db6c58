"""Workflows that are sent again and again; Go's ``RegisterPeriodicTask`` and its siblings.

Every process that registers a workflow sends it at each time of its spec, unless another one has taken the lock of
that tick. The lock's key is made of program name, name and spec, so Go and Python processes that agree on these three,
and on the server of the lock, send once a tick together.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from celery import signals

from machinery_compat import cron, errors
from machinery_compat.wire import Chain, Chord, Group, Signature, outgoing
from machinery_compat.wire.trees import tree_of

if TYPE_CHECKING:
    from machinery_compat.server import Server

__all__ = ["LOCK_PREFIX", "Periodic", "leave_to_beat"]

#: How the key of each lock begins.
LOCK_PREFIX: Final = "machinery_lock_"
#: Seconds after which the clock is looked at again, in case that it was set.
LONGEST_WAIT: Final = 60.0
#: How often one workflow may be on its way to the broker at the same time.
MOST_AT_ONCE: Final = 10
#: Seconds for which ``stop`` waits for what is on its way.
STOP_TIMEOUT: Final = 20.0
#: Seconds for which a workflow that comes only once more holds its lock.
LAST_LOCK: Final = 3600
_NANOSECONDS: Final = 1_000_000_000

logger = logging.getLogger("machinery_compat.periodic")


@dataclass
class _Entry:
    """A registered workflow.

    Attributes:
        due: Unix seconds of its next time, None for never.
        places: how often it may be on its way.
    """

    spec: str
    name: str
    schedule: cron.Schedule
    send: Callable[[], object]
    due: int | None = None
    places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MOST_AT_ONCE))


class Periodic:
    """The periodic workflows of a Server; its attribute ``server.periodic``.

    As in Go they are sent from the process that registers them, here by a thread that the first one starts; unless it
    is left to ``celery beat``.

    Args:
        server: sends them, and has the lock.
        program_name: the first part of the lock's key; None is the setting ``machinery_program_name``, or else the file
            name of the program, as in Go.
        run: whether this process sends them; if not, only celery beat does.
    """

    def __init__(self, server: Server, program_name: str | None = None, run: bool = True) -> None:
        self._server = server
        self._program_name = program_name
        self._run_here = run
        self._zone = cron.local_zone()
        self._entries: list[_Entry] = []
        self._under_way: set[threading.Thread] = set()
        self._stopped = self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        server.app.machinery.periodic.append(self)
        signals.celeryd_init.connect(_with_beat_inside, dispatch_uid="machinery_compat.periodic")

    @property
    def program_name(self) -> str:
        """The first part of the lock's key."""
        chosen = self._program_name or self._server.app.conf.get("machinery_program_name")
        return str(chosen or os.path.basename(sys.argv[0]))

    def lock_name(self, name: str, spec: str) -> str:
        """The key of the lock of a workflow; mirrors Go's ``utils.GetLockName``."""
        return f"{LOCK_PREFIX}{self.program_name}{name}{spec}"

    # -- registering

    def add_task(self, spec: str, name: str, signature: Signature) -> None:
        """Sends a task at the times of *spec*; see :meth:`Server.register_periodic_task`."""
        self._add(spec, name, [signature], lambda: self._server.send_task(_fresh(signature)))

    def add_chain(self, spec: str, name: str, signatures: tuple[Signature, ...]) -> None:
        """Sends a chain; see :meth:`Server.register_periodic_chain`."""
        self._add(spec, name, signatures, lambda: self._server.send_chain(Chain(*map(_fresh, signatures))))

    def add_group(self, spec: str, name: str, concurrency: int, signatures: tuple[Signature, ...]) -> None:
        """Sends a group; see :meth:`Server.register_periodic_group`."""
        self._add(spec, name, signatures, lambda: self._server.send_group(Group(*map(_fresh, signatures)), concurrency))

    def add_chord(
        self, spec: str, name: str, concurrency: int, callback: Signature, signatures: tuple[Signature, ...]
    ) -> None:
        """Sends a chord; see :meth:`Server.register_periodic_chord`."""

        def send() -> object:
            chord = Chord(Group(*map(_fresh, signatures)), _fresh(callback))
            return self._server.send_chord(chord, concurrency)

        outgoing.check(_fresh(callback))
        self._add(spec, name, signatures, send)

    def _add(self, spec: str, name: str, signatures: Iterable[Signature], send: Callable[[], object]) -> None:
        schedule = cron.parse(spec)
        if not signatures:
            raise errors.ConfigError(f"the periodic workflow {name} has no tasks")
        for signature in signatures:
            outgoing.check(_fresh(signature))
        if any((entry.spec, entry.name) == (spec, name) for entry in self._entries):
            logger.warning("two periodic workflows %s at %s have one lock: only one of them is sent", name, spec)
        entry = _Entry(spec, name, schedule, send)
        entry.due = self._next(entry, time.time())
        self._entries.append(entry)
        if self._run_here and not self._server.app.machinery.beat:
            self.start()

    # -- running

    def start(self) -> None:
        """Starts the thread that sends; registering does it. Once it runs, a second call does nothing."""
        if self._thread is not None:
            self._wake.set()  # there may be something earlier to wait for
            return
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._wake, self._stopped), name="machinery-periodic", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Sends nothing more until :meth:`start`, and waits for what is on its way to the broker.

        Args:
            timeout: seconds to wait.
        """
        deadline = time.monotonic() + timeout
        thread, self._thread = self._thread, None
        # In a process that was forked the thread is gone, and its events may be locked for ever.
        if thread is not None and thread.is_alive():
            self._stopped.set()
            self._wake.set()
            thread.join(timeout)
        for sending in list(self._under_way):
            sending.join(max(deadline - time.monotonic(), 0))

    def tick(self) -> float:
        """Sends what is due, each in a thread of its own.

        Returns:
            the seconds to wait before the next call.
        """
        earliest = time.time() + LONGEST_WAIT
        for entry in list(self._entries):
            now = time.time()
            if entry.due is not None and entry.due <= now:
                self._begin(entry)
                # Times that were missed are not made up for.
                entry.due = self._next(entry, now)
            if entry.due is not None:
                earliest = min(earliest, entry.due)
        return max(earliest - time.time(), 0)

    def _run(self, wake: threading.Event, stopped: threading.Event) -> None:
        while not stopped.is_set():
            wake.clear()
            wake.wait(self.tick())

    def _next(self, entry: _Entry, now: float) -> int | None:
        following = entry.schedule.next(datetime.fromtimestamp(now, self._zone))
        return None if following is None else int(following.timestamp())

    def _begin(self, entry: _Entry) -> None:
        if not entry.places.acquire(blocking=False):
            logger.warning(
                "periodic task %s is not sent: it is still being sent for %d earlier times", entry.name, MOST_AT_ONCE
            )
            return
        thread = threading.Thread(target=self._send, args=(entry,), name=f"machinery-{entry.name}", daemon=True)
        self._under_way.add(thread)
        thread.start()

    def _send(self, entry: _Entry) -> None:
        try:
            if self._locked(entry):
                entry.send()
        except Exception:
            logger.exception("periodic task failed. task name is: %s", entry.name)
        finally:
            entry.places.release()
            self._under_way.discard(threading.current_thread())

    def _locked(self, entry: _Entry) -> bool:
        """Takes the lock of this tick, which ends with the next one; False when another process has it."""
        now = time.time()
        until = self._next(entry, now) or int(now) + LAST_LOCK
        try:
            self._server.lock.lock_with_retries(self.lock_name(entry.name, entry.spec), until * _NANOSECONDS - 1)
        except errors.LockError as error:
            if error.__cause__ is not None:
                logger.error("periodic task %s is not sent: %s: %s", entry.name, error, error.__cause__)
            return False
        return True


def _fresh(signature: Signature) -> Signature:
    """A copy to be sent: it and its callbacks have no UUID yet, and no ETA, which Go's copies lose too."""
    made = signature.copy()
    for one in tree_of(made):
        one.uuid = ""
        one.eta = None
    return made


def leave_to_beat(app: Any) -> None:
    """Lets celery beat send what the Servers of an application have registered, and will register."""
    machinery = getattr(app, "machinery", None)
    if machinery is not None:
        machinery.beat = True
        for periodic in machinery.periodic:
            periodic.stop()


def _with_beat_inside(instance: Any = None, options: Any = None, **kwargs: Any) -> None:
    """``celery worker -B`` sends from a process of its own, so the worker's must not."""
    if options and options.get("beat"):
        leave_to_beat(instance.app)
