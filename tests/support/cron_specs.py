"""Cron specs, zones and times for hypothesis, right and wrong."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import strategies as st

__all__ = ["broken_specs", "moments", "specs", "zones"]

#: Zones whose clocks are turned in every way: at midnight, by half an hour, twice a year, not at all.
zones = st.sampled_from(
    [
        "UTC",
        "America/New_York",
        "Europe/Berlin",
        "Europe/Dublin",
        "America/Sao_Paulo",
        "America/Santiago",
        "America/Havana",
        "Africa/Cairo",
        "Asia/Beirut",
        "Asia/Tehran",
        "Asia/Tokyo",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Antarctica/Troll",
        "America/St_Johns",
    ]
)

_seconds = st.integers(0, 2**31)
#: Hours in which one of the zones above has its clock turned.
_turns = st.sampled_from(
    [
        datetime(2024, 3, 10, 7),
        datetime(2024, 11, 3, 6),
        datetime(2024, 3, 31, 1),
        datetime(2024, 10, 27, 1),
        datetime(2018, 11, 4, 3),
        datetime(2018, 2, 18, 2),
        datetime(2024, 9, 8, 4),
        datetime(2024, 4, 7, 3),
        datetime(2024, 3, 10, 5),
        datetime(2024, 4, 25, 22),
        datetime(2024, 3, 30, 22),
        datetime(2021, 3, 21, 20, 30),
        datetime(2024, 10, 5, 15, 30),
        datetime(2024, 4, 6, 15),
        datetime(2010, 3, 14, 3, 31),
    ]
)
_near_turns = st.builds(lambda turn, off: turn + timedelta(seconds=off), _turns, st.integers(-200_000, 10_000))
moments = st.builds(
    lambda moment, micros: moment.replace(microsecond=micros, tzinfo=timezone.utc),
    st.one_of(_near_turns, _seconds.map(lambda seconds: datetime(1970, 1, 1) + timedelta(seconds=seconds))),
    st.sampled_from([0, 1, 500_000, 999_999]),
)


def _spell(number: int, names: tuple[str, ...]) -> st.SearchStrategy[str]:
    plain = st.just(str(number))
    if not names:
        return plain
    name = names[number % len(names)]
    return st.one_of(plain, st.sampled_from([name, name.upper(), name.title()]))


@st.composite
def _ranges(draw: st.DrawFn, low: int, high: int, names: tuple[str, ...] = ()) -> str:
    kind = draw(st.integers(0, 4))
    step = draw(st.sampled_from(["", "", "", "/1", "/2", "/5", "/7", "/20"]))
    if kind == 0:
        return draw(st.sampled_from(["*", "?", "*", "*-3"])) + step
    first = draw(st.integers(low, high))
    text = draw(_spell(first, names))
    if kind == 1:
        text += "-" + draw(_spell(draw(st.integers(first, high)), names))
    return text + step


def _fields(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    return st.one_of(st.just("*"), st.lists(_ranges(low, high, names), min_size=1, max_size=3).map(",".join))


_MONTHS = ("dec", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_five_fields = st.tuples(_fields(0, 59), _fields(0, 23), _fields(1, 31), _fields(1, 12, _MONTHS), _fields(0, 6, _DAYS))
_durations = st.lists(
    st.tuples(
        st.sampled_from(["1", "0", "7", "90", "1.5", ".25", "3.", "0.333333333"]), st.sampled_from(["h", "m", "s"])
    ),
    min_size=1,
    max_size=3,
).map(lambda parts: "".join(number + unit for number, unit in parts))
_bodies = st.one_of(
    _five_fields.map(" ".join),
    _five_fields.map("\t ".join),
    st.sampled_from(["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"]),
    _durations.map("@every {}".format),
)
_prefixes = st.one_of(
    st.just(""), st.tuples(st.sampled_from(["TZ=", "CRON_TZ="]), zones, st.sampled_from([" ", "  "])).map("".join)
)
#: Specs that can be read.
specs = st.tuples(_prefixes, _bodies).map("".join)

_pieces = st.sampled_from(
    [
        "0",
        "1",
        "7",
        "31",
        "59",
        "60",
        "99999999999999999999",
        "-",
        "--",
        "/",
        "//",
        ",",
        "*",
        "?",
        "jan",
        "SUN",
        "x",
        "+",
        "sunday",
        " ",
        "\t",
        "\x1c",
        "\xa0",
        "@every ",
        "@daily",
        "@",
        "TZ=",
        "CRON_TZ=",
        "UTC ",
        "Mars/Base ",
        "../x ",
        "h",
        "1.5s",
        "µs",
        "ns",
        "1e3",
        "9223372036854775807",
        "\u0130",
        '"',
        "é",
        "\n",
        ".",
        "/0",
        "*/2",
        "L",
        "W",
        "#",
    ]
)
#: Specs with something wrong, most of them.
broken_specs = st.one_of(
    st.lists(_pieces, max_size=8).map("".join),
    st.lists(st.lists(_pieces, min_size=1, max_size=3).map("".join), min_size=5, max_size=5).map(" ".join),
    st.lists(_pieces, max_size=5).map(lambda pieces: "@every " + "".join(pieces)),
    st.text(max_size=12),
)
