"""A store that is away is waited for; any other error is an error."""

from __future__ import annotations

import logging

import pytest

from machinery_compat.backends import patience


class Store:
    """Fails as often as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)

    def write(self) -> str:
        if self.failures:
            raise self.failures.pop(0)
        return "written"


def is_outage(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


def test_a_store_that_comes_back_has_the_result(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    store = Store(*[ConnectionError("refused")] * 9)

    with caplog.at_level(logging.WARNING, "machinery_compat.backends"):
        assert patience.patiently(store.write, is_outage, "task x (SUCCESS)") == "written"

    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert len(caplog.messages) == 9
    assert caplog.messages[0] == "task x (SUCCESS) waits for the result backend: refused; trying again in 0.05 s"


def test_another_error_is_raised_at_once() -> None:
    with pytest.raises(ValueError, match="too large"):
        patience.patiently(Store(ValueError("too large")).write, is_outage, "task x (SUCCESS)")
