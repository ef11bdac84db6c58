"""``make demo``: what a newcomer sees first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.conftest import _missing
from tests.support.golang import find_go
from tests.support.processes import Unavailable
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, str(ROOT / "examples" / "demo" / "demo.py")]
#: Seconds that the demo may take; a first build of its Go program is most of it.
LONGEST = 600

PYTHON_ROWS = [
    ("py_add(1, 2)", "Python, Server.send_task", "Python", "[3]"),
    ("py_greet('Ada', greeting='Hi')", "Python, .delay", "Python", "'Hi, Ada!'"),
    ("py_keys({'b': [1, None], 'a': {}})", "Python, app.send_task", "Python", "['a', 'b']"),
    ("py_divide(1, 0)", "Python, .delay", "Python", "ArithmeticError: cannot divide by zero, says Python"),
    ("py_add(3, 4) in 1 s", "Python, .apply_async", "Python", "7"),
    ("py_flaky(), 1 retry", "Python, Server.send_task", "Python, Python", "['done at last']"),
]
GO_ROWS = [
    ("go_add(1, 2)", "Python, Server.send_task", "Go", "[3]"),
    ("go_add(20, 22)", "Python, .delay", "Go", "42"),
    ("go_stats([1.5, 2.5])", "Python, app.send_task", "Go", "(2.0, 2)"),
    ("go_divide(1, 0)", "Python, app.send_task", "Go", "TaskError: cannot divide by zero, says Go"),
    ("go_add(3, 4) in 1 s", "Python, Server.send_task", "Go", "[7]"),
    ("go_flaky(), 1 retry", "Python, Server.send_task", "Go, Go", "['done at last']"),
    ("py_add(20, 22)", "Go, SendTask", "Python", "42"),
    ("py_greet('Gopher')", "Go, SendTask", "Python", "'Hello, Gopher!'"),
    ("py_divide(1, 0)", "Go, SendTask", "Python", "error: cannot divide by zero, says Python"),
]

pytestmark = [pytest.mark.redis, pytest.mark.timeout(LONGEST)]


class Row(NamedTuple):
    call: str
    sender: str
    runners: str
    result: str
    milliseconds: str


def rows_of(output: str) -> list[Row]:
    """The rows of the table, without its header."""
    lines = [line.split("|") for line in output.splitlines() if line.count(" | ") == 4]
    return [Row(*(cell.strip() for cell in line)) for line in lines[1:]]


def run_demo(**variables: str) -> tuple[int, str]:
    finished = subprocess.run(
        DEMO, env={**os.environ, **variables}, capture_output=True, text=True, timeout=LONGEST, check=False
    )
    return finished.returncode, finished.stdout + finished.stderr


@pytest.fixture
def running_demo() -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The demo without Go, and the lines that it has written so far."""
    lines: list[str] = []
    with subprocess.Popen(
        DEMO, env={**os.environ, "DEMO_GO": "none", "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
        reader.start()
        yield process, lines
        process.kill()
        reader.join()


@pytest.mark.go
def test_both_halves() -> None:
    try:
        go = find_go()
    except Unavailable as error:
        _missing(error)

    status, output = run_demo(DEMO_GO="system", PATH=f"{go.parent}{os.pathsep}{os.environ['PATH']}")

    assert status == 0, output
    rows = rows_of(output)
    assert [row[:4] for row in rows[: len(PYTHON_ROWS) + len(GO_ROWS)]] == [*PYTHON_ROWS, *GO_ROWS], output
    flaky, shared = rows[len(PYTHON_ROWS) + len(GO_ROWS) :]
    assert re.fullmatch(r"(Go|Python)(, (Go|Python)){2}", flaky.runners)
    assert shared.result == "all 20 right"
    assert all(int(row.milliseconds) >= 990 for row in rows if " in 1 s" in row.call or "flaky" in row.call)
    assert "17 calls, each gave what it must" in output


def test_without_go_the_python_half_runs() -> None:
    status, output = run_demo(DEMO_GO="none")

    assert status == 0, output
    assert [row[:4] for row in rows_of(output)] == PYTHON_ROWS
    assert "The Go half was left out: DEMO_GO=none" in output


def test_an_interrupt_leaves_nothing_behind(running_demo: tuple[subprocess.Popen[str], list[str]]) -> None:
    process, lines = running_demo
    wait_for(lambda: any("py_greet" in line for line in lines), 60, lambda: "".join(lines))
    children = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(signal.SIGINT)

    assert process.wait(30) == 130
    assert len(children) >= 2
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


def test_an_interrupt_that_comes_in_a_finaliser_counts() -> None:
    """Python only reports what is raised there, and goes on."""
    program = """
import signal
from demo import Interrupt

class Dropped:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

interrupt = Interrupt()
Dropped()
print("went on", flush=True)
try:
    interrupt.check()
except KeyboardInterrupt:
    print("ended")
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(DEMO[1]).parent, capture_output=True, text=True, check=True
    )

    assert finished.stdout.split("\n") == ["went on", "ended", ""]
