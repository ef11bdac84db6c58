"""Schedules: when they come, and that no spec does harm."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery_compat import cron
from machinery_compat.errors import ConfigError, CronError
from machinery_compat.wire.gostrconv import atoi, parse_duration, quoted
from tests.support.cron_specs import broken_specs, moments, specs, zones

UTC = timezone.utc
NEW_YORK = ZoneInfo("America/New_York")


def times(spec: str, after: datetime, count: int = 3) -> list[str]:
    """The next times, as the clock of *after*'s zone shows them."""
    schedule, shown = cron.parse(spec), []
    for _ in range(count):
        following = schedule.next(after)
        assert following is not None
        after = following
        shown.append(after.strftime("%d %H:%M%z"))
    return shown


@given(st.one_of(specs, broken_specs))
def test_a_spec_is_read_or_refused(spec: str) -> None:
    with contextlib.suppress(CronError):
        assert isinstance(cron.parse(spec), cron.Schedule)


@given(specs, moments, zones)
def test_time_goes_on_in_whole_seconds(spec: str, after: datetime, zone: str) -> None:
    schedule = cron.parse(spec)
    after = after.astimezone(ZoneInfo(zone))
    for _ in range(3):
        following = schedule.next(after)
        if following is None:
            return
        assert following.timestamp() > after.timestamp()
        assert following.microsecond == 0
        assert following.tzinfo is after.tzinfo
        after = following


@given(specs, moments)
def test_nothing_lies_between_a_time_and_the_next(spec: str, after: datetime) -> None:
    schedule = cron.parse(spec)
    following = schedule.next(after)
    if following is None or isinstance(schedule, cron.EverySchedule) or following - after > timedelta(days=300):
        return
    between = after + (following - after) / 2
    assert (schedule.next(between) or between) <= following or "TZ=" in spec


def test_a_time_that_the_clock_skips_does_not_happen() -> None:
    after = datetime(2024, 3, 9, 12, tzinfo=NEW_YORK)
    assert times("30 2 * * *", after) == ["11 02:30-0400", "12 02:30-0400", "13 02:30-0400"]


def test_a_time_that_the_clock_repeats_happens_twice() -> None:
    after = datetime(2024, 11, 2, 12, tzinfo=NEW_YORK)
    assert times("30 1 * * *", after) == ["03 01:30-0400", "03 01:30-0500", "04 01:30-0500"]


def test_a_spec_without_a_zone_is_told_in_that_of_the_question_or_in_the_default() -> None:
    after = datetime(2024, 1, 1, tzinfo=NEW_YORK)
    assert cron.parse("0 9 * * *").next(after) == datetime(2024, 1, 1, 9, tzinfo=NEW_YORK)
    assert cron.parse("0 9 * * *", UTC).next(after) == datetime(2024, 1, 1, 9, tzinfo=UTC)
    assert cron.parse("TZ=Asia/Tokyo 0 9 * * *", UTC).next(after) == datetime(2024, 1, 2, 0, tzinfo=UTC)
    assert cron.parse("TZ=Local 0 9 * * *").next(after) == datetime(2024, 1, 1, 9, tzinfo=NEW_YORK)


def test_a_question_without_a_zone_is_in_the_zone_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert cron.parse("TZ=UTC 0 9 * * *").next(datetime(2024, 1, 1)) == datetime(2024, 1, 1, 9, tzinfo=UTC)


def test_the_zone_of_the_process_is_found_as_go_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2024, 7, 1)
    file = next(path for path in map(Path, ("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc")) if path.exists())
    for name, hours in (("Asia/Tokyo", 9), (":America/New_York", -4), ("", 0), ("No/Where", 0)):
        monkeypatch.setenv("TZ", name)
        assert moment.replace(tzinfo=cron.local_zone()).utcoffset() == timedelta(hours=hours)
    monkeypatch.setenv("TZ", str(file / "no such zone"))
    assert cron.local_zone() is UTC
    monkeypatch.delenv("TZ")
    assert moment.replace(tzinfo=cron.local_zone()).utcoffset() is not None


@pytest.mark.parametrize("spec", [", * * * *", "* , * * *", "* * * , *", "* * , * *", "* * 31 4 *", "* * 30 feb ?"])
@pytest.mark.timeout(20)
def test_what_never_comes_is_found_out_soon(spec: str) -> None:
    assert cron.parse(spec).next(datetime(2024, 1, 1, tzinfo=UTC)) is None


def test_a_day_that_the_calendar_skips_does_not_happen() -> None:
    after = datetime(2011, 12, 28, 12, tzinfo=ZoneInfo("Pacific/Apia"))
    assert times("0 5 * * *", after) == ["29 05:00-1000", "31 05:00+1400", "01 05:00+1400"]
    assert times("0 5 30 * *", after, 1) == ["30 05:00+1400"]


@pytest.mark.parametrize("spec", ["* * * * *", "@every 1h", "@every 2540400h"])
def test_there_is_nothing_after_the_last_year(spec: str) -> None:
    assert cron.parse(spec).next(datetime.max.replace(tzinfo=UTC)) is None


@pytest.mark.parametrize(
    "spec", ["@Daily", "@every", "@reboot", "0 0 L * *", "0 0 * * 5#2", "TZ=Mars/Base @daily", "TZ=/etc/x @daily"]
)
def test_what_go_refuses_is_a_configuration_error(spec: str) -> None:
    with pytest.raises(ConfigError):
        cron.parse(spec)


def test_a_duration_is_counted_in_nanoseconds() -> None:
    assert parse_duration("1h30m") == 5400 * 10**9
    assert parse_duration("-1.5s") == -1_500_000_000
    assert parse_duration("+0") == 0
    assert parse_duration("-9223372036854775808ns") == -(2**63)
    for text in ("", "+", "1", "1x", "s", ".s", "9223372036854775808ns", "9" * 5000 + "s", "1s!", "99999999h"):
        with pytest.raises(ValueError, match=r"^time: "):
            parse_duration(text)


def test_integers_and_quotes_are_gos() -> None:
    assert [atoi(text) for text in ("0", "-0", "+7", "-9223372036854775808")] == [0, 0, 7, -(2**63)]
    for text in ("", "+", "1_0", "\u0661", "9223372036854775808", "9" * 5000):
        with pytest.raises(ValueError, match=r"^strconv\.Atoi: "):
            atoi(text)
    assert quoted('a"\\\n\x01\x85é\u200b\U000e0001') == '"a\\"\\\\\\n\\x01\\u0085é\\u200b\\U000e0001"'
