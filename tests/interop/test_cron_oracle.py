"""Our schedules against robfig/cron itself, spec by spec and time by time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings

from machinery_compat import cron
from machinery_compat.errors import CronError
from tests.conftest import _missing
from tests.support import golang
from tests.support.cron_specs import broken_specs, moments, specs, zones
from tests.support.processes import Unavailable

pytestmark = [pytest.mark.go, pytest.mark.timeout(600)]

# The running program is shared, and no example changes it.
thorough = settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
COUNT = 4


class CronOracle:
    """The running Go program."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([golang.build("./cmd/cron")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]
        self._stdout: IO[bytes] = self.process.stdout  # type: ignore[assignment]

    def ask(self, spec: str, now: datetime, zone: str) -> dict[str, Any]:
        request = {"spec": spec, "now": now.isoformat(), "zone": zone, "count": COUNT}
        self._stdin.write(json.dumps(request).encode() + b"\n")
        self._stdin.flush()
        answer: dict[str, Any] = json.loads(self._stdout.readline())
        return answer

    def close(self) -> None:
        self._stdin.close()
        self.process.wait(10)
        self._stdout.close()


@pytest.fixture(scope="module")
def oracle() -> Iterator[CronOracle]:
    try:
        running = CronOracle()
    except Unavailable as error:
        _missing(error)
    yield running
    running.close()


def ours(spec: str, now: datetime, zone: str) -> dict[str, Any]:
    """Our answer in the oracle's words."""
    try:
        schedule = cron.parse(spec)
    except CronError as error:
        return {"next": [], "error": str(error)}
    found: list[int] = []
    moment: datetime | None = now.astimezone(ZoneInfo(zone))
    while moment is not None and len(found) < COUNT:
        moment = schedule.next(moment)
        if moment is not None:
            found.append(int(moment.timestamp()))
    return {"next": found, "error": ""}


@thorough
@given(specs, moments, zones)
@example("TZ=America/Sao_Paulo 0 0 5 11 *", datetime.fromisoformat("2018-11-01T00:00:00+00:00"), "UTC")
@example("*/20 * * * *", datetime.fromisoformat("2024-10-05T14:50:00+00:00"), "Australia/Lord_Howe")
@example("@weekly", datetime.fromisoformat("2010-03-14T03:30:58+00:00"), "America/St_Johns")
def test_our_schedules_come_when_gos_come(oracle: CronOracle, spec: str, now: datetime, zone: str) -> None:
    assert ours(spec, now, zone) == oracle.ask(spec, now, zone)


@thorough
@given(broken_specs, moments)
def test_we_refuse_a_spec_in_the_words_of_go(oracle: CronOracle, spec: str, now: datetime) -> None:
    if not spec.isprintable() and any("\ud800" <= character <= "\udfff" for character in spec):
        return  # no text in Go
    answer = oracle.ask(spec, now, "UTC")
    mine = ours(spec, now, "UTC")
    if "bad location" in answer["error"]:
        assert "bad location" in mine["error"]  # the reason is the file system's
    else:
        assert mine == answer
