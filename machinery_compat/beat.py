"""``celery beat`` and ``celery worker -B`` for the periodic workflows of Servers."""

from __future__ import annotations

from typing import Any

from celery import beat

from machinery_compat.periodic import leave_to_beat

__all__ = ["Scheduler"]


class Scheduler(beat.PersistentScheduler):  # type: ignore[misc]
    """Celery's own scheduler, which in addition sends what Servers have registered.

    It is the scheduler of every application of this package; ``-S machinery`` names it, too. What stands in
    ``beat_schedule`` is sent as ever, without a lock, so there should be one celery beat. What Servers have registered
    is sent under Machinery's lock, so for that there may be several.
    """

    def setup_schedule(self) -> None:
        super().setup_schedule()
        leave_to_beat(self.app)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Sends what is due; returns the seconds to the next call."""
        wait: float = super().tick(*args, **kwargs)
        machinery = getattr(self.app, "machinery", None)
        return min([wait, *(periodic.tick() for periodic in machinery.periodic)]) if machinery else wait
