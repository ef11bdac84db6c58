"""The context of OpenTelemetry in the Headers of what is sent, and the spans of what runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, signals
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from machinery_compat import Chain, Chord, Group, RetryTaskLater, Server, Signature, new_signature
from tests.support import tracing
from tests.support.eager import eager_server
from tests.support.tracing import spans, traceparent

OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.fixture(autouse=True)
def _recording() -> Iterator[None]:
    with tracing.recording():
        yield


@pytest.fixture
def server() -> Server:
    return eager_server()


@pytest.fixture
def sent(server: Server) -> list[Signature]:
    """What is sent, instead of being run."""
    found: list[Signature] = []
    server.app.machinery.eager.run = lambda body: found.append(Signature.decode(body))
    return found


@pytest.fixture
def bodies(server: Server) -> list[bytes]:
    found: list[bytes] = []
    server.app.machinery.eager.run = found.append
    return found


@pytest.fixture
def instrumented() -> Iterator[None]:
    """Celery's own instrumentation at work."""
    CeleryInstrumentor().instrument()
    yield
    CeleryInstrumentor().uninstrument()


def parent_of(span: ReadableSpan) -> trace.SpanContext:
    assert span.parent is not None
    return span.parent


def trace_ids() -> set[int]:
    return {span.get_span_context().trace_id for span in spans()}


def send_all(server: Server) -> None:
    """Sends in every way that there is."""
    add = server.app.tasks["add"]
    server.send_task(new_signature("add", 1))
    server.send_chain(Chain(new_signature("add", 1), new_signature("add", 2)))
    server.send_group(Group(new_signature("add", 1), new_signature("add", 2)))
    server.send_chord(Chord(Group(new_signature("add", 1)), new_signature("add")))
    add.delay(1)
    server.app.send_task("elsewhere", [1])
    chain(add.s(1), server.app.signature("elsewhere")).delay()


# -- what the plain calls send


def test_without_a_trace_nothing_is_added(server: Server, sent: list[Signature]) -> None:
    send_all(server)

    assert len(sent) == 8
    assert [one.headers for one in sent] == [{}] * 8


def test_without_a_trace_the_bytes_are_those_of_a_server_that_traces_nothing(
    server: Server, bodies: list[bytes]
) -> None:
    task = new_signature("add", 1, on_success=[new_signature("add", 2)])

    server.send_task(task.copy())
    server.app.conf.machinery_tracing = False
    server.send_task(task.copy())

    assert bodies[0] == bodies[1]


def test_all_that_is_sent_within_a_span_carries_it(server: Server, sent: list[Signature]) -> None:
    with tracing.tracer().start_as_current_span("sender") as span:
        send_all(server)

    assert len(sent) == 8
    assert {(one.headers or {}).get("traceparent") for one in sent} == {traceparent(span)}


def test_what_follows_carries_it_too_through_workers_that_know_no_traces(server: Server, sent: list[Signature]) -> None:
    failed, last = new_signature("failed"), new_signature("last")
    callback = new_signature("callback")
    with tracing.tracer().start_as_current_span("sender") as span:
        server.send_chord(
            Chord(Group(new_signature("first", on_success=[new_signature("then", on_success=[last])])), callback)
        )
        server.send_task(new_signature("first", on_error=[failed]))
        chain(server.app.signature("first"), server.app.signature("then"), server.app.signature("last")).delay()

    member, alone, native = sent
    assert member.on_success
    assert member.on_success[0]
    assert member.on_success[0].on_success
    assert member.chord_callback
    assert alone.on_error
    assert native.on_success
    assert native.on_success[0]
    found = [
        *(member.on_success[0], member.on_success[0].on_success[0], member.chord_callback),
        *(alone.on_error[0], native.on_success[0], *(native.on_success[0].on_success or ())),
    ]
    assert [one.headers["traceparent"] for one in found if one and one.headers] == [traceparent(span)] * 6


def test_other_headers_stay_and_those_of_another_trace_go(server: Server, sent: list[Signature]) -> None:
    task = new_signature("add", 1, headers={"tenant": "t1", "traceparent": OTHER, "tracestate": "a=b"})

    with tracing.tracer().start_as_current_span("sender") as span:
        server.send_task(task)

    assert sent[0].headers == {"tenant": "t1", "traceparent": traceparent(span)}


def test_headers_pass_through_where_no_trace_is_current(server: Server, sent: list[Signature]) -> None:
    headers = {"traceparent": OTHER, "uber-trace-id": "1:2:0:1"}
    server.send_task(new_signature("add", 1, headers=dict(headers)))

    assert sent[0].headers == headers


def test_baggage_goes_along(server: Server, sent: list[Signature]) -> None:
    token = context.attach(baggage.set_baggage("batch", "7"))
    try:
        server.send_task(new_signature("add", 1))
    finally:
        context.detach(token)

    assert sent[0].headers == {"baggage": "batch=7"}


def test_the_decision_not_to_sample_goes_along(server: Server, sent: list[Signature]) -> None:
    """A receiver without it would sample the rest of a trace that nobody keeps."""
    token = context.attach(propagate.extract({"traceparent": UNSAMPLED}))
    try:
        server.send_task(new_signature("add", 1))
    finally:
        context.detach(token)

    assert sent[0].headers == {"traceparent": UNSAMPLED}


def test_the_setting_switches_it_off(server: Server, sent: list[Signature]) -> None:
    server.app.conf.machinery_tracing = False

    with tracing.tracer().start_as_current_span("sender"):
        send_all(server)

    assert [one.headers for one in sent] == [{}] * 8


@pytest.fixture
def jaeger() -> Iterator[None]:
    """The propagator of Go's usual tracer."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(JaegerPropagator())
    yield
    propagate.set_global_textmap(before)


@pytest.mark.usefixtures("jaeger")
def test_the_propagator_of_the_process_says_what_the_headers_are(server: Server, sent: list[Signature]) -> None:
    with tracing.tracer().start_as_current_span("sender") as span:
        token = context.attach(baggage.set_baggage("batch", "7"))
        server.send_task(new_signature("add", 1, headers={"uber-trace-id": "1:2:0:1"}))
        context.detach(token)

    about = span.get_span_context()
    headers = sent[0].headers or {}
    assert set(headers) == {"uber-trace-id", "uberctx-batch"}
    assert headers["uber-trace-id"].startswith(f"{about.trace_id:032x}:{about.span_id:016x}:")


@pytest.mark.usefixtures("jaeger")
def test_a_trace_of_gos_tracer_goes_on(server: Server) -> None:
    found: list[object] = []
    server.register_task("look", lambda: found.append(baggage.get_baggage("batch")))

    server.send_task(new_signature("look", headers={"uber-trace-id": "abc:def:0:1", "uberctx-batch": "7"}))

    (span,) = spans("look")
    assert (parent_of(span).trace_id, parent_of(span).span_id) == (0xABC, 0xDEF)
    assert found == ["7"]


@pytest.fixture
def broken() -> Iterator[None]:
    """A propagator that cannot do what it should."""

    class Broken(JaegerPropagator):
        def inject(self, carrier: Any, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no luck")

    before = propagate.get_global_textmap()
    propagate.set_global_textmap(Broken())
    yield
    propagate.set_global_textmap(before)


@pytest.mark.usefixtures("broken")
def test_what_fails_in_a_propagator_stops_no_task(
    server: Server, sent: list[Signature], caplog: pytest.LogCaptureFixture
) -> None:
    with tracing.tracer().start_as_current_span("sender"):
        server.send_task(new_signature("add", 1))
        server.send_task_with_context(None, new_signature("add", 2))

    assert [one.headers for one in sent] == [{}, {}]
    assert [record.name for record in caplog.records] == ["machinery_compat.tracing"] * 2


class Strange(JaegerPropagator):
    """A propagator whose headers Go could not send again."""

    def inject(self, carrier: Any, *args: Any, **kwargs: Any) -> None:
        carrier.update({"number": 1, "x" * 300: "x", "text": "x"})


def test_only_headers_that_go_can_send_again_are_added(server: Server, sent: list[Signature]) -> None:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(Strange())
    try:
        with tracing.tracer().start_as_current_span("sender"):
            server.send_task(new_signature("add", 1))
    finally:
        propagate.set_global_textmap(before)

    assert sent[0].headers == {"text": "x"}


# -- the calls with a context


def test_send_task_with_context_has_gos_span(server: Server, sent: list[Signature]) -> None:
    """If I send with a context, I expect it in the task alone, as in Go."""
    with tracing.tracer().start_as_current_span("sender") as sender:
        ctx = baggage.set_baggage("batch", "7", context.get_current())
    follower = new_signature("add", 2)

    server.send_task_with_context(ctx, new_signature("add", 1, on_success=[follower], headers={"tenant": "t1"}))

    (span,) = spans("SendTask")
    assert (span.kind, dict(span.attributes or {})) == (SpanKind.PRODUCER, {"component": "machinery"})
    assert parent_of(span).span_id == sender.get_span_context().span_id
    assert sent[0].headers == {"tenant": "t1", "baggage": "batch=7", "traceparent": traceparent(span)}
    assert sent[0].on_success
    assert sent[0].on_success[0]
    assert sent[0].on_success[0].headers is None


def test_the_current_context_is_the_default(server: Server, sent: list[Signature]) -> None:
    with tracing.tracer().start_as_current_span("sender") as sender:
        server.send_task_with_context(None, new_signature("add", 1))

    (span,) = spans("SendTask")
    assert parent_of(span).span_id == sender.get_span_context().span_id


def test_send_chain_with_context_writes_to_all_its_tasks(server: Server, sent: list[Signature]) -> None:
    steps = Chain(*(new_signature("add", number) for number in range(3)))

    result = server.send_chain_with_context(None, steps)

    (span,) = spans("SendChain")
    assert dict(span.attributes or {}) == {
        "component": "machinery",
        "machinery.workflow": "chain",
        "chain.tasks.length": 3,
    }
    assert [one.headers for one in steps.tasks] == [{"traceparent": traceparent(span)}] * 3
    assert len(sent) == 1
    assert sent[0].encode() == steps.tasks[0].encode()
    assert len(result.results) == 3


def test_send_group_with_context_writes_to_all_members(server: Server, sent: list[Signature]) -> None:
    group = Group(new_signature("add", 1, on_success=[new_signature("add")]), new_signature("add", 2))
    calls: list[tuple[int, int]] = []

    results = server.send_group_with_context(None, group, 5, lambda *call: calls.append(call))

    (span,) = spans("SendGroup")
    first, second = group.get_uuids()
    assert dict(span.attributes or {}) == {
        "component": "machinery",
        "machinery.workflow": "group",
        "group.uuid": group.group_uuid,
        "group.tasks.length": 2,
        "group.concurrency": 5,
        "group.tasks": f'["{first}","{second}"]',
    }
    assert [one.headers for one in sent] == [{"traceparent": traceparent(span)}] * 2
    assert sent[0].on_success
    assert sent[0].on_success[0]
    assert sent[0].on_success[0].headers is None
    assert (len(results), calls) == (2, [(1, 2), (2, 2)])


def test_send_chord_with_context_writes_to_members_and_callback(server: Server, sent: list[Signature]) -> None:
    chord = Chord(Group(new_signature("add", 1), new_signature("add", 2)), new_signature("add", uuid="chord_1"))

    server.send_chord_with_context(None, chord)

    (span,) = spans("SendChord")
    attributes = dict(span.attributes or {})
    assert (attributes["machinery.workflow"], attributes["chord.callback.uuid"]) == ("chord", "chord_1")
    assert (attributes["group.uuid"], attributes["group.concurrency"]) == (chord.group.group_uuid, 0)
    callbacks = [one.chord_callback for one in sent if one.chord_callback]
    found = [one.headers for one in (*sent, *callbacks, chord.callback)]
    assert found == [{"traceparent": traceparent(span)}] * 5


def test_an_error_of_the_send_is_the_spans_error(server: Server) -> None:
    with pytest.raises(Exception, match="needs a Name"):
        server.send_task_with_context(None, Signature())

    (span,) = spans("SendTask")
    assert span.status.status_code is StatusCode.ERROR


def test_a_send_inside_a_hook_has_the_span_too(server: Server, sent: list[Signature]) -> None:
    """Given a handler that sends a task of its own, I expect that one to belong to the trace."""
    server.set_pre_task_handler(lambda task: server.send_task(new_signature("log")) if task.name == "add" else None)

    server.send_task_with_context(None, new_signature("add", 1))

    (span,) = spans("SendTask")
    assert [(one.name, one.headers) for one in sent] == [
        ("log", {"traceparent": traceparent(span)}),
        ("add", {"traceparent": traceparent(span)}),
    ]


# -- what runs


def test_a_task_has_a_span_of_its_own(server: Server) -> None:
    task = new_signature("add", 1, headers={"traceparent": OTHER, "tracestate": "a=b", "flag": True})

    server.send_task(task)

    (span,) = spans()
    assert (span.name, span.kind, span.status.status_code) == ("add", SpanKind.CONSUMER, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "component": "machinery",
        "signature.name": "add",
        "signature.uuid": task.uuid,
    }
    assert traceparent_of_parent(span) == OTHER
    assert span.get_span_context().trace_state.to_header() == "a=b"


def traceparent_of_parent(span: ReadableSpan) -> str:
    return traceparent(trace.NonRecordingSpan(parent_of(span)))


def test_the_context_is_current_while_the_task_runs(server: Server) -> None:
    found: list[tuple[trace.Span, object]] = []

    def look() -> None:
        found.append((trace.get_current_span(), baggage.get_baggage("batch")))

    server.register_task("look", look)
    server.send_task(new_signature("look", headers={"traceparent": OTHER, "baggage": "batch=7"}))

    (span,) = spans("look")
    assert [(one.get_span_context(), batch) for one, batch in found] == [(span.get_span_context(), "7")]


def test_a_task_without_a_trace_begins_one(server: Server) -> None:
    server.send_task(new_signature("add", 1))
    server.send_task(new_signature("add", 1))

    first, second = spans("add")
    assert first.parent is second.parent is None
    assert len(trace_ids()) == 2


def test_a_message_without_a_trace_owes_nothing_to_what_is_current_in_the_worker(server: Server) -> None:
    body = new_signature("add", 1).encode()

    with tracing.tracer().start_as_current_span("of the worker's own"):
        server.app.machinery.eager.run(body)

    (span,) = spans("add")
    assert span.parent is None


def test_headers_that_are_no_text_are_passed_over(server: Server) -> None:
    server.app.machinery.eager.run(b'{"UUID":"task_1","Name":"add","Headers":{"traceparent":5,"tracestate":[1]}}')

    (span,) = spans("add")
    assert span.parent is None


def test_one_trace_from_the_sender_to_the_last_callback(server: Server) -> None:
    """Given a chord of a chain each, with callbacks, I expect one trace that tells who sent what."""
    members = [new_signature("add", n, on_success=[new_signature("add", n)]) for n in range(2)]
    chord = Chord(Group(*members), new_signature("fail", immutable=True, on_error=[new_signature("note")]))
    server.register_task("note", lambda *args: None)

    with tracing.tracer().start_as_current_span("sender") as sender:
        server.send_chord(chord)

    assert trace_ids() == {sender.get_span_context().trace_id}
    assert len(spans()) == 1 + 4 + 2
    (callback,) = spans("fail")
    names = {span.get_span_context().span_id: span for span in spans()}
    member = names[parent_of(callback).span_id]
    assert dict(member.attributes or {}) == {
        "component": "machinery",
        "signature.name": "add",
        "signature.uuid": members[1].uuid,
        "signature.group.uuid": chord.group.group_uuid,
        "signature.chord.callback.uuid": chord.callback.uuid,
        "signature.chord.callback.name": "fail",
    }
    (note,) = spans("note")
    assert parent_of(note).span_id == callback.get_span_context().span_id


def test_a_failure_is_the_spans_error(server: Server) -> None:
    server.send_task(new_signature("fail", "no luck"))

    (span,) = spans("fail")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no luck")
    (event,) = span.events
    assert (event.name, (event.attributes or {})["exception.type"]) == ("exception", "ValueError")


def test_an_exception_that_the_task_declares_is_no_error(server: Server) -> None:
    @server.app.task(name="declared", throws=(KeyError,), shared=False)
    def declared() -> None:
        raise KeyError("gone")

    declared.delay()

    (span,) = spans("declared")
    assert (span.status.status_code, len(span.events)) == (StatusCode.UNSET, 1)


def test_a_retry_belongs_to_the_trace(server: Server) -> None:
    tries: list[int] = []

    def again() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise RetryTaskLater("not yet", 0)

    server.register_task("again", again)
    with tracing.tracer().start_as_current_span("sender") as sender:
        server.send_task(new_signature("again"))

    first, second, third = spans("again")
    assert trace_ids() == {sender.get_span_context().trace_id}
    assert parent_of(third).span_id == second.get_span_context().span_id
    assert [len(span.events) for span in (first, second, third)] == [1, 1, 0]
    assert {span.status.status_code for span in spans()} == {StatusCode.UNSET}


def test_what_celery_runs_at_once_belongs_to_the_current_trace(server: Server) -> None:
    with tracing.tracer().start_as_current_span("sender") as sender:
        server.app.tasks["add"].apply((1,))

    (span,) = spans("add")
    assert parent_of(span).span_id == sender.get_span_context().span_id


def test_the_setting_switches_the_spans_off(server: Server) -> None:
    server.app.conf.machinery_tracing = False
    server.send_task(new_signature("add", 1, headers={"traceparent": OTHER}))

    assert spans() == []


# -- beside Celery's own instrumentation


@pytest.mark.usefixtures("instrumented")
def test_celerys_instrumentation_makes_the_spans_where_it_is_active(server: Server) -> None:
    with tracing.tracer().start_as_current_span("sender") as sender:
        server.app.tasks["add"].apply_async((1,), link=server.app.tasks["add"].s(2))
        server.send_task(new_signature("add", 1, on_success=[new_signature("add", 2)]))

    assert trace_ids() == {sender.get_span_context().trace_id}
    assert [span.name for span in spans() if span.kind is SpanKind.CONSUMER] == ["run/add"] * 4
    # A link may be sent by Celery's API or natively, which the instrumentation does not see.
    assert {span.name for span in spans() if span.kind is SpanKind.PRODUCER} == {"apply_async/add"}


@pytest.mark.usefixtures("instrumented")
def test_what_celerys_instrumentation_injects_is_what_arrives(server: Server, sent: list[Signature]) -> None:
    server.app.tasks["add"].delay(1)

    (span,) = spans("apply_async/add")
    assert sent[0].headers == {"traceparent": traceparent(span)}


def test_when_celerys_instrumentation_ends_ours_begins(server: Server) -> None:
    CeleryInstrumentor().instrument()
    CeleryInstrumentor().uninstrument()

    server.send_task(new_signature("add", 1))

    assert [span.name for span in spans()] == ["add"]


# -- without OpenTelemetry

WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from celery import signals
from machinery_compat import Chain, Chord, Config, Group, Server, errors, new_signature
server = Server(Config(broker="eager", result_backend="eager"))
server.register_task("add", lambda *numbers: sum(numbers))
print(server.send_task(new_signature("add", 1, 2)).get(), server.app.tasks["add"].delay(1, 2).get())
one = new_signature("add", 1)
for call, what in (
    (server.send_task_with_context, one),
    (server.send_chain_with_context, Chain(one)),
    (server.send_group_with_context, Group(one)),
    (server.send_chord_with_context, Chord(Group(one), new_signature("add"))),
):
    try:
        call(None, what)
    except errors.ConfigError as error:
        print(error)
print(len(signals.task_prerun.receivers), len(signals.task_postrun.receivers))
"""

UNUSED = """
import sys
sys.modules["redis"] = None  # which imports OpenTelemetry itself where it can
from machinery_compat import Config, Server, new_signature
server = Server(Config(broker="eager", result_backend="eager"))
server.register_task("add", lambda *numbers: sum(numbers))
print(server.send_task(new_signature("add", 1, 2)).get())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def run(program: str) -> list[str]:
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def test_without_opentelemetry_the_plain_calls_work_and_the_others_name_the_extra() -> None:
    results, *failures, receivers = run(WITHOUT)

    assert (results, receivers) == ("[3] 3", "0 0")
    assert len(failures) == 4
    assert all(failure.endswith("pip install 'machinery-compat[otel]'") for failure in failures)


def test_a_process_that_does_not_use_opentelemetry_does_not_import_it() -> None:
    assert run(UNUSED) == ["[3]", "[]"]


def test_the_spans_are_connected_once() -> None:
    before = len(signals.task_prerun.receivers)
    eager_server()
    assert len(signals.task_prerun.receivers) == before
