"""The same tasks in a plain Celery application and in one of this project; CANVAS chooses."""

from __future__ import annotations

import os
from typing import Any

import celery
from celery import Task, chain, chord, group
from celery.exceptions import Reject

import machinery_compat


def make(kind: str, url: str, registers: bool = True) -> Any:
    """An application with the tasks that the shapes are made of, or without any."""
    maker = {"plain": celery.Celery, "ours": machinery_compat.Celery}[kind]
    app = maker("canvas", broker=url, backend=url, set_as_current=False)
    app.conf.update(result_chord_join_timeout=20, task_default_queue="canvas")

    if not registers:
        return app

    def task(function: Any, **options: Any) -> Any:
        return app.task(name=f"canvas.{function.__name__}", shared=False, **options)(function)

    def add(x: Any, y: Any) -> Any:
        return x + y

    def mul(x: Any, y: Any) -> Any:
        return x * y

    def xsum(numbers: list[Any]) -> Any:
        return sum(sum(one) if isinstance(one, list) else one for one in numbers)

    def echo(*args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs] if kwargs else list(args)

    def same(value: Any) -> Any:
        return value

    def nothing(*args: Any) -> None:
        return None

    def fail(*args: Any) -> None:
        raise ValueError("no luck")

    def spread(self: Task, count: int) -> Any:
        return self.replace(group(add.s(n, 1) for n in range(count)))

    def swap(self: Task, x: int) -> Any:
        return self.replace(chain(add.s(x, 1), mul.s(10)))

    def again(self: Task, x: int) -> Any:
        if self.request.retries < 2:
            raise self.retry(countdown=0.1, max_retries=3)
        return x + self.request.retries

    def grow(self: Task, x: int) -> int:
        self.add_to_chord(add.s(x, 100))
        return x

    def stamped(self: Task) -> Any:
        return self.request.stamps

    def about(self: Task, value: Any) -> Any:
        request = self.request
        own = {name: request.headers.get(name) for name in ("mine", "n")}
        return [value, list(request.timelimit), own]

    def told(self: Task, *args: Any) -> Any:
        request = self.request
        return [request.eta, request.parent_id, request.properties.get("app_id")]

    def picky(self: Task) -> bool:
        redelivered = self.request.delivery_info["redelivered"]
        if not redelivered:
            raise Reject("not yet", requeue=True)
        return bool(redelivered)

    def bear(self: Task) -> None:
        add.delay(1, 1)
        raise ValueError("no luck")

    def drop(self: Task, *args: Any) -> int:
        if self.request.retries < 1:
            raise self.retry(countdown=0)
        return 7

    def note(value: Any, path: str) -> None:
        with open(path, "a") as file:
            file.write(f"{value}\n")

    task(note)
    add, mul, xsum, echo, same, nothing, fail = map(task, (add, mul, xsum, echo, same, nothing, fail))
    for bound in (spread, swap, again, grow, stamped, about, told, bear):
        task(bound, bind=True)
    task(picky, bind=True, acks_late=True)
    task(drop, bind=True, ignore_result=True)
    return app


SHAPES: dict[str, Any] = {
    "single": lambda t: t("add").s(2, 2),
    "partial": lambda t: chain(t("add").s(2, 2), t("add").s(4)),
    "partial with keywords": lambda t: chain(t("same").s(1), t("echo").s(2, three=3)),
    "chain": lambda t: chain(t("add").s(4, 4), t("mul").s(8), t("mul").s(10)),
    "pipe": lambda t: t("add").s(2, 2) | t("mul").s(8) | t("same").s(),
    "immutable step": lambda t: chain(t("add").s(2, 2), t("add").si(1, 1), t("mul").s(5)),
    "nothing is passed on": lambda t: chain(t("nothing").s(), t("echo").s(1)),
    "values of all kinds": lambda t: chain(t("same").s({"a": [1, None, 2.5], "b": {"c": "x"}}), t("same").s()),
    "group": lambda t: group(t("add").s(i, i) for i in range(10)),
    "group of one": lambda t: group(t("add").s(1, 1)),
    "chain in a group": lambda t: group(chain(t("add").s(1, 1), t("mul").s(3)), t("add").s(5, 5)),
    "group then task": lambda t: chain(group(t("add").s(i, i) for i in range(5)), t("xsum").s()),
    "task then group": lambda t: chain(t("add").s(1, 1), group(t("add").s(10), t("mul").s(10))),
    "group then group": lambda t: chain(group(t("same").s(1), t("same").s(2)), group(t("echo").s(), t("xsum").s())),
    "chord": lambda t: chord([t("add").s(i, i) for i in range(10)], t("xsum").s()),
    "chord of one": lambda t: chord([t("add").s(1, 1)], t("xsum").s()),
    "chord with results of nothing": lambda t: chord([t("nothing").s(), t("same").s(1)], t("echo").s()),
    "chord then task": lambda t: chain(chord([t("add").s(1, 1), t("add").s(2, 2)], t("xsum").s()), t("mul").s(10)),
    "chord with a chain as body": lambda t: chord([t("add").s(1, 1)] * 2, chain(t("xsum").s(), t("mul").s(2))),
    "chord of chains": lambda t: chord([chain(t("add").s(i, 1), t("mul").s(2)) for i in range(3)], t("xsum").s()),
    "chord in a chord": lambda t: chord(
        [chord([t("same").s(1), t("same").s(2)], t("xsum").s()), t("same").s(3)], t("xsum").s()
    ),
    "chord with a group as body": lambda t: chord(
        [t("same").s(1), t("same").s(2)], group(t("xsum").s(), t("echo").s())
    ),
    "chunks": lambda t: t("add").chunks([(i, i) for i in range(10)], 3),
    "map": lambda t: t("same").map([1, 2, 3]),
    "starmap": lambda t: t("add").starmap([(1, 1), (2, 2)]),
    "replace with a group": lambda t: chain(t("spread").s(3), t("xsum").s()),
    "replace with a chain": lambda t: chain(t("swap").s(1), t("add").s(1)),
    "retry in a chain": lambda t: chain(t("again").s(1), t("add").s(10)),
    "retry in a chord": lambda t: chord([t("again").s(1), t("same").s(5)], t("xsum").s()),
    "a task joins its chord": lambda t: chord([t("grow").s(1), t("same").s(2)], t("xsum").s()),
    "a task joins its chord of chains": lambda t: chord(
        [chain(t("same").s(1), t("grow").s()), chain(t("same").s(2), t("same").s())], t("xsum").s()
    ),
    "replace in a chord": lambda t: chord([t("swap").s(1), t("same").s(2)], t("xsum").s()),
    "replace with a group in a chord": lambda t: chord([t("spread").s(3), t("same").s(2)], t("xsum").s()),
    "replace in a chain in a chord": lambda t: chord([chain(t("swap").s(1), t("add").s(1))] * 2, t("xsum").s()),
    "group in a chord": lambda t: chord([group(t("same").s(1), t("same").s(2)), t("same").s(3)], t("echo").s("own")),
    "chord with values of all kinds": lambda t: chord(
        [t("same").s(v) for v in ("text", None, {"a": [1, {}]}, [1, "x"], '{"no": "object"}', 2.5, True)], t("echo").s()
    ),
    "immutable body": lambda t: chord([t("same").s(1), t("same").s(2)], t("echo").si("own")),
    "immutable body then task": lambda t: chain(
        chord([t("same").s(1), t("same").s(2)], t("echo").si("own")), t("echo").s("more")
    ),
    "body then immutable task": lambda t: chain(
        chord([t("same").s(1), t("same").s(2)], t("xsum").s()), t("echo").si("more")
    ),
    "chord in the middle": lambda t: chain(
        t("add").s(1, 1), group(t("add").s(1), t("add").s(2)), t("xsum").s(), t("mul").s(2)
    ),
    "two chords in a row": lambda t: chain(
        group(t("same").s(1), t("same").s(2)), t("xsum").s(), group(t("add").s(1), t("add").s(2)), t("xsum").s()
    ),
    "chord of chords of chords": lambda t: chord(
        [chord([chord([t("same").s(1)] * 2, t("xsum").s()), t("same").s(3)], t("xsum").s()), t("same").s(4)],
        t("xsum").s(),
    ),
    "a countdown in a chain": lambda t: chain(t("add").s(1, 1), t("add").s(1).set(countdown=0.1), t("mul").s(2)),
    "an expiry in a chain": lambda t: chain(t("add").s(1, 1), t("add").s(1).set(expires=60), t("mul").s(2)),
    "limits and headers in a chain": lambda t: chain(
        t("add").s(1, 1), t("about").s().set(time_limit=50, soft_time_limit=40, headers={"mine": "x", "n": 1})
    ),
    "failure in a chain of a chord": lambda t: chord(
        [chain(t("fail").s(), t("same").s(), t("same").s()), t("same").s(1)], t("xsum").s()
    ),
    "failure before a group": lambda t: chain(t("fail").s(), group(t("same").s(), t("same").s()), t("xsum").s()),
    "failure in an inner chord": lambda t: chord(
        [chord([t("fail").s(), t("same").s(1)], t("xsum").s()), t("same").s(3)], t("xsum").s()
    ),
    "failure of a body": lambda t: chain(chord([t("same").s(1), t("same").s(2)], t("fail").s()), t("same").s()),
    "failure in a chord with a chain as body": lambda t: chord(
        [t("fail").s(), t("same").s(1)], chain(t("xsum").s(), t("mul").s(2))
    ),
    "failure in a chord with a group as body": lambda t: chord(
        [t("fail").s(), t("same").s(1)], group(t("xsum").s(), t("echo").s())
    ),
    "failure in the middle of chords": lambda t: chain(
        group(t("same").s(1), t("fail").s()), t("xsum").s(), group(t("add").s(1), t("add").s(2)), t("xsum").s()
    ),
    "failure": lambda t: t("fail").s(),
    "failure in a chain": lambda t: chain(t("add").s(1, 1), t("fail").s(), t("same").s()),
    "failure in a chord": lambda t: chord([t("fail").s(), t("same").s(1)], t("xsum").s()),
}

if "CANVAS" in os.environ:
    app = make(os.environ["CANVAS"], os.environ["CANVAS_REDIS"])
