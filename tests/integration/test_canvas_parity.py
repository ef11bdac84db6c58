"""Celery's canvas gives the same here as in plain Celery on the same Redis, with real prefork workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery.canvas import Signature, chain, chord, group
from celery.exceptions import ChordError

from tests.integration.canvas_apps import SHAPES, make
from tests.support.processes import Process
from tests.support.services import RedisServer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.redis

ROOT = Path(__file__).parents[2]
DATABASES = {"plain": 14, "ours": 15}


@pytest.fixture(scope="module")
def apps(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Both applications, each with a worker."""
    folder = tmp_path_factory.mktemp("canvas")
    found, workers = {}, []
    for kind, database in DATABASES.items():
        redis_server.client(database).flushdb()
        url = redis_server.url(database)
        log = folder / f"{kind}.log"
        command = [
            *(sys.executable, "-m", "celery", "-A", "tests.integration.canvas_apps", "worker", "-c", "2"),
            *("-n", f"{kind}@test", "--without-gossip", "--without-mingle", "-l", "INFO"),
        ]
        environment = {"CANVAS": kind, "CANVAS_REDIS": url, "PYTHONPATH": str(ROOT)}
        workers.append(Process(command, log, environment))
        found[kind] = make(kind, url)
    for worker in workers:
        wait_for(lambda worker=worker: " ready." in worker.log.read_text(), 40, worker.tail)
    # A sender that knows the tasks by name only, as it knows Go's: its chains go as nested Signatures.
    found["by name"] = make("ours", redis_server.url(DATABASES["ours"]), registers=False)
    yield found
    for worker in workers:
        print(worker.tail())
        worker.kill()


def outcome(app: Any, shape: Any) -> Any:
    """What a shape gives: its value, or its error's type and text."""

    canvas: Signature = shape(lambda name: Named(app, f"canvas.{name}"))
    result = canvas.apply_async()
    try:
        return as_json(result.get(timeout=30))
    except ChordError as exc:
        # A client that waits for a body may see the failed member first, as ever it comes.
        return str(exc).split(" raised ")[-1].removesuffix('")')
    except Exception as exc:  # noqa: BLE001 - any error is an outcome to be compared
        return repr(exc)


class Named:
    """A task by its name, which the application need not have."""

    def __init__(self, app: Any, name: str) -> None:
        self.app, self.name = app, name

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        return self.app.signature(self.name, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        return self.app.signature(self.name, args, kwargs, immutable=True)

    def __getattr__(self, of_the_task: str) -> Any:
        return getattr(self.app.tasks[self.name], of_the_task)


def as_json(value: Any) -> Any:
    """Tuples as the lists that plain Celery's JSON makes of them."""
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    return {name: as_json(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in ("chunks", "map", "starmap")])
def test_a_shape_sent_by_name_gives_the_same(apps: dict[str, Any], name: str) -> None:
    assert outcome(apps["by name"], SHAPES[name]) == outcome(apps["plain"], SHAPES[name])


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_gives_what_it_gives_in_celery(apps: dict[str, Any], name: str) -> None:
    assert outcome(apps["ours"], SHAPES[name]) == outcome(apps["plain"], SHAPES[name])


def test_what_a_failed_chord_says(apps: dict[str, Any]) -> None:
    found = {}
    for kind in DATABASES:
        tasks = apps[kind].tasks
        errback = tasks["canvas.same"].s()
        errback.freeze()
        body = tasks["canvas.xsum"].s()
        body.link_error(errback)
        result = chord([tasks["canvas.fail"].s(), tasks["canvas.same"].s(1)], body).apply_async()
        alone = apps[kind].AsyncResult(result.id)

        with pytest.raises(ChordError, match=r"Dependency \S+ raised ValueError\('no luck'\)"):
            alone.get(timeout=20)
        found[kind] = apps[kind].AsyncResult(errback.id).get(timeout=20) == result.id
    assert found["ours"] is found["plain"] is True


def test_chords_are_not_polled_for(apps: dict[str, Any], redis_server: RedisServer) -> None:
    """The body goes out with the end of the last member: no task that polls for it was ever sent."""
    add, xsum = (apps["ours"].tasks[f"canvas.{name}"] for name in ("add", "xsum"))

    assert chord([add.s(n, n) for n in range(3)], xsum.s()).apply_async().get(timeout=20) == 6

    client = redis_server.client(DATABASES["ours"])
    texts = [client.get(key) for key in client.keys("*") if client.type(key) == b"string"]
    assert not [text for text in texts if text and b"unlock" in text]


def test_links_and_their_children(apps: dict[str, Any]) -> None:
    found = {}
    for kind in DATABASES:
        tasks = apps[kind].tasks
        result = tasks["canvas.add"].apply_async((2, 2), link=tasks["canvas.mul"].s(10))
        result.get(timeout=20)
        found[kind] = [value for _, value in result.collect(timeout=20)]
    assert found["ours"] == found["plain"] == [4, 40]


def test_an_error_callback(apps: dict[str, Any]) -> None:
    for kind in DATABASES:
        tasks = apps[kind].tasks
        errback = tasks["canvas.same"].s()
        errback.freeze()

        failed = tasks["canvas.fail"].apply_async(link_error=errback)

        assert apps[kind].AsyncResult(errback.id).get(timeout=20) == failed.id, kind


def test_stamps_and_options(apps: dict[str, Any]) -> None:
    for kind in DATABASES:
        stamped = apps[kind].tasks["canvas.stamped"].s()
        stamped.stamp(batch="b1")
        assert stamped.apply_async().get(timeout=20) == {"batch": "b1"}, kind


def test_parents(apps: dict[str, Any]) -> None:
    found = {}
    for kind in DATABASES:
        add = apps[kind].tasks["canvas.add"]
        result = (add.s(1, 1) | add.s(2) | add.s(3)).apply_async()
        found[kind] = [result.get(timeout=20), result.parent.get(timeout=20), result.parent.parent.get(timeout=20)]
    assert found["ours"] == found["plain"] == [7, 4, 2]


def test_everything_can_be_collected(apps: dict[str, Any]) -> None:
    found = {}
    for kind in DATABASES:
        add, mul, xsum = (apps[kind].tasks[f"canvas.{name}"] for name in ("add", "mul", "xsum"))
        first = add.s(1, 1)
        first.freeze()
        (first | group(add.s(10), mul.s(10)) | xsum.s() | add.s(1)).apply_async().get(timeout=20)
        result = apps[kind].AsyncResult(first.id)
        found[kind] = [as_json(value) for _, value in result.collect(timeout=20)]
    assert found["ours"] == found["plain"]


def test_a_saved_group_is_restored(apps: dict[str, Any]) -> None:
    found = {}
    for kind in DATABASES:
        app = apps[kind]
        add, mul = (app.tasks[f"canvas.{name}"] for name in ("add", "mul"))
        result = group(add.s(1, 1), add.s(2, 2) | mul.s(3)).apply_async()
        result.save()
        restored = app.GroupResult.restore(result.id)
        found[kind] = [restored.get(timeout=20), [child.id for child in restored] == [child.id for child in result]]
        restored.delete()
        assert app.GroupResult.restore(result.id) is None
    assert found["ours"] == found["plain"] == [[2, 12], True]


def test_a_frozen_chord_can_be_sent_again(apps: dict[str, Any], tmp_path: Path) -> None:
    # With plain Celery too, but for a race with the end of the first one.
    same, note = (apps["ours"].tasks[f"canvas.{name}"] for name in ("same", "note"))
    noted = tmp_path / "noted"
    frozen = chord([same.s(1), same.s(2)], note.s(str(noted)))
    frozen.freeze()

    for times in (1, 2):
        frozen.apply_async()
        wait_for(lambda n=times: noted.exists() and noted.read_text() == "[1, 2]\n" * n, 20)


def test_who_waits_for_a_failed_chord_learns_of_its_member(apps: dict[str, Any]) -> None:
    for kind in DATABASES:
        same, fail, xsum, mul = (apps[kind].tasks[f"canvas.{name}"] for name in ("same", "fail", "xsum", "mul"))
        for body in (xsum.s(), chain(xsum.s(), mul.s(2))):
            result = chord([fail.s(), same.s(1)], body).apply_async()
            last = apps[kind].AsyncResult(result.id)
            wait_for(lambda last=last: last.state == "FAILURE", 20)

            with pytest.raises(ValueError, match="no luck"):
                result.get(timeout=20)


def test_what_a_task_learns_of_its_call(apps: dict[str, Any]) -> None:
    due = datetime.now(timezone.utc) + timedelta(seconds=0.2)
    for kind in DATABASES:
        same, told = (apps[kind].tasks[f"canvas.{name}"] for name in ("same", "told"))

        eta, _, app_id = told.apply_async(eta=due, app_id="shop").get(timeout=20)
        assert (datetime.fromisoformat(eta), app_id) == (due, "shop"), kind
        assert told.delay().get(timeout=20) == [None, None, None], kind

        header = group(same.s(1), same.s(2))
        result = chord(header, told.s()).apply_async()
        parent_id = result.get(timeout=20)[1]
        assert parent_id in [member.id for member in result.parent.results], kind


def test_a_result_that_is_asked_for_is_kept(apps: dict[str, Any]) -> None:
    for kind in DATABASES:
        same, drop = (apps[kind].tasks[f"canvas.{name}"] for name in ("same", "drop"))

        assert drop.apply_async(ignore_result=False).get(timeout=20) == 7, kind
        assert chain(same.s(1), drop.s().set(ignore_result=False)).apply_async().get(timeout=20) == 7, kind


def test_the_children_of_a_task_that_fails(apps: dict[str, Any]) -> None:
    for kind in DATABASES:
        result = apps[kind].tasks["canvas.bear"].delay()
        with pytest.raises(ValueError, match="no luck"):
            result.get(timeout=20)
        assert [child.get(timeout=20) for child in result.children] == [2], kind


def test_a_task_that_rejects_its_message_gets_it_again(apps: dict[str, Any]) -> None:
    for kind in DATABASES:
        assert apps[kind].tasks["canvas.picky"].delay().get(timeout=20) is True, kind
