"""Time as Machinery writes it: RFC 3339 text with up to nine fraction digits, trailing zeros trimmed."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone
from typing import Final

from machinery_compat.errors import DecodeError, EncodeError

__all__ = [
    "CANONICAL_TIME",
    "ZERO_TIME",
    "now_text",
    "parse_time",
    "time_from_ns",
    "time_ns",
    "time_text",
    "to_datetime",
]

ZERO_TIME: Final = "0001-01-01T00:00:00Z"  # Go's zero time.Time

# What Go writes. 29 February is left out: whether it exists needs the calendar, so it takes the slow way.
CANONICAL_TIME: Final = (
    r"^[0-9]{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    r"|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{0,8}[1-9])?"
    r"(?:Z|[+-](?!00:00)(?:[01][0-9]|2[0-3]):[0-5][0-9])\Z"
)

# What Go reads. One-digit hours and a decimal comma are Go <= 1.19 only; old peers may still send them.
_READABLE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]+))?"
    r"(Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_LONG_YEAR = re.compile(r"[+-]?[0-9]{5,}-")
_MONTH_DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_YEAR_ERROR: Final = (
    "json: error calling MarshalJSON for type *time.Time: Time.MarshalJSON: year outside of range [0,9999]"
)
_ZONE_ERROR: Final = (
    "json: error calling MarshalJSON for type *time.Time: Time.MarshalJSON: timezone hour outside of range [0,23]"
)
_is_long_zone = re.compile(r".*[+-]24:[0-9]{2}").fullmatch
_DAYS_TO_EPOCH: Final = 719_468  # from 0000-03-01 to 1970-01-01
_NS: Final = 1_000_000_000


def _days_in_month(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else _MONTH_DAYS[month - 1]


def _split(text: str) -> tuple[int, int, int, int, int, int, str, int]:
    """Return year, month, day, hour, minute, second, nine fraction digits, offset in minutes."""
    match = _READABLE.fullmatch(text)
    if match is None:
        raise DecodeError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse it')
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    sign, hours, minutes = match.group(9), int(match.group(10) or 0), int(match.group(11) or 0)
    for name, wrong in (
        ("month", not 1 <= month <= 12),
        ("day", not 1 <= month <= 12 or not 1 <= day <= _days_in_month(year, month)),
        ("hour", hour > 23),
        ("minute", minute > 59),
        ("second", second > 59),
        # As Go reads it; 24 hours it can read, and not write again.
        ("time zone offset", minutes > 60 or hours * 60 + minutes >= 25 * 60),
    ):
        if wrong:
            raise DecodeError(f'parsing time "{text}": {name} out of range')
    offset = hours * 60 + minutes
    fraction = (match.group(7) or "")[:9].ljust(9, "0")
    return year, month, day, hour, minute, second, fraction, -offset if sign == "-" else offset


def _zone(minutes: int) -> str:
    if minutes == 0:
        return "Z"
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _fraction(digits: str) -> str:
    digits = digits.rstrip("0")
    return "." + digits if digits else ""


def parse_time(text: str) -> str:
    """Read a time as Go does and return it as Go would write it back.

    Raises:
        DecodeError: Go would refuse the text. The wording differs between Go versions.
    """
    year, month, day, hour, minute, second, digits, offset = _split(text)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{_fraction(digits)}{_zone(offset)}"


def time_text(value: datetime | str) -> str:
    """Bring a datetime, or text, into Go's form. A datetime without a zone counts as UTC, as in Celery.

    Raises:
        EncodeError: text that is no RFC 3339 time, or a year or an offset that Go cannot write.
    """
    if isinstance(value, str):
        if _LONG_YEAR.match(value):
            raise EncodeError(_YEAR_ERROR)
        try:
            text = parse_time(value)
        except DecodeError as error:
            raise EncodeError(f"{error}; write it like 2024-01-02T03:04:05.5Z") from None
        if _is_long_zone(text):
            raise EncodeError(_ZONE_ERROR)
        return text
    if not isinstance(value, datetime):
        raise EncodeError(f"a time must be a datetime or RFC 3339 text, not {type(value).__name__}")
    delta = value.utcoffset() or timedelta()
    # Go cuts an offset's odd seconds off, towards zero.
    total = int(delta.total_seconds())
    minutes = abs(total) // 60 * (-1 if total < 0 else 1)
    return (
        f"{value.year:04d}-{value.month:02d}-{value.day:02d}"
        f"T{value.hour:02d}:{value.minute:02d}:{value.second:02d}"
        f"{_fraction(f'{value.microsecond:06d}')}{_zone(minutes)}"
    )


def time_ns(text: str) -> int:
    """Return the nanoseconds since 1970 of a time in Go's form, exactly."""
    year, month, day, hour, minute, second, digits, offset = _split(text)
    # Days since the epoch in the proleptic Gregorian calendar, with years that begin in March.
    march_year = year - (month <= 2)
    era = march_year // 400
    year_of_era = march_year - era * 400
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    seconds = ((days - _DAYS_TO_EPOCH) * 24 + hour) * 3600 + minute * 60 + second - offset * 60
    return seconds * _NS + int(digits)


def to_datetime(text: str) -> datetime:
    """Return an aware UTC datetime, cut to microseconds; what Python cannot hold becomes its nearest end."""
    seconds, nanos = divmod(time_ns(text), _NS)
    try:
        moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    except OverflowError:
        bound = datetime.max if seconds > 0 else datetime.min
        return bound.replace(tzinfo=timezone.utc)
    return moment.replace(microsecond=nanos // 1000)


def time_from_ns(nanoseconds: int) -> str:
    """Return the UTC time so many nanoseconds after 1970, in Go's form."""
    seconds, nanos = divmod(nanoseconds, _NS)
    moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)
    return f"{moment.isoformat(timespec='seconds')}{_fraction(f'{nanos:09d}')}Z"


def now_text() -> str:
    """Return the present time, UTC with nanoseconds, in Go's form."""
    return time_from_ns(time.time_ns())
