"""The tasks that scenarios send."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from celery import chord

from machinery_compat import Chord, Group, Server, new_signature
from tests.fault.harness.app import GATHER, OURS, WORK
from tests.fault.harness.run import LONG, Run

#: How many members a chord has.
CHORD = 10
#: How much longer than the lease a long task is.
TIMES_LEASE = 10
#: How many tasks are sent in a second at the least.
SENT_A_SECOND = 500


def mixed(run: Run, count: int) -> None:
    """Short tasks, with a long one among them now and then."""
    run.send(count)


def full(run: Run, count: int) -> None:
    """Tasks of two seconds, as many as a worker runs at once."""
    _work(run, min(count, run.concurrency), 2000)


def long(run: Run, count: int) -> None:
    """Tasks that are ten times as long as the lease, twice as many as are run at once."""
    _work(run, min(count, 2 * run.concurrency * len(run.workers)), int(run.plan.lease * TIMES_LEASE * 1000))


def _work(run: Run, count: int, milliseconds: int) -> None:
    task = run.site.app.tasks[WORK]
    run.uuids += [task.apply_async((milliseconds,)).id for _ in range(count)]


def delayed(run: Run, count: int) -> None:
    """Tasks that become due together, when all have been sent."""
    run.due = time.time() + 2 + count / SENT_A_SECOND
    run.send(count, eta=datetime.fromtimestamp(run.due, timezone.utc))


def chords(run: Run, count: int) -> None:
    """Chords; their members and their callbacks count."""
    send = _machinery_chord if run.site.system == OURS else _celery_chord
    run.send_each(lambda _: send(run.site.app), range(count // (CHORD + 1)))


def _machinery_chord(app: Any) -> list[str]:
    members = [new_signature(WORK, LONG // CHORD) for _ in range(CHORD)]
    callback = new_signature(GATHER)
    Server(app=app).send_chord(Chord(Group(*members), callback))
    return [callback.uuid, *(member.uuid for member in members)]


def _celery_chord(app: Any) -> list[str]:
    work, gather = app.tasks[WORK], app.tasks[GATHER]
    result = chord([work.s(LONG // CHORD) for _ in range(CHORD)])(gather.s())
    return [result.id, *(member.id for member in result.parent.results)]


def shared(run: Run, count: int) -> None:
    """Tasks that workers of both languages have."""
    run.send_each(lambda n: [run.site.app.send_task("add", [n, 1]).id], range(count))
