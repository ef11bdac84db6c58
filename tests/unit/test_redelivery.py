"""The count of redeliveries that a message carries with itself."""

from __future__ import annotations

from typing import Any

import pytest

from machinery_compat import Celery, Signature, new_signature
from machinery_compat.errors import ConfigError
from machinery_compat.transport.base import TaskPayload, deliveries, redelivered
from machinery_compat.transport.border import Border
from machinery_compat.transport.redelivery import Fate, fate_of

BODY = new_signature("a", "b ").encode()


def test_each_redelivery_is_counted_and_the_signature_stays() -> None:
    body = BODY
    for times in range(7):
        assert deliveries(body) == times
        assert Signature.decode(body).encode() == BODY
        body = redelivered(body)
    assert deliveries(redelivered(BODY, 3)) == 3
    assert deliveries(b"") == 0


class Told(Border):
    def __init__(self, failure: Exception | None = None) -> None:
        self.told: list[tuple[bytes, str]] = []
        self.failure = failure

    def given_up(self, body: bytes, reason: str) -> None:
        self.told.append((body, reason))
        if self.failure is not None:
            raise self.failure


class Message(TaskPayload):
    def __init__(self, body: bytes, border: Border) -> None:
        self.raw_body = body
        self.channel: Any = type("Channel", (), {"border": border})
        self.became: list[str] = []

    def bury(self, reason: str) -> None:
        self.became.append(f"buried: {reason}")

    def redeliver(self) -> None:
        self.became.append("redelivered")


def test_a_message_below_the_limit_is_redelivered() -> None:
    border = Told()
    message = Message(redelivered(BODY, 4), border)

    assert not message.lost("signal 9")

    assert message.became == ["redelivered"]
    assert border.told == []


def test_a_message_at_the_limit_is_given_up() -> None:
    border = Told()
    message = Message(redelivered(BODY, 5), border)

    assert message.lost("signal 9")

    reason = "given up after 6 runs, each of which ended with its worker process; the last: signal 9"
    assert message.became == [f"buried: {reason}"]
    assert border.told == [(message.raw_body, reason)]


def test_a_task_that_cannot_be_failed_is_not_buried(caplog: pytest.LogCaptureFixture) -> None:
    message = Message(redelivered(BODY, 5), Told(OSError("the backend is down")))

    assert not message.lost("signal 9")

    assert message.became == ["redelivered"]
    assert "the backend is down" in caplog.text


def test_the_limit_is_a_setting_and_a_transport_option() -> None:
    app = Celery("limits", broker="eager", backend="null", set_as_current=False)
    border = app.machinery.border
    assert border.redelivery_limit == 5
    app.conf.machinery_redelivery_limit = 2
    assert border.redelivery_limit == 2
    app.conf.broker_transport_options = {"redelivery_limit": 0}
    assert border.redelivery_limit == 0
    for wrong in (-1, "3", True, None, 1.5):
        app.conf.broker_transport_options = {"redelivery_limit": wrong}
        with pytest.raises(ConfigError, match="a number from 0 on"):
            assert border.redelivery_limit


@pytest.mark.parametrize(
    ("state", "run", "count", "fate"),
    [
        ("", 0, 0, Fate.WAITING),
        ("PENDING", 0, 0, Fate.WAITING),
        ("RECEIVED", 0, 0, Fate.WAITING),
        ("RETRY", 0, 0, Fate.WAITING),
        ("STARTED", 0, 0, Fate.LOST),
        ("FAILURE", 0, 0, Fate.LOST),
        ("SUCCESS", 0, 0, Fate.ENDED),
        # The run before this one, which is counted already; whoever had the message since has not begun.
        ("STARTED", 0, 1, Fate.WAITING),
        ("FAILURE", 1, 2, Fate.WAITING),
        ("STARTED", 2, 2, Fate.LOST),
        # The later run of somebody else: this one's time is over, too.
        ("STARTED", 3, 2, Fate.LOST),
        ("SUCCESS", 0, 1, Fate.ENDED),
    ],
)
def test_the_fate_of_a_message_that_comes_again(state: str, run: int, count: int, fate: Fate) -> None:
    assert fate_of(new_signature("a"), redelivered(BODY, count), state, run) is fate


@pytest.mark.parametrize(("run", "fate"), [(0, Fate.WAITING), (1, Fate.LOST)])
def test_a_success_that_something_follows_has_not_ended(run: int, fate: Fate) -> None:
    signature = new_signature("a", on_success=[new_signature("b")])

    assert fate_of(signature, redelivered(BODY), "SUCCESS", run) is fate
