"""Celery's own API on the broker and the result backend `eager`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, Ignore, TaskRevokedError

from machinery_compat import Celery, Config, Server, enable
from tests.support.eager import add, fail, history

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def total(numbers: list[int]) -> int:
    return sum(numbers)


@pytest.fixture
def tasks(app: Celery) -> dict[str, Any]:
    made = {}
    for function in (add, fail):
        made[function.__name__] = app.task(name=function.__name__, shared=False)(function)
    made["total"] = app.task(name="total", shared=False)(total)
    return made


def test_delay_and_apply_async(app: Celery, tasks: dict[str, Any]) -> None:
    result = tasks["add"].delay(1, 2)

    assert (result.state, result.get()) == ("SUCCESS", 3)
    assert tasks["add"].apply_async((1,), countdown=3600).get() == 1
    with pytest.raises(ValueError, match="boom"):
        tasks["fail"].delay().get()
    assert app.AsyncResult("task_nobody_sent").state == "PENDING"
    tasks["add"].delay().forget()


def test_a_task_may_wait_for_the_tasks_that_it_sends(app: Celery) -> None:
    def down(n: int) -> int:
        return 0 if n == 0 else app.send_task("eager_down", [n - 1]).get(timeout=1) + 1

    app.task(name="eager_down", shared=False)(down)

    # More than Celery's pools of connections have.
    assert app.send_task("eager_down", [15]).get(timeout=1) == 15


def test_canvas(app: Celery, tasks: dict[str, Any]) -> None:
    add_, total_ = tasks["add"], tasks["total"]

    assert chain(add_.s(1), add_.s(2), add_.s(3))().get(timeout=1) == 6
    assert chain(*(add_.s(1) for _ in range(200)))().get(timeout=1) == 200
    assert group(add_.s(n, n) for n in range(4))().get(timeout=1) == [0, 2, 4, 6]
    assert chord([add_.s(n, n) for n in range(20)], total_.s())().get(timeout=1) == 380
    assert (add_.s(1, 1) | group(add_.s(1), add_.s(2)) | total_.s() | add_.s(10)).delay().get(timeout=1) == 17
    nested = chord([chord([add_.s(n), add_.s(n)], total_.s()) for n in range(3)], total_.s())
    assert nested().get(timeout=1) == 6
    assert add_.chunks(zip(range(6), range(6), strict=True), 2)().get(timeout=1) == [[0, 2], [4, 6], [8, 10]]
    assert add_.starmap([(1, 2), (3, 4)]).delay().get(timeout=1) == [3, 7]
    failed = chord([add_.s(1), tasks["fail"].si()], total_.s())()
    assert isinstance(failed.result, ChordError)
    with pytest.raises(ValueError, match="boom"):
        failed.get(timeout=1)


def test_link_and_link_error(tasks: dict[str, Any], calls: list[Any], app: Celery) -> None:
    note = app.tasks["note"]

    tasks["add"].apply_async((1, 2), link=note.s(5))
    tasks["fail"].apply_async(link_error=note.si("failed"))

    assert calls == [(3, 5), ("failed",)]


def test_celerys_own_retry_and_replace(app: Celery, server: Server) -> None:
    @app.task(name="eager_again", bind=True, max_retries=None, shared=False)
    def again(self: celery.Task, times: int) -> int:
        if self.request.retries < times:
            raise self.retry(countdown=60)
        return int(self.request.retries)

    @app.task(name="eager_swap", bind=True, shared=False)
    def swap(self: celery.Task) -> None:
        raise self.replace(chain(again.s(1), app.tasks["add"].s(10)))

    sent = again.delay(300)
    assert sent.get(timeout=1) == 300
    assert history(server, sent.id)[:5] == ["PENDING", "RECEIVED", "STARTED", "PENDING", "RETRY"]
    assert swap.delay().get(timeout=1) == 11


def test_states_that_are_not_written(app: Celery, server: Server) -> None:
    def ignore() -> None:
        raise Ignore

    app.task(name="eager_ignore", shared=False)(ignore)
    quiet = app.task(name="eager_quiet", shared=False, ignore_result=True)(add)

    assert app.send_task("eager_ignore").state == "STARTED"
    assert quiet.delay().state == "PENDING"
    expired = app.send_task("add", [1], expires=datetime.now(timezone.utc) - timedelta(seconds=1))
    with pytest.raises(TaskRevokedError, match="expired"):
        expired.get()


def test_two_applications_share_nothing(server: Server) -> None:
    other = Server(Config(broker="eager", result_backend="eager"))
    other.register_task("add", lambda *numbers: -1)

    sent = server.app.send_task("add", [1])

    assert other.app.send_task("add", [1]).get() == -1
    assert other.app.AsyncResult(sent.id).state == "PENDING"


def test_enable_and_the_current_application() -> None:
    app = celery.Celery("plain", broker="eager", backend="eager", set_as_current=False)
    enable(app)
    before = celery.current_app.main

    @app.task(name="look", shared=False)
    def look() -> str:
        return str(celery.current_app.main)

    assert app.send_task("look").get() == "plain"
    assert celery.current_app.main == before


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "amqp://127.0.0.1:1", "eager"])
def test_task_always_eager_needs_no_server(url: str) -> None:
    app = Celery("always", broker=url, backend="redis://127.0.0.1:1", set_as_current=False)
    app.conf.task_always_eager = True
    add_ = app.task(name="eager_add", shared=False)(add)

    assert add_.delay(1, 2).get() == 3
    assert (add_.s(1) | add_.s(2)).delay().get() == 3
    assert chord([add_.s(1), add_.s(2)], app.task(name="eager_total", shared=False)(total).s())().get() == 3


def test_the_programs_of_the_documentation() -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)  # noqa: S102 - our own page

    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
