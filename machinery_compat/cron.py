"""Cron specs as Machinery reads them: ``ParseStandard`` of Go's robfig/cron v3.0.1.

Five fields (minute, hour, day of month, month, day of week), the descriptors ``@yearly`` ``@annually`` ``@monthly``
``@weekly`` ``@daily`` ``@midnight`` ``@hourly`` and ``@every <Go duration>``, all after an optional ``TZ=<zone>`` or
``CRON_TZ=<zone>``.

Why no library from PyPI does this: a Go process and a Python process that share a periodic task must agree on every
tick, or both send. Of the recorded specs cronsim 2.8 reads 4 in 29 as Go does and croniter 7.0 reads 7. They know
neither ``@every`` nor ``TZ=``, accept what Go refuses (``7`` for Sunday, six fields, ``5-1``), take ``*/2`` for an
unrestricted day, and run a time that the clock skips an hour late, where Go leaves it out. What would remain of a
library is the walk through the calendar, and there Go has habits of its own wherever a clock is turned.
"""

from __future__ import annotations

import functools
import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from machinery_compat.errors import CronError
from machinery_compat.wire.gostrconv import atoi, parse_duration

__all__ = ["CronSchedule", "EverySchedule", "Schedule", "local_zone", "parse"]

_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_NANOSECONDS: Final = 1_000_000_000
#: Years after which a schedule that has not matched never will.
_YEARS: Final = 5

# What Go's unicode.IsSpace knows; str.split() also splits at U+001C to U+001F.
_SPACE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_BLANKS = re.compile(f"[{_SPACE}]+")
_ZONE_PREFIX = re.compile(r"(?:CRON_)?TZ=")

_DESCRIPTORS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY: Final = "@every "


@dataclass(frozen=True)
class _Bounds:
    """What a field may hold."""

    lowest: int
    highest: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        """A number or a name; mirrors robfig/cron's ``parseIntOrName``."""
        # Go lowers U+0130 to a plain i.
        name = text.replace("\u0130", "i").lower()
        return self.names.index(name) + self.lowest if name in self.names else _number(text)


_MINUTES: Final = _Bounds(0, 59)
_HOURS: Final = _Bounds(0, 23)
_DAYS: Final = _Bounds(1, 31)
_MONTHS: Final = _Bounds(1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"))
_WEEKDAYS: Final = _Bounds(0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"))


@dataclass(frozen=True)
class _Field:
    """The values that match, and whether a ``*`` or ``?`` says that the field does not restrict anything."""

    values: frozenset[int]
    star: bool

    def __contains__(self, value: int) -> bool:
        return value in self.values


class Schedule(ABC):
    """When something is to happen; mirrors robfig/cron's ``Schedule``."""

    @abstractmethod
    def next(self, after: datetime) -> datetime | None:
        """The first time later than *after*, on a whole second and in the zone of *after*; None if there is none.

        A datetime without a zone is taken for one in the process's zone. Go's schedules work in nanoseconds, but
        only look at the whole second of *after*, so a datetime's microseconds lose nothing.
        """


@dataclass(frozen=True)
class EverySchedule(Schedule):
    """``@every``: mirrors robfig/cron's ``ConstantDelaySchedule``.

    Attributes:
        delay: whole seconds between two times, at least one.
    """

    delay: timedelta

    def next(self, after: datetime) -> datetime | None:
        after = _aware(after)
        try:
            following = after.replace(microsecond=0).astimezone(timezone.utc) + self.delay
            return following.astimezone(after.tzinfo)
        except (OverflowError, ValueError):  # beyond the year 9999
            return None


@dataclass(frozen=True)
class CronSchedule(Schedule):
    """Five fields; mirrors robfig/cron's ``SpecSchedule``.

    A day matches when both its fields do, or either if neither has a star. A time that the zone's clock skips does
    not happen, a time that it repeats happens twice.

    Attributes:
        zone: where the fields are told; None is the zone of the time that ``next`` is asked about.
    """

    minute: _Field
    hour: _Field
    day: _Field
    month: _Field
    weekday: _Field
    zone: tzinfo | None = None

    def next(self, after: datetime) -> datetime | None:
        after = _aware(after)
        if not (self.minute.values and self.hour.values and self.month.values):
            return None  # a field such as "," matches nothing, and the search would take long to find out
        try:
            found = self._search(_Clock(after, self.zone or after.tzinfo or timezone.utc))
            return found and found.astimezone(after.tzinfo)
        except (OverflowError, ValueError):  # beyond the year 9999
            return None

    def _search(self, clock: _Clock) -> datetime | None:
        """Goes forward field by field; whenever a field wraps round, all before it are looked at again."""
        last_year = clock.wall.year + _YEARS
        while clock.wall.year <= last_year:
            steps = (self._find_month, self._find_day, self._find_hour, self._find_minute, self._find_second)
            if all(find(clock) for find in steps):
                return clock.wall
        return None

    def _find_month(self, clock: _Clock) -> bool:
        while clock.wall.month not in self.month:
            clock.cut(day=1, hour=0, minute=0)
            clock.turn(months=1)
            if clock.wall.month == 1:
                return False
        return True

    def _find_day(self, clock: _Clock) -> bool:
        while not self._is_day(clock.wall):
            clock.cut(hour=0, minute=0)
            before = clock.wall
            clock.turn(days=1)
            # Where the clock is turned at midnight the day may seem to begin at 1:00, or at 23:00 of the day before.
            hour = clock.wall.hour
            if hour:
                clock.forward(_HOUR * (24 - hour if hour > 12 else -hour))
            # Where a whole day was skipped (Samoa, 2011-12-30) Go searches for ever.
            if clock.wall.timestamp() <= before.timestamp():
                clock.forward(_HOUR * 24)
            if clock.wall.day == 1:
                return False
        return True

    def _find_hour(self, clock: _Clock) -> bool:
        while clock.wall.hour not in self.hour:
            clock.cut(minute=0)
            clock.forward(_HOUR)
            if clock.wall.hour == 0:
                return False
        return True

    def _find_minute(self, clock: _Clock) -> bool:
        while clock.wall.minute not in self.minute:
            clock.cut_below(_MINUTE)
            clock.forward(_MINUTE)
            if clock.wall.minute == 0:
                return False
        return True

    def _find_second(self, clock: _Clock) -> bool:
        """No spec tells the second: it is always 0."""
        while clock.wall.second:
            clock.cut_below(_SECOND)
            clock.forward(_SECOND)
            if clock.wall.second == 0:
                return False
        return True

    def _is_day(self, wall: datetime) -> bool:
        by_day, by_weekday = wall.day in self.day, wall.isoweekday() % 7 in self.weekday
        if self.day.star or self.weekday.star:
            return by_day and by_weekday
        return by_day or by_weekday


class _Clock:
    """A point in time on its way, with the arithmetic of Go's time package: in real time, or on the wall clock."""

    def __init__(self, after: datetime, zone: tzinfo) -> None:
        self.zone = zone
        self.wall = after.astimezone(zone)
        self._cut = False
        self.forward(_SECOND - timedelta(microseconds=self.wall.microsecond))

    def forward(self, span: timedelta) -> None:
        """So much later in real time; Go's ``Add``."""
        self.wall = (self.wall.astimezone(timezone.utc) + span).astimezone(self.zone)

    def turn(self, months: int = 0, days: int = 0) -> None:
        """The same wall clock so many months and days later; Go's ``AddDate``, which lets 31 April be 1 May."""
        year, month = divmod(self.wall.year * 12 + self.wall.month - 1 + months, 12)
        first = self.wall.replace(year=year, month=month + 1, day=1, tzinfo=None)
        self._set(first + timedelta(days=self.wall.day - 1 + days))

    def cut(self, **parts: int) -> None:
        """Goes back to the beginning of a field, the first time that any is changed."""
        if not self._cut:
            self._cut = True
            self._set(self.wall.replace(**parts, second=0, tzinfo=None))

    def cut_below(self, unit: timedelta) -> None:
        """Goes back to a whole minute or second of UTC, the first time that any field is changed."""
        if not self._cut:
            self._cut = True
            self.forward(-(timedelta(seconds=self.wall.astimezone(timezone.utc).second) % unit))

    def _set(self, naive: datetime) -> None:
        """Go's ``Date``: how it reads a wall clock that exists twice or not at all is decided by two looks."""
        as_utc = naive.replace(tzinfo=timezone.utc)
        guess = as_utc - _offset(as_utc, self.zone)
        self.wall = (as_utc - _offset(guess, self.zone)).astimezone(self.zone)


def _offset(utc: datetime, zone: tzinfo) -> timedelta:
    return utc.astimezone(zone).utcoffset() or timedelta()


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=local_zone())


def parse(spec: str, default_zone: tzinfo | None = None) -> Schedule:
    """Reads a spec; mirrors robfig/cron's ``ParseStandard``.

    Args:
        spec: five fields or a descriptor, with or without ``TZ=``.
        default_zone: the zone of a spec that names none; None is, as in Go, that of the time asked about.

    Raises:
        CronError: no such spec, or no such zone; the text is Go's.
    """
    if not spec:
        raise CronError("empty spec string")
    zone = default_zone
    prefix = _ZONE_PREFIX.match(spec)
    if prefix:
        name, blank, rest = spec[prefix.end() :].partition(" ")
        if not blank:
            raise CronError("panic: runtime error: slice bounds out of range [:-1]")  # Go's whole process ends
        zone = _load_zone(name, default_zone)
        spec = rest.strip(_blank_characters())
    if spec.startswith(_EVERY):
        return _every(spec)
    if spec.startswith("@") and spec not in _DESCRIPTORS:
        raise CronError(f"unrecognized descriptor: {spec}")
    fields = [field for field in _BLANKS.split(_DESCRIPTORS.get(spec, spec)) if field]
    if len(fields) != 5:
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    bounds = (_MINUTES, _HOURS, _DAYS, _MONTHS, _WEEKDAYS)
    minute, hour, day, month, weekday = (_field(text, bound) for text, bound in zip(fields, bounds, strict=True))
    return CronSchedule(minute, hour, day, month, weekday, zone)


@functools.lru_cache(maxsize=1)
def _blank_characters() -> str:
    return "".join(character for character in map(chr, range(0x3001)) if _BLANKS.match(character))


def _every(spec: str) -> EverySchedule:
    try:
        nanoseconds = parse_duration(spec.removeprefix(_EVERY))
    except ValueError as error:
        raise CronError(f"failed to parse duration {spec}: {error}") from None
    return EverySchedule(_SECOND * max(nanoseconds // _NANOSECONDS, 1))


def _field(text: str, bounds: _Bounds) -> _Field:
    """A list of ranges; mirrors robfig/cron's ``getField``. Empty elements do not count."""
    values: set[int] = set()
    star = False
    for expression in text.split(","):
        if expression:
            matching, is_star = _range(expression, bounds)
            values.update(matching)
            star = star or is_star
    return _Field(frozenset(values), star)


def _range(expression: str, bounds: _Bounds) -> tuple[range, bool]:
    """``N``, ``N-M`` or ``*``, each with or without ``/step``; mirrors robfig/cron's ``getRange``."""
    span, *steps = expression.split("/")
    low, *highs = span.split("-")
    star = low in ("*", "?")
    if star:  # what comes after its hyphen is not even read
        start, end = bounds.lowest, bounds.highest
    else:
        start = end = bounds.number(low)
        if len(highs) > 1:
            raise CronError(f"too many hyphens: {expression}")
        if highs:
            end = bounds.number(highs[0])
    if len(steps) > 1:
        raise CronError(f"too many slashes: {expression}")
    step = _number(steps[0]) if steps else 1
    if steps and not highs:
        end = bounds.highest
    if start < bounds.lowest:
        raise CronError(f"beginning of range ({start}) below minimum ({bounds.lowest}): {expression}")
    if end > bounds.highest:
        raise CronError(f"end of range ({end}) above maximum ({bounds.highest}): {expression}")
    if start > end:
        raise CronError(f"beginning of range ({start}) beyond end of range ({end}): {expression}")
    if step == 0:
        raise CronError(f"step of range should be a positive number: {expression}")
    return range(start, end + 1, step), star and step == 1


def _number(text: str) -> int:
    """A natural number; mirrors robfig/cron's ``mustParseInt``."""
    try:
        number = atoi(text)
    except ValueError as error:
        raise CronError(f"failed to parse int from {text}: {error}") from None
    if number < 0:
        raise CronError(f"negative number ({number}) not allowed: {text}")
    return number


def _load_zone(name: str, default: tzinfo | None) -> tzinfo | None:
    """A zone by its name; mirrors Go's ``time.LoadLocation``."""
    if name in ("", "UTC"):
        return timezone.utc
    if name == "Local":
        return default
    if ".." in name or name[0] in "/\\":
        raise CronError(f"provided bad location {name}: time: invalid location name")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, RecursionError):
        # A name of many parts is looked for as a package, part by part.
        raise CronError(f"provided bad location {name}: unknown time zone {name}") from None


def local_zone() -> tzinfo:
    """The process's zone with its rules, found as Go finds ``time.Local``: TZ, then /etc/localtime, then UTC."""
    name = os.environ.get("TZ")
    path = "/etc/localtime" if name is None else name.removeprefix(":")
    try:
        if path.startswith("/"):
            with open(path, "rb") as file:
                return ZoneInfo.from_file(file, key=None)
        return ZoneInfo(path) if path else timezone.utc
    except (KeyError, ValueError, OSError):
        return timezone.utc
