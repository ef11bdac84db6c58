"""Finds chords whose callback nobody sent: their workers died between the flag and the sending, or were Go's.

Go loses a chord's callback when the last member to end has failed (it looks at chords after a
success only), when any member has failed, and when it dies after it has set the flag. A chord that
a Python process has sent, or of which a Python worker has seen a member, is remembered in the
result store until its callback has been sent. Each worker looks at those from time to time.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import bootsteps

from machinery_compat import errors
from machinery_compat.backends.base import Backend
from machinery_compat.backends.store import Watched
from machinery_compat.wire import Signature

__all__ = ["ChordWatch", "look"]

logger = logging.getLogger("machinery_compat.watchdog")


class ChordWatch(bootsteps.StartStopStep):  # type: ignore[misc]
    """Looks after chords in a worker; a bootstep of Celery's consumer.

    It has a thread of its own: it may have to wait for Go's lock of chords, which a dead process holds for 8 s, and for
    a store or a broker that is away, and the worker's connections need their event loop meanwhile.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._ended = threading.Event()

    def start(self, parent: Any) -> None:
        backend = parent.app.backend
        if isinstance(backend, Backend) and backend.watch_interval > 0:
            self._ended = threading.Event()
            watch = (parent.app, backend.watch_interval, self._ended)
            threading.Thread(target=_watch, args=watch, name="chord-watch", daemon=True).start()

    def stop(self, parent: Any) -> None:
        self._ended.set()


def _watch(app: Any, interval: float, ended: threading.Event) -> None:
    while not ended.wait(interval):
        try:
            look(app)
        except Exception:
            logger.exception("chords cannot be looked after now")


def look(app: Any) -> None:
    """Sends the callbacks of chords that are complete and whose callback nobody has sent.

    Args:
        app: the application.
    """
    backend = app.backend
    try:
        for watched in backend.overdue_chords():
            try:
                _look_at(app, watched)
            except errors.DecodeError as exc:
                logger.warning("the chord of group %s is watched no longer: %s", watched.group_uuid, exc)
                backend.unwatch_chord(watched.group_uuid)
    except (errors.MachineryError, *backend.connection_errors) as exc:
        logger.warning("chords cannot be looked after now: %s", exc)


def _look_at(app: Any, watched: Watched) -> None:
    backend, workflow = app.backend, app.machinery.workflow
    uuid = watched.group_uuid
    callback = Signature.decode(watched.callback)
    try:
        meta = backend.known_group(uuid)
        count = len(meta.task_uuids or ())
        if not backend.group_completed(uuid, count):
            return
    except errors.BackendError as exc:
        if backend.exception_safe_to_retry(exc):
            raise  # nothing is known of it now
        # Its documents have expired, and with them whoever could have waited.
        logger.warning("the chord of group %s is watched no longer: %s", uuid, exc)
        backend.unwatch_chord(uuid)
        return
    if not meta.chord_triggered:
        logger.warning("group %s is complete and nobody has sent its callback: sending it", uuid)
        workflow.check_group(uuid, count, callback)
    elif not watched.suspected:
        # A worker may be about to send it, and may have said so since this look began.
        backend.suspect_chord(uuid)
    elif not watched.began and backend.task_state(callback.uuid) is not None:
        # A worker of Go's has sent it.
        backend.unwatch_chord(uuid)
    else:
        logger.warning("the callback of group %s was not sent by the worker that should have: sending it", uuid)
        workflow.complete_chord(uuid, callback)
