"""Go and Python workers share one queue: `make demo`.

A Valkey server, a Celery worker and a Go Machinery worker are started, tasks are sent from both
languages, and each call is shown with who sent it, who ran it, its result and its time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import golang
from stage import QUEUE, Stage

from machinery_compat import Celery, Config, Server, new_signature

#: Seconds that a task may take; of a delayed one; of many together.
TIMEOUT = 15.0
DELAY = 1.0
#: How many tasks both workers share.
SHARED = 20

COLUMNS = (("call", 34), ("sent by", 24), ("run by", 19), ("result", 51), ("ms", 5))


class Row(NamedTuple):
    """One call: what the table shows of it, and whether it went as it must."""

    call: str
    sender: str
    runners: str
    result: str
    milliseconds: float
    right: bool


class Interrupt:
    """Ctrl-C and SIGTERM, as KeyboardInterrupt.

    Python drops what is raised while it runs a ``__del__``: `check` raises it again.
    """

    def __init__(self) -> None:
        self._came = False
        # Also where the demo was started in the background, which ignores Ctrl-C.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        if self._came:
            raise KeyboardInterrupt


class Demo:
    """Sends the calls and shows the table."""

    def __init__(self, stage: Stage, interrupt: Interrupt) -> None:
        self.stage = stage
        self.interrupt = interrupt
        config = Config(broker=stage.url, result_backend=stage.url, default_queue=QUEUE)
        self.app = Celery("demo", config=config)
        self.server = Server(app=self.app)
        self.rows: list[Row] = []

    # -- the table

    def header(self) -> None:
        print("\n" + " | ".join(title.ljust(width) for title, width in COLUMNS))
        print("-|-".join("-" * width for _, width in COLUMNS), flush=True)

    def show(self, row: Row) -> None:
        self.rows.append(row)
        cells = (row.call, row.sender, row.runners, row.result, f"{row.milliseconds:.0f}".rjust(COLUMNS[-1][1]))
        line = " | ".join(cell.ljust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True))
        print(line if row.right else f"{line}  <-- WRONG", flush=True)
        self.interrupt.check()

    def by(self, uuid: str) -> list[str]:
        return self.stage.runners(uuid)

    # -- calls from Python

    def call(
        self,
        title: str,
        sender: str,
        send: Callable[[], tuple[str, Callable[[], Any]]],
        expected: Any,
        runners: list[str],
        at_least: float = 0.0,
    ) -> None:
        """Makes one call from Python.

        Args:
            title: what is called.
            sender: what it is sent with.
            send: sends it; gives the task's UUID and how to wait for its result.
            expected: its result, or the text of its error.
            runners: the languages of the executions that there must be.
            at_least: seconds that it must take.
        """
        begin = time.monotonic()
        uuid, get = send()
        try:
            value = get()
            result = repr(value)
        except Exception as failure:  # noqa: BLE001 - what a task raises is the result here
            value = str(failure)
            result = f"{type(failure).__name__}: {failure}"
        took = time.monotonic() - begin
        ran = self.by(uuid)
        right = value == expected and ran == runners and took >= at_least
        self.show(Row(title, f"Python, {sender}", ", ".join(ran), result, took * 1000, right))

    def machinery(self, name: str, *args: Any, **fields: Any) -> Callable[[], tuple[str, Callable[[], Any]]]:
        """Machinery's API: Server.send_task."""

        def send() -> tuple[str, Callable[[], Any]]:
            result = self.server.send_task(new_signature(name, *args, **fields))
            return result.signature.uuid, lambda: result.get_with_timeout(TIMEOUT, 0.005)

        return send

    @staticmethod
    def celery(send_task: Callable[[], Any]) -> Callable[[], tuple[str, Callable[[], Any]]]:
        """Celery's API."""

        def send() -> tuple[str, Callable[[], Any]]:
            result = send_task()
            return result.id, lambda: result.get(timeout=TIMEOUT)

        return send

    def python_half(self) -> None:
        import demo_tasks as tasks

        app, python = self.app, ["Python"]
        self.call("py_add(1, 2)", "Server.send_task", self.machinery("py_add", 1, 2), [3], python)
        self.call(
            "py_greet('Ada', greeting='Hi')",
            ".delay",
            self.celery(lambda: tasks.greet.delay("Ada", greeting="Hi")),
            "Hi, Ada!",
            python,
        )
        self.call(
            "py_keys({'b': [1, None], 'a': {}})",
            "app.send_task",
            self.celery(lambda: app.send_task("py_keys", [{"b": [1, None], "a": {}}])),
            ["a", "b"],
            python,
        )
        self.call(
            "py_divide(1, 0)",
            ".delay",
            self.celery(lambda: tasks.divide.delay(1, 0)),
            "cannot divide by zero, says Python",
            python,
        )
        self.call(
            f"py_add(3, 4) in {DELAY:g} s",
            ".apply_async",
            self.celery(lambda: tasks.add.apply_async((3, 4), countdown=DELAY)),
            7,
            python,
            at_least=DELAY,
        )
        self.call(
            "py_flaky(), 1 retry",
            "Server.send_task",
            self.machinery("py_flaky", retry_count=1),
            ["done at last"],
            python * 2,
            at_least=1.0,
        )

    def go_half(self) -> None:
        app, go = self.app, ["Go"]
        self.call("go_add(1, 2)", "Server.send_task", self.machinery("go_add", 1, 2), [3], go)
        self.call(
            "go_add(20, 22)",
            ".delay",
            self.celery(lambda: app.signature("go_add", (20, 22)).delay()),
            42,
            go,
        )
        self.call(
            "go_stats([1.5, 2.5])",
            "app.send_task",
            self.celery(lambda: app.send_task("go_stats", [[1.5, 2.5]])),
            (2.0, 2),
            go,
        )
        self.call(
            "go_divide(1, 0)",
            "app.send_task",
            self.celery(lambda: app.send_task("go_divide", [1, 0])),
            "cannot divide by zero, says Go",
            go,
        )
        self.call(
            f"go_add(3, 4) in {DELAY:g} s",
            "Server.send_task",
            self.machinery("go_add", 3, 4, eta=datetime.now(timezone.utc) + timedelta(seconds=DELAY)),
            [7],
            go,
            at_least=DELAY * 0.99,
        )
        self.call(
            "go_flaky(), 1 retry",
            "Server.send_task",
            self.machinery("go_flaky", retry_count=1),
            ["done at last"],
            go * 2,
            at_least=1.0,
        )

    # -- calls from Go

    def from_go(self, binary: Path) -> None:
        """What the Go program sends, and what it got."""
        expected: dict[str, tuple[str, Any, int]] = {
            "py_add": ("py_add(20, 22)", 42, 1),
            "py_greet": ("py_greet('Gopher')", "Hello, Gopher!", 1),
            "py_divide": ("py_divide(1, 0)", "cannot divide by zero, says Python", 1),
            "flaky": ("flaky(), 2 retries, both know it", "done at last", 3),
        }
        for answer in self._answers(binary):
            title, value, executions = expected.pop(answer["name"])
            ran = self.by(answer["uuid"])
            got = answer["error"] or answer["results"][0]
            right = got == value and len(ran) == executions
            right &= answer["name"] == "flaky" or ran == ["Python"]
            result = f"error: {got}" if answer["error"] else repr(got)
            self.show(Row(title, "Go, SendTask", ", ".join(ran), result, answer["ms"], right))
        for title, _, _ in expected.values():
            self.show(Row(title, "Go, SendTask", "", "no answer", 0, False))

    def _answers(self, binary: Path) -> Iterator[dict[str, Any]]:
        with (
            self.stage.log("go-sender").open("ab") as log,
            subprocess.Popen(
                [str(binary), "send"],
                env={**os.environ, **self.stage.variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            ) as sender,
        ):
            assert sender.stdout is not None
            try:
                for line in sender.stdout:
                    yield json.loads(line)
            finally:
                sender.kill()

    def shared(self) -> None:
        """Many tasks that both workers know: whoever is free takes the next one."""
        begin = time.monotonic()
        results = [self.app.send_task("add", [number, number]) for number in range(SHARED)]
        values = [result.get(timeout=TIMEOUT) for result in results]
        took = time.monotonic() - begin
        ran = [language for result in results for language in self.by(result.id)]
        counts = ", ".join(f"{language} {ran.count(language)}" for language in sorted(set(ran)))
        right = values == [2 * number for number in range(SHARED)] and len(ran) == SHARED
        title, result = f"{SHARED} x add(n, n), both know it", f"all {SHARED} right" if right else repr(values)
        self.show(Row(title, "Python, app.send_task", counts, result, took * 1000, right))


def perform(stage: Stage, interrupt: Interrupt) -> bool:
    """Starts everything, makes the calls; True if all went as they must."""
    stage.start_valkey()
    stage.start_python_worker()
    missing, binary = "", None
    try:
        binary = golang.build()
    except golang.NoGo as reason:
        missing = str(reason)
    print("==> starting Valkey, a Celery worker" + (" and a Go Machinery worker" if binary else ""), flush=True)
    if binary:
        stage.start_go_worker(binary)
        stage.wait("go-worker", lambda: "ready" in stage.text("go-worker").splitlines())
    stage.wait("python-worker", lambda: " ready." in stage.text("python-worker"))

    demo = Demo(stage, interrupt)
    demo.header()
    demo.python_half()
    if binary:
        demo.go_half()
        demo.from_go(binary)
        demo.shared()

    wrong = sum(not row.right for row in demo.rows)
    print(f"\n{len(demo.rows)} calls, " + (f"{wrong} of them WRONG" if wrong else "each gave what it must"))
    if missing:
        print(f"The Go half was left out: {missing}")
    if wrong:
        stage.show_logs()
    return not wrong


def main() -> int:
    # Machinery's variables of the caller must not reach the demo.
    for name in ("MACHINERY_CONFIG", "BROKER_URL", "CELERY_BROKER_URL"):
        os.environ.pop(name, None)
    interrupt = Interrupt()
    begin = time.monotonic()
    try:
        with Stage() as stage:
            right = perform(stage, interrupt)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 130
    print(f"{time.monotonic() - begin:.1f} s in all", flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
