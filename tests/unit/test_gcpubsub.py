"""The threads of the Pub/Sub transport, against clients that only note what they are told."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
import requests

pytest.importorskip("google.pubsub_v1")

from google.api_core import exceptions

from machinery_compat import errors, gcpubsub_client, new_signature
from machinery_compat.gcpubsub_client import Client, Clients, Received
from machinery_compat.transport.gcpubsub_delays import REFRESHED, Delays
from machinery_compat.transport.gcpubsub_keeper import Held, Keeper
from tests.support.waiting import wait_for

Call = tuple[Any, ...]


class Noting:
    """A client that notes each call, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failures: list[Exception] = []
        self.messages: list[Received] = []
        self.pairs: list[str] = []

    def get(self) -> Noting:
        return self

    def _note(self, *call: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.calls.append(call)

    def publish(self, topic: str, body: bytes) -> None:
        self._note("publish", topic, body)

    def acknowledge(self, subscription: str, ack_ids: list[str]) -> None:
        self._note("acknowledge", subscription, *ack_ids)

    def keep(self, subscription: str, ack_ids: list[str], seconds: int) -> None:
        self._note("keep", subscription, *ack_ids, seconds)

    def make_pair(self, name: str) -> None:
        self.pairs.append(name)

    def pull(self, subscription: str, count: int, wait: float) -> list[Received]:
        messages, self.messages = self.messages, []
        if not messages:
            # As a server that has none.
            threading.Event().wait(0.01)
        return messages


@pytest.fixture
def client() -> Noting:
    return Noting()


Make = Callable[..., Keeper]


@pytest.fixture
def keeper_of(client: Noting) -> Iterator[Make]:
    made: list[Keeper] = []

    def make(lease: float = 30, longest: float | None = None) -> Keeper:
        keeper = Keeper(client, lease, longest)  # type: ignore[arg-type]
        keeper.start()
        made.append(keeper)
        return keeper

    yield make
    for keeper in made:
        client.failures.clear()
        keeper.retire((), 5)


def held(name: str, granted: float = 10, age: float = 0) -> Held:
    return Held("sub", name, f"id-{name}", granted, monotonic() - age)


def test_what_is_settled_is_told_once_and_together(client: Noting, keeper_of: Make) -> None:
    keeper = keeper_of()
    first, second, third = held("a"), held("b"), held("c")
    keeper.hold([first, second, third])
    assert all(map(keeper.holds, (first, second, third)))
    keeper.settle(first)
    keeper.settle(first)
    keeper.give_back(second)
    keeper.give_back(third, 10_000)
    wait_for(lambda: len(client.calls) == 3)
    assert sorted(client.calls, key=str) == [
        ("acknowledge", "sub", "a"),
        ("keep", "sub", "b", 0),
        ("keep", "sub", "c", 600),
    ]
    assert not any(map(keeper.holds, (first, second, third)))
    keeper.settle(first)
    assert len(client.calls) == 3


def test_a_deadline_is_moved_on_after_a_third_of_it(client: Noting, keeper_of: Make) -> None:
    keeper = keeper_of(lease=60)
    fresh, old = held("fresh"), held("old", age=4)
    keeper.hold([fresh, old])
    wait_for(lambda: client.calls)
    assert client.calls == [("keep", "sub", "old", 60)]
    wait_for(lambda: old.granted == 60)
    assert fresh.granted == 10


def test_what_is_held_for_longer_than_it_may_be_goes(
    client: Noting, keeper_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keeper_of(lease=60, longest=30)
    late = held("late", age=9.9)
    keeper.hold([late])
    wait_for(lambda: not keeper.holds(late))
    assert "no longer than max_extension (30 s)" in caplog.text
    # Its end is told all the same.
    keeper.settle(late)
    wait_for(lambda: client.calls == [("acknowledge", "sub", "late")])


@pytest.mark.parametrize(
    "failure", [requests.exceptions.ConnectionError("away"), exceptions.ServiceUnavailable("busy")]
)
def test_what_cannot_be_told_is_told_again(
    client: Noting, keeper_of: Make, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keeper_of()
    one = held("a")
    keeper.hold([one])
    client.failures = [failure]
    keeper.settle(one)
    wait_for(lambda: client.calls == [("acknowledge", "sub", "a")])
    assert "cannot be settled now" in caplog.text


def test_what_is_refused_for_good_is_not(client: Noting, keeper_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    keeper = keeper_of()
    one = held("a")
    keeper.hold([one])
    client.failures = [exceptions.NotFound("no such subscription")]
    keeper.settle(one)
    wait_for(lambda: not keeper.holds(one))
    assert "cannot be settled: 404" in caplog.text
    assert client.calls == []


def test_at_the_end_all_goes_back_but_what_runs(client: Noting, keeper_of: Make) -> None:
    keeper = keeper_of()
    runs, waits = held("runs"), held("waits")
    keeper.hold([runs, waits])
    keeper.retire([runs], 5)
    assert client.calls == [("keep", "sub", "waits", 0)]
    assert keeper.holds(runs)
    keeper.settle(runs)
    wait_for(lambda: not keeper.holds(runs))
    assert client.calls[-1] == ("acknowledge", "sub", "runs")


def received(body: bytes, age: timedelta = timedelta(0)) -> Received:
    return Received("ack", "id", body, 0, datetime.now(timezone.utc) - age)


def due_in(seconds: float) -> bytes:
    eta = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return new_signature("add", 1, routing_key="there", eta=eta).encode()


@pytest.fixture
def delays(client: Noting) -> Iterator[Delays]:
    made = Delays(client, "queue", lambda *what: bool(client.calls.append(("bury", *what)) or client.pairs), 1)  # type: ignore[arg-type]
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("seconds", "low", "high"), [(7, 2, 3), (60, 55, 56), (599, 594, 595), (10_000, 600, 600), (10**7, 600, 600)]
)
def test_what_is_due_later_goes_back_until_just_before(
    client: Noting, delays: Delays, seconds: int, low: int, high: int
) -> None:
    delays._sort(client, [received(due_in(seconds))])  # type: ignore[arg-type]
    ((kind, name, ack_id, wait),) = client.calls
    assert (kind, name, ack_id) == ("keep", "queue-delayed", "ack")
    assert low <= wait <= high


def test_what_has_waited_for_a_day_is_sent_anew(client: Noting, delays: Delays) -> None:
    body = due_in(1000)
    delays._sort(client, [received(body, REFRESHED * 2)])  # type: ignore[arg-type]
    assert client.calls == [("publish", "queue-delayed", body), ("acknowledge", "queue-delayed", "ack")]


def test_what_is_due_is_sent_on_and_then_acknowledged(client: Noting, delays: Delays) -> None:
    now, soon = due_in(-1), due_in(0.2)
    client.messages = [received(soon), received(now)]
    delays.start()
    wait_for(lambda: len(client.calls) == 6)
    assert client.pairs == ["queue-delayed"]
    sent = [call for call in client.calls if call[0] != "keep"]
    assert sent == [
        ("publish", "there", now),
        ("acknowledge", "queue-delayed", "ack"),
        ("publish", "there", soon),
        ("acknowledge", "queue-delayed", "ack"),
    ]


def test_what_is_kept_goes_back_at_the_end(client: Noting, delays: Delays) -> None:
    client.messages = [received(due_in(4))]
    delays.start()
    wait_for(lambda: client.calls)
    delays.stop()
    delays.join(5)
    assert client.calls[-1] == ("keep", "queue-delayed", "ack", 0)


def test_a_delayed_message_that_is_none_is_buried_or_stays(client: Noting, delays: Delays) -> None:
    delays._sort(client, [received(b"x")])  # type: ignore[arg-type]
    assert client.calls[-1] == ("keep", "queue-delayed", "ack", 600)
    client.pairs.append("it can be kept")
    delays._sort(client, [received(b"x")])  # type: ignore[arg-type]
    assert client.calls[-1] == ("acknowledge", "queue-delayed", "ack")


# -- the client itself


class Google:
    """Both of Google's clients, which raise what they are told for each call."""

    def __init__(self, **raised: Exception | None) -> None:
        self.raised = raised
        self.made: list[Any] = []
        self.transport = SimpleNamespace(kind="rest")

    def __getattr__(self, name: str) -> Any:
        def call(request: Any, **options: Any) -> Any:
            self.made.append((name, request, options))
            error = self.raised.get(name)
            if error is not None:
                raise error
            return SimpleNamespace(received_messages=[], topic="projects/p/topics/other", ack_deadline_seconds=10)

        return call


def client_of(google: Google) -> Client:
    return Client("p", google, google)  # type: ignore[arg-type]


DENIED = exceptions.Forbidden("not you")
MISSING = exceptions.NotFound("nothing")


def test_what_may_not_be_asked_is_taken_for_there(caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(Google(get_topic=DENIED, get_subscription=DENIED))
    client.require_topic("queue")
    assert client.require_subscription("sub", "queue") is None
    client.make_pair("queue-delayed")
    assert "whether the subscription sub is there cannot be asked" in caplog.text


def test_a_subscription_of_another_topic_is_told(caplog: pytest.LogCaptureFixture) -> None:
    found = client_of(Google()).require_subscription("sub", "queue")
    assert found is not None
    assert found.deadline == 10
    assert "gets what is sent to projects/p/topics/other, not to the topic queue" in caplog.text


def test_a_pair_that_may_not_be_made_is_one_error_with_the_commands() -> None:
    client = client_of(Google(get_subscription=MISSING, create_topic=DENIED))
    with pytest.raises(errors.BrokerError, match="topics create q-dead --project=p && gcloud pubsub subscriptions"):
        client.make_pair("q-dead")


@pytest.mark.parametrize("there", [exceptions.from_http_status(409, "there"), exceptions.AlreadyExists("there")])
def test_a_pair_that_another_one_makes_is_there(there: Exception) -> None:
    client_of(Google(get_subscription=MISSING, create_topic=there, create_subscription=there)).make_pair("q-dead")


def test_the_server_is_told_how_long_a_pull_may_wait() -> None:
    google = Google()
    client = client_of(google)
    assert client.pull("sub", 5, 3.0) == []
    assert client.pull("sub", 5, 0) == []
    (_, waits, options), (_, looks, _) = google.made
    assert dict(options["metadata"])["x-server-timeout"] == "3"
    assert "return_immediately" not in waits
    assert looks["return_immediately"] is True


@pytest.mark.parametrize(
    "end",
    [exceptions.from_http_status(504, "x"), exceptions.DeadlineExceeded("x"), requests.exceptions.ReadTimeout("x")],
)
def test_a_pull_that_nothing_came_of_is_empty(end: Exception) -> None:
    assert client_of(Google(pull=end)).pull("sub", 5, 3.0) == []


def test_many_acknowledgements_go_in_several_calls() -> None:
    google = Google()
    client_of(google).acknowledge("sub", [str(n) for n in range(2 * gcpubsub_client.BATCH + 1)])
    assert [len(request["ack_ids"]) for _, request, _ in google.made] == [1000, 1000, 1]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_each_thread_and_each_process_has_a_client_of_its_own() -> None:
    clients = Clients("p", lambda: (Google(), Google()))
    here = clients.get()
    assert clients.get() is here
    found: list[Client] = []
    thread = threading.Thread(target=lambda: found.append(clients.get()))
    thread.start()
    thread.join()
    assert found[0] is not here
    child = os.fork()
    if not child:
        os._exit(0 if clients.get() is not here else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_without_credentials_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(**options: Any) -> None:
        raise gcpubsub_client.auth_exceptions.DefaultCredentialsError("none found")  # type: ignore[no-untyped-call]

    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("google.auth.default", nobody)
    with pytest.raises(errors.ConfigError, match=r"^there are no credentials for Pub/Sub: none found"):
        Clients("p").get()
