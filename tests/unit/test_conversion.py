"""Machinery's Signatures and Celery's, converted into each other."""

from __future__ import annotations

import celery
import pytest
from celery import chain, chord, group

from machinery_compat import Arg, Celery, Signature, errors, new_signature


@pytest.fixture
def app() -> Celery:
    app = Celery("conversion", broker="eager", backend="eager", set_as_current=False)

    @app.task(name="conversion.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="conversion.told", shared=False)
    def told(uuid: str) -> str:
        return uuid

    return app


def test_a_task_and_back(app: Celery) -> None:
    signature = new_signature(
        "conversion.add",
        1,
        Arg("int32", 2),
        priority=3,
        routing_key="other",
        headers={"mine": "x"},
        eta="2030-01-01T00:00:00Z",
    )

    made = signature.to_celery(app)

    assert (made.task, made.args, made.kwargs) == ("conversion.add", [1, 2], {})
    assert made.options["task_id"] == signature.uuid
    assert (made.options["queue"], made.options["priority"]) == ("other", 3)
    assert made.options["headers"] == {"mine": "x"}
    again = Signature.from_celery(made, app)
    assert (again.uuid, again.name, again.eta, again.priority) == (signature.uuid, "conversion.add", signature.eta, 3)
    assert (again.routing_key, again.headers) == ("other", {"mine": "x"})
    assert [arg.value for arg in again.args or ()] == [1, 2]


def test_callbacks_become_links(app: Celery) -> None:
    signature = new_signature(
        "conversion.add",
        1,
        2,
        on_success=[new_signature("conversion.add", 5)],
        on_error=[new_signature("conversion.told")],
        immutable=True,
    )

    made = signature.to_celery(app)

    assert [(link["task"], link["args"], link["immutable"]) for link in made.options["link"]] == [
        ("conversion.add", [5], True)
    ]
    assert [link["task"] for link in made.options["link_error"]] == ["conversion.told"]
    again = Signature.from_celery(made, app)
    assert again.immutable
    assert [one.uuid for one in again.on_success or () if one] == [
        one.uuid for one in signature.on_success or () if one
    ]
    assert [one.name for one in again.on_error or () if one] == ["conversion.told"]


def test_a_converted_task_runs(app: Celery) -> None:
    assert new_signature("conversion.add", 1, 2).to_celery(app).apply_async().get(timeout=5) == 3
    sent = Signature.from_celery(app.tasks["conversion.add"].s(3, 4))
    app.machinery.workflow.send(sent)
    assert app.AsyncResult(sent.uuid).get(timeout=5) == 7


def test_a_chain_is_nested(app: Celery) -> None:
    add = app.tasks["conversion.add"]

    made = Signature.from_celery(chain(add.s(1, 2), add.s(3), add.s(y=4)))

    second = (made.on_success or [None])[0]
    assert second is not None
    third = (second.on_success or [None])[0]
    assert third is not None
    assert [one.name for one in (made, second, third)] == ["conversion.add"] * 3
    app.machinery.workflow.send(made)
    assert app.AsyncResult(third.uuid).get(timeout=5) == 10


def test_what_celery_says_more_goes_into_the_header(app: Celery) -> None:
    made = Signature.from_celery(app.tasks["conversion.add"].s(1, y=2).set(expires=60, time_limit=5, countdown=10))

    assert made.eta is not None
    assert [arg.value for arg in made.args or ()] == [1, 2]
    text = (made.headers or {})["celery"]
    assert '"expires"' in text
    assert '"timelimit": [5, null]' in text


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"retry_count": 3}, "retry_count"),
        ({"chord_callback": new_signature("conversion.add")}, "chord_callback"),
        ({"on_success": [new_signature("conversion.add", retry_count=1)]}, "retry_count"),
    ],
)
def test_what_celery_has_no_word_for_is_refused(app: Celery, fields: dict[str, object], word: str) -> None:
    with pytest.raises(errors.EncodeError, match=f"cannot say {word}; use "):
        new_signature("conversion.add", **fields).to_celery(app)


def test_more_than_one_message_is_refused(app: Celery) -> None:
    add = app.tasks["conversion.add"]
    for canvas in (
        group(add.s(1, 2), add.s(3, 4)),
        chord([add.s(1, 2)], add.s(3)),
        chain(group(add.s(1, 2), add.s(3, 4)), add.s()),
    ):
        with pytest.raises(errors.EncodeError, match="more than one Signature"):
            Signature.from_celery(canvas, app)


def test_the_application_must_speak_machinery() -> None:
    plain = celery.Celery("plain", set_as_current=False)

    with pytest.raises(errors.ConfigError, match=r"enable\(app\)"):
        Signature.from_celery(plain.signature("conversion.add", (1, 2)))
