"""The recorded cron specs: what robfig/cron v3.0.1 made of them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from machinery_compat import cron
from machinery_compat.errors import CronError
from machinery_compat.wire import ZERO_TIME
from machinery_compat.wire.gotime import to_datetime
from tests.unit.test_vectors import FOLDER, identified, load

pytestmark = pytest.mark.vectors

VECTORS = load("cron_vectors.jsonl")


def shown(moment: datetime | None) -> str:
    """As Go shows it; never is its zero time."""
    return ZERO_TIME if moment is None else moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_there_are_cron_vectors() -> None:
    assert VECTORS, FOLDER


@pytest.mark.parametrize("vector", identified(VECTORS, lambda vector: vector["spec"] or "empty"))
def test_a_schedule_says_what_go_says(vector: dict[str, Any]) -> None:
    if "error" in vector:
        with pytest.raises(CronError) as caught:
            cron.parse(vector["spec"])
        assert str(caught.value) == vector["error"]
        return
    schedule = cron.parse(vector["spec"])
    moment: datetime | None = to_datetime(vector["now"])
    for expected in vector["next"]:
        assert moment is not None
        moment = schedule.next(moment)
        assert shown(moment) == expected
