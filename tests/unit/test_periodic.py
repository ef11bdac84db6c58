"""Periodic workflows without servers: what is sent, when, and under which lock."""

from __future__ import annotations

import configparser
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.utils.imports import symbol_by_name

from machinery_compat import Chain, Chord, Config, Group, Server, Signature, new_signature
from machinery_compat.beat import Scheduler
from machinery_compat.errors import ConfigError, CronError, EncodeError, LockError
from machinery_compat.periodic import leave_to_beat
from machinery_compat.wire import Arg
from machinery_compat.wire.trees import tree_of
from tests.support.waiting import wait_for

SECOND = 10**9
EVERY = "@every 1s"


class OpenLock:
    """A lock that is free, or taken, or out of order."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.asked: list[tuple[str, int]] = []

    def lock(self, key: str, value: int) -> None:
        self.asked.append((key, value))
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    lock_with_retries = lock


class Recorder(Server):
    """A Server whose broker is a list."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Config(broker="redis://127.0.0.1:1", result_backend="redis://127.0.0.1:1"), **options)
        self.sent: list[Any] = []

    def record(self, workflow: Any, *concurrency: int) -> None:
        self.sent.append((workflow, *concurrency) if concurrency else workflow)

    send_task = send_chain = send_group = send_chord = record  # type: ignore[assignment]

    def at_a_tick(self, count: int = 1) -> None:
        """Lets the workflows be due, as often as is asked for, without waiting for it."""
        for _ in range(count):
            for entry in self.periodic._entries:
                entry.due = int(time.time())
            self.periodic.tick()
            wait_for(lambda: not self.periodic._under_way)


@pytest.fixture
def lock() -> OpenLock:
    return OpenLock()


@pytest.fixture
def server(lock: OpenLock) -> Iterator[Recorder]:
    server = Recorder(lock=lock, program_name="program", run_periodic=False)
    yield server
    server.periodic.stop()


def test_the_lock_is_named_as_go_names_it(server: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    lock_name = server.periodic.lock_name
    assert lock_name("name", "*/3 * * * *") == "machinery_lock_programname*/3 * * * *"
    server.periodic._program_name = None
    monkeypatch.setattr(sys, "argv", ["/usr/bin/app"])
    assert lock_name("n", "@hourly") == "machinery_lock_appn@hourly"
    server.app.conf.machinery_program_name = "other"
    assert lock_name("n", "@hourly") == "machinery_lock_othern@hourly"


def test_the_lock_is_taken_until_the_next_tick(server: Recorder, lock: OpenLock) -> None:
    server.register_periodic_task("@every 2s", "name", new_signature("task"))
    now = time.time_ns()
    server.at_a_tick()
    ((key, until),) = lock.asked
    assert key == "machinery_lock_programname@every 2s"
    assert (until + 1) % SECOND == 0
    assert 0 <= until + 1 - now - SECOND <= 1.5 * SECOND


def test_a_task_is_sent_as_a_new_one_each_time(server: Recorder) -> None:
    signature = new_signature(
        "task", 1, eta="2024-01-02T03:04:05Z", on_success=[new_signature("after")], on_error=[new_signature("wrong")]
    )
    before = signature.encode()
    server.register_periodic_task(EVERY, "name", signature)
    server.at_a_tick(2)
    first, second = server.sent
    assert first is not second
    for sent in (first, second):
        assert [one.uuid for one in tree_of(sent)] == ["", "", ""]
        assert sent.eta is None
        assert sent.args[0].value == 1
    assert signature.encode() == before


def test_chains_groups_and_chords_are_put_together_each_time(server: Recorder) -> None:
    members = new_signature("one"), new_signature("two")
    server.register_periodic_chain(EVERY, "chain", *members)
    server.register_periodic_group(EVERY, "group", 3, *members)
    server.register_periodic_chord(EVERY, "chord", 4, new_signature("end"), *members)
    server.at_a_tick(2)
    uuids = set()
    for _ in range(2):
        kinds: dict[type, Any] = {}
        for sent in [server.sent.pop() for _ in range(3)]:
            workflow, *concurrency = sent if isinstance(sent, tuple) else (sent,)
            kinds[type(workflow)] = workflow
            assert concurrency == {Chain: [], Group: [3], Chord: [4]}[type(workflow)]
        assert [one.name for one in kinds[Chain].tasks] == ["one", "two"]
        assert kinds[Chain].tasks[0].on_success == [kinds[Chain].tasks[1]]
        assert kinds[Chord].callback.name == "end"
        for task in (*kinds[Chain].tasks, *kinds[Group].tasks, *kinds[Chord].group.tasks, kinds[Chord].callback):
            uuids.add(task.uuid)
        uuids.add(kinds[Group].group_uuid)
    assert len(uuids) == 16
    assert not {one.uuid for one in members} & uuids


def test_what_another_process_sends_is_left_out_in_silence(
    server: Recorder, lock: OpenLock, caplog: pytest.LogCaptureFixture
) -> None:
    server.register_periodic_task(EVERY, "name", new_signature("task"))
    lock.failures = [LockError("taken")]
    server.at_a_tick()
    assert (server.sent, caplog.text) == ([], "")
    server.at_a_tick()
    assert len(server.sent) == 1


def test_a_lock_that_is_out_of_order_is_told(
    server: Recorder, lock: OpenLock, caplog: pytest.LogCaptureFixture
) -> None:
    server.register_periodic_task(EVERY, "name", new_signature("task"))
    error = LockError("no lock")
    error.__cause__ = OSError("no route")
    lock.failures = [error]
    server.at_a_tick()
    assert server.sent == []
    assert "name is not sent: no lock: no route" in caplog.text


def test_a_task_that_cannot_be_sent_is_tried_again_at_the_next_tick(
    server: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.register_periodic_task(EVERY, "name", new_signature("task"))
    with monkeypatch.context() as broken:
        broken.setattr(Recorder, "send_task", lambda self, signature: 1 / 0)
        server.at_a_tick()
    assert "periodic task failed. task name is: name" in caplog.text
    server.at_a_tick()
    assert len(server.sent) == 1


def test_a_tick_is_left_out_when_too_many_are_on_their_way(
    server: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setattr(Recorder, "send_task", lambda self, signature: release.wait(10))
    server.register_periodic_task(EVERY, "name", new_signature("task"))
    (entry,) = server.periodic._entries
    for _ in range(12):
        entry.due = int(time.time())
        server.periodic.tick()
    assert caplog.text.count("still being sent for 10 earlier times") == 2
    release.set()
    server.periodic.stop()
    assert not server.periodic._under_way


def test_missed_ticks_are_not_made_up_for(server: Recorder) -> None:
    server.register_periodic_task(EVERY, "name", new_signature("task"))
    (entry,) = server.periodic._entries
    entry.due = int(time.time()) - 3600
    for _ in range(3):
        server.periodic.tick()
    server.periodic.stop()
    assert len(server.sent) == 1
    assert entry.due is not None
    assert entry.due >= int(time.time())


def test_nothing_comes_of_what_never_comes(server: Recorder) -> None:
    server.register_periodic_task("0 0 30 2 *", "name", new_signature("task"))
    assert server.periodic.tick() == pytest.approx(60, abs=1)
    assert server.sent == []


@pytest.mark.parametrize("spec", ["@every", "* * * *", "", "61 * * * *"])
def test_a_wrong_spec_is_refused_at_once(server: Recorder, spec: str) -> None:
    task = new_signature("task")
    for register in (
        lambda: server.register_periodic_task(spec, "name", task),
        lambda: server.register_periodic_chain(spec, "name", task),
        lambda: server.register_periodic_group(spec, "name", 0, task),
        lambda: server.register_periodic_chord(spec, "name", 0, task, task),
    ):
        with pytest.raises(CronError):
            register()
    assert server.periodic._entries == []


def test_what_cannot_be_sent_is_refused_at_once(server: Recorder) -> None:
    wrong, right = Signature(name="task", args=[Arg.from_raw("int64", b"{}")]), new_signature("task")
    for register in (
        lambda: server.register_periodic_task(EVERY, "name", wrong),
        lambda: server.register_periodic_chain(EVERY, "name", right, wrong),
        lambda: server.register_periodic_group(EVERY, "name", 0, right, wrong),
        lambda: server.register_periodic_chord(EVERY, "name", 0, wrong, right),
    ):
        with pytest.raises(EncodeError):
            register()
    with pytest.raises(ConfigError, match="no tasks"):
        server.register_periodic_chain(EVERY, "name")


def test_two_workflows_with_one_lock_are_told(server: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        server.register_periodic_task(EVERY, "name", new_signature("task"))
    assert "have one lock" in caplog.text


def test_the_thread_sends_until_it_is_stopped(lock: OpenLock) -> None:
    server = Recorder(lock=lock)
    server.register_periodic_task("@yearly", "rare", new_signature("rare"))
    server.register_periodic_task(EVERY, "name", new_signature("task"))
    wait_for(lambda: server.sent, 5)
    server.periodic.stop()
    sent = len(server.sent)
    time.sleep(1.1)
    assert len(server.sent) == sent
    server.periodic.start()
    wait_for(lambda: len(server.sent) > sent, 5)
    server.periodic.stop()
    assert {signature.name for signature in server.sent} == {"task"}


def test_celery_beat_takes_over(lock: OpenLock, tmp_path: Path) -> None:
    server = Recorder(lock=lock)
    server.register_periodic_task("@yearly", "rare", new_signature("rare"))
    assert server.periodic._thread is not None
    assert symbol_by_name(server.app.conf.beat_scheduler) is Scheduler

    scheduler = Scheduler(server.app, schedule_filename=str(tmp_path / "schedule"))
    assert server.periodic._thread is None
    server.register_periodic_task(EVERY, "name", new_signature("task"))
    assert server.periodic._thread is None
    wait_for(lambda: scheduler.tick() > 1 or server.sent, 5)
    scheduler.close()
    assert [signature.name for signature in server.sent] == ["task"]


def test_a_worker_with_beat_inside_leaves_it_to_that() -> None:
    from celery import signals

    server, other = Recorder(), Recorder()
    worker = type("Worker", (), {"app": server.app})
    signals.celeryd_init.send(sender="name", instance=worker, conf=server.app.conf, options={"beat": False})
    assert not server.app.machinery.beat
    signals.celeryd_init.send(sender="name", instance=worker, conf=server.app.conf, options={"beat": True})
    assert server.app.machinery.beat
    assert not other.app.machinery.beat


def test_an_application_of_celery_has_nothing_to_leave() -> None:
    leave_to_beat(object())


def test_a_forked_process_can_take_over(lock: OpenLock) -> None:
    server = Recorder(lock=lock)
    server.register_periodic_task("@yearly", "rare", new_signature("rare"))
    logging.shutdown()
    child = os.fork()
    if not child:
        leave_to_beat(server.app)
        os._exit(0 if server.periodic.tick() > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    server.periodic.stop()


def test_beats_entry_point_is_installed() -> None:
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[2] / "setup.cfg")
    line = parser["options.entry_points"]["celery.beat_schedulers"].strip()
    name, _, target = line.partition(" = ")
    assert name == "machinery"
    assert symbol_by_name(target) is Scheduler
