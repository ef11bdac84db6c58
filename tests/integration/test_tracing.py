"""One trace from the sender to the last task, through a real worker with processes of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from opentelemetry import trace

from machinery_compat import Chain, Chord, Group, Signature, new_signature
from tests.interop.conftest import Fleet
from tests.support import tracing
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.parametrize("fleet", ["v2-redigo"], indirect=True)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tracing.md"
#: Whether Celery's own instrumentation makes the spans, and how it calls them.
MAKERS = [pytest.param({}, "", id="ours"), pytest.param({"INSTRUMENT": "1"}, "run/", id="celerys")]


@pytest.fixture(autouse=True)
def _recording() -> Iterator[None]:
    with tracing.recording():
        yield


@dataclass(frozen=True)
class Span:
    """A span that a worker has written."""

    name: str
    trace: int
    span: str
    parent: str | None
    status: str
    kind: str


def read(path: Path) -> list[Span]:
    """The spans of the tasks, the first to begin first; without those with which Celery's instrumentation sends."""
    whole, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
    # A task ends after its follower has been sent, so any of the two may be written first.
    read = sorted(map(json.loads, whole.splitlines()), key=lambda one: one["start_time"])
    found = [_span(one) for one in read]
    return [one for one in found if one.kind == "SpanKind.CONSUMER"]


def _span(read: dict[str, Any]) -> Span:
    about = read["context"]
    return Span(
        read["name"],
        int(about["trace_id"], 16),
        about["span_id"],
        read["parent_id"],
        read["status"]["status_code"],
        read["kind"],
    )


@pytest.mark.parametrize(("variables", "prefix"), MAKERS)
def test_one_trace_through_every_workflow(fleet: Fleet, variables: dict[str, str], prefix: str) -> None:
    """If I send chains, groups and chords in one span, I expect all their tasks in its trace."""
    path = fleet.directory / "spans"
    fleet.python(tasks="tests.support.traced_tasks", SPANS=str(path), **variables)
    server, app = fleet.server, fleet.server.app

    def add(*numbers: int) -> Signature:
        return new_signature("traced.add", *numbers)

    def step(*numbers: int) -> Any:
        return app.signature("traced.add", args=numbers)

    with tracing.tracer().start_as_current_span("sender") as sender:
        steps = server.send_chain(Chain(add(1), add(2), add(3)))
        with_context = server.send_chain_with_context(None, Chain(add(1), add(2), add(3)))
        members = server.send_group(Group(add(1), add(2), add(3)))
        native = server.send_chord(Chord(Group(add(1), add(2)), add()))
        server.send_task(new_signature("traced.fail", on_error=[new_signature("traced.note")]))
        sent = [
            chain(step(1), step(2), step(3)).delay(),
            group(step(1), step(2)).delay(),
            chord([step(1), step(2)], app.signature("traced.total")).delay(),
        ]

    assert steps.get_with_timeout(20) == with_context.get_with_timeout(20) == [6]
    assert [one.get_with_timeout(20) for one in members] == [[1], [2], [3]]
    assert native.get_with_timeout(20) == [3]
    assert [one.get(timeout=20) for one in sent] == [6, [1, 2], 3]
    ran = {
        f"{prefix}traced.add": 3 + 3 + 3 + (2 + 1) + 3 + 2 + 2,
        f"{prefix}traced.total": 1,
        f"{prefix}traced.fail": 1,
        f"{prefix}traced.note": 1,
    }
    wait_for(lambda: counts(path) == ran, 20, lambda: f"{counts(path)} are not {ran}")
    assert {span.trace for span in read(path)} == {sender.get_span_context().trace_id}
    assert [span.name for span in read(path) if span.status == "ERROR"] == [f"{prefix}traced.fail"]


def counts(path: Path) -> dict[str, int]:
    """How often each task has run, without Celery's own."""
    return dict(Counter(span.name for span in read(path) if "traced." in span.name))


def test_each_step_of_a_chain_is_the_child_of_the_one_before(fleet: Fleet) -> None:
    path = fleet.directory / "spans"
    fleet.python(tasks="tests.support.traced_tasks", SPANS=str(path))
    steps = Chain(*(new_signature("traced.add", number) for number in range(3)))

    fleet.server.send_chain_with_context(None, steps).get_with_timeout(20)

    wait_for(lambda: len(read(path)) == 3, 20, lambda: str(read(path)))
    (producer,) = tracing.spans("SendChain")
    first, second, third = read(path)
    assert first.parent == f"0x{trace.format_span_id(producer.get_span_context().span_id)}"
    assert (second.parent, third.parent) == (first.span, second.span)


def test_the_example_of_the_docs_runs(fleet: Fleet) -> None:
    """If I do what the page on tracing says, I expect the trace of the sender in the worker's log."""
    tasks, sender, *_ = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (fleet.directory / "documented.py").write_text(tasks)
    (fleet.directory / "sender.py").write_text(sender)
    path = f"{fleet.directory}{os.pathsep}{ROOT}"
    worker = fleet.python(tasks="documented", PYTHONPATH=path)

    ended = subprocess.run(
        [sys.executable, str(fleet.directory / "sender.py")],
        env={**os.environ, "BROKER": fleet.broker, "RESULT_BACKEND": fleet.backend, "PYTHONPATH": path}
        | {"DEFAULT_QUEUE": fleet.names.queue},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    result, told = ended.stdout.splitlines()
    assert result == "[6]"
    trace_id = told.removeprefix("trace ")
    wait_for(lambda: worker.text().count(f'"trace_id": "0x{trace_id}"') == 3, 10, worker.text)
