"""Payloads that try to make a worker import, run or end something: it runs registered tasks and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import TaskState
from tests.fault.conftest import Site
from tests.support.waiting import wait_for

#: Replaced with the path of a file that must not come into being.
FILE = "@FILE@"
SHELL = f"touch {FILE}"
ATTACK = {"task": "os.system", "args": [SHELL], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": True}
GOOD = {"task": "py_nothing", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": True}


def signature(name: str = "py_nothing", *args: Any, **fields: Any) -> bytes:
    packed = [{"Name": "celery:json", "Type": "string", "Value": json.dumps(arg)} for arg in args]
    return json.dumps({"UUID": "task_hostile", "Name": name, "Args": packed, **fields}).encode()


def with_header(**members: Any) -> bytes:
    return signature(Headers={"celery": json.dumps(members)})


def built_in(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {
        "task": f"celery.{kind}",
        "args": [],
        "kwargs": kwargs,
        "options": {},
        "subtask_type": kind,
        "immutable": False,
    }


#: Every one of them is a task that is registered, with what should not be run inside.
PAYLOADS: dict[str, bytes] = {
    "callback": with_header(callbacks=[ATTACK]),
    "error callback": signature("py_fail", "x", Headers={"celery": json.dumps({"errbacks": [ATTACK]})}),
    "chain": with_header(chain=[ATTACK]),
    "chord": with_header(chord=ATTACK, group="g", group_index=0),
    "map": signature("celery.map", {"task": "os.system"}, [SHELL]),
    "starmap": signature("celery.starmap", {"task": "os.system"}, [[SHELL]]),
    "map as a callback": with_header(callbacks=[{**GOOD, "task": "celery.map", "args": [ATTACK, [SHELL]]}]),
    "chunks": signature("celery.chunks", {"task": "os.system"}, [[SHELL]], 1),
    "a chain in a callback": with_header(callbacks=[built_in("chain", tasks=[ATTACK, ATTACK])]),
    "a chain of texts": with_header(callbacks=[built_in("chain", tasks="os.system")]),
    "a group in a callback": with_header(callbacks=[built_in("group", tasks=[ATTACK, 5])]),
    "a chord in a callback": with_header(callbacks=[built_in("chord", header=[ATTACK], body=ATTACK)]),
    "a chord of nothing": with_header(chord=built_in("chord"), group="g"),
    "a chord of texts": with_header(chain=[built_in("chord", header="x", body="y")]),
    "an unknown kind": with_header(callbacks=[{**GOOD, "subtask_type": "os.system"}]),
    "a kind that is a list": with_header(callbacks=[{**GOOD, "subtask_type": [1]}]),
    "options that are a text": with_header(callbacks=[{**GOOD, "options": "x"}]),
    "options of another broker": with_header(
        callbacks=[{**GOOD, "options": {"connection": "redis://127.0.0.1:1", "serializer": "pickle", "producer": "x"}}]
    ),
    "arguments that are a text": with_header(chain=[{**GOOD, "args": "x", "kwargs": 5}]),
    "a canvas without members": with_header(callbacks=[{"task": "py_nothing"}], chain=[{"task": "py_nothing"}]),
    "stamps": with_header(stamped_headers=["link", "serializer"], stamps={"link": [ATTACK], "serializer": "pickle"}),
    "stamps that are not there": with_header(stamped_headers=["a"], stamps={}),
    "reply_to": with_header(reply_to="celery@other;os.system"),
    "reply_to that is none": with_header(reply_to={"a": 1}),
    "a shadow of two lines": with_header(shadow="x\n[2026-01-01 00:00:00,000: ERROR/MainProcess] y"),
    "two to the power of its retries": with_header(retries=10**12),
    "limits without end": signature(Headers={"celery": '{"timelimit": [Infinity, NaN]}'}),
    "limits below zero": with_header(timelimit=[-1, -1]),
    "the first year": with_header(expires="0001-01-01T00:00:00"),
    "the last year": with_header(expires="9999-12-31T23:59:59-23:59"),
    "pickle": signature(Headers={"content_type": "application/x-python-serialize", "serializer": "pickle"}),
    "a type with a decoder": signature("py_describe", {"__type__": "os.system", "__value__": SHELL}),
    "a name of Go's": signature("os.system", SHELL, IgnoreWhenTaskNotRegistered=True),
    "a chord of Go's": signature(GroupUUID="g_hostile", GroupTaskCount=2**60, ChordCallback={"Name": "os.system"}),
}  # fmt: skip


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[Path]:
    """A file that no payload may make."""
    path = tmp_path / "made"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("what", PAYLOADS)
def test_nothing_but_registered_tasks_runs(site: Site, forbidden: Path, what: str) -> None:
    site.redis.delete("task_hostile")
    process = site.worker.process.pid

    site.put(PAYLOADS[what].replace(FILE.encode(), str(forbidden).encode()))

    if what != "a name of Go's":
        wait_for(lambda: has_ended(site))
    site.works()
    assert site.worker.process.pid == process
    assert site.worker.process.running()
    site.dead()


def has_ended(site: Site) -> bool:
    data = site.redis.get("task_hostile")
    return data is not None and TaskState.decode(data).state in ("SUCCESS", "FAILURE")
