"""A trace goes on where a step of it runs in Go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import chain

from machinery_compat import Chain, new_signature
from tests.interop.conftest import BROKERS, Fleet
from tests.support import tracing
from tests.support.golang import arg, signature

pytestmark = [pytest.mark.go, pytest.mark.parametrize("fleet", BROKERS, indirect=True)]

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "uber-trace-id": "1:2:0:1"}


@pytest.fixture(autouse=True)
def _recording() -> Iterator[None]:
    with tracing.recording():
        yield


def test_a_trace_goes_on_behind_a_step_of_go(fleet: Fleet) -> None:
    """If a chain has a step in each language, I expect the Headers of the second to arrive, whoever sends it."""
    fleet.go()
    fleet.python()
    server, app = fleet.server, fleet.server.app

    def steps() -> Chain:
        return Chain(new_signature("go_add", 1, immutable=True), new_signature("py_headers"))

    with tracing.tracer().start_as_current_span("sender") as sender:
        sent = {
            "plain": server.send_chain(steps()).results[-1].signature.uuid,
            "with context": server.send_chain_with_context(None, steps()).results[-1].signature.uuid,
            "celery": chain(app.signature("go_add", [1]), app.signature("py_headers", immutable=True)).delay().id,
        }
    from_go = [
        signature("go_add", arg("int64", 1), Headers=TRACE, Immutable=True),
        signature("py_headers", Headers=TRACE),
    ]
    sent["go"] = fleet.client.must(op="send_chain", signatures=from_go)["uuids"][-1]

    (producer,) = tracing.spans("SendChain")
    found = {way: app.AsyncResult(uuid).get(timeout=20) for way, uuid in sent.items()}
    assert {way: headers["traceparent"] for way, headers in found.items()} == {
        "plain": tracing.traceparent(sender),
        "with context": tracing.traceparent(producer),
        "celery": tracing.traceparent(sender),
        "go": TRACE["traceparent"],
    }
    assert found["go"] == TRACE
