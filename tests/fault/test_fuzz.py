"""Whatever arrives, decoders answer with a value or a MachineryError, and soon.

``python -m tests.fault.fuzz`` does the same for as long as one likes.
"""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinery_compat import errors
from machinery_compat.wire import gojson
from tests.fault.fuzz import HEADER, TOKENS, Report, Target, fuzz, targets

TARGETS = targets()
#: Inputs of the mutations in this suite; a fixed seed, so that a finding is found again.
INPUTS, SEED = 20_000, 20260301

pieces = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(TOKENS),
    st.text(max_size=10).map(lambda text: text.encode("utf-8", "replace")),
)


def test_mutations() -> None:
    report = fuzz(INPUTS, SEED)

    assert not report.findings, "\n\n".join(report.findings.values())
    assert set(report.inputs) == set(TARGETS)
    # Were all of them refused, nothing behind the first check would have been reached.
    assert all(report.refused[name] < report.inputs[name] for name in ("signature", "state", "group", "celery_header"))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60)
@given(data=st.lists(pieces, max_size=8).map(b"".join), at=st.integers(0, 300), seed=st.integers(0, 1000))
def test_anything(name: str, data: bytes, at: int, seed: int) -> None:
    target = TARGETS[name]
    begun = target.seeds[seed % len(target.seeds)]
    for given_data in (data, begun[:at] + data + begun[at:]):
        with contextlib.suppress(errors.MachineryError):
            target.run(given_data)


def test_every_seed_is_read() -> None:
    """The mutations begin with what is right, or they would test the first check only."""
    for name in ("celery_header", "configuration", "dead_entry"):
        for data in TARGETS[name].seeds:
            TARGETS[name].run(data)
    assert HEADER.encode() in TARGETS["celery_header"].seeds


def _spin(data: bytes) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass


class TestTheHarness:
    def test_a_stranger_exception_is_a_finding(self) -> None:
        report = Report()

        report.try_one("x", lambda data: [][0], b"")

        assert "IndexError" in next(iter(report.findings))

    def test_a_refusal_is_none(self) -> None:
        report = Report()

        report.try_one("x", TARGETS["signature"].run, b"{")

        assert (report.findings, report.refused["x"]) == ({}, 1)

    def test_a_hang_is_a_finding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.fault.fuzz.HANG", 0.05)
        monkeypatch.setattr("tests.fault.fuzz.targets", lambda: {"slow": Target(_spin, [b""], 1)})

        assert "HangError" in "".join(fuzz(1, 1).findings)


# What the fuzzing has found, each a test of its own.


@pytest.mark.parametrize("text", [b'["%s", 1]', b'"%s\\b"', b'["a","%s"', b'[["%s"]]'])
def test_a_string_that_go_spells_otherwise_is_read_in_linear_time(text: bytes) -> None:
    """The pattern that recognizes Go's spelling once tried exponentially many ways through this."""
    raw = text.replace(b"%s", b"a" * 100_000)

    try:
        gojson.canonical(raw)
    except errors.DecodeError:
        assert raw.count(b"[") > raw.count(b"]")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("url", b"eagery-redis://h:1/0"),
        ("cron", b"CRON_TZ=Asia/" + b"Tia/" * 400 + b" * * * * *"),
        ("state", b'{"State":"SUCCESS","Results":[{"Type":"string","Celery":"celery:json",'
                  b'"Value":"{\\"__type__\\":[],\\"__value__\\":1}"}]}'),
    ],
)  # fmt: skip
def test_found_before(name: str, data: bytes) -> None:
    with contextlib.suppress(errors.MachineryError):
        TARGETS[name].run(data)
