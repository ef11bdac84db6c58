"""The programs in README.md and in the pages of ``docs/``, run as a reader runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import GoWorkerFactory
from tests.support import guide
from tests.support.processes import Process

ROOT = Path(__file__).parents[2]
REDIS = "redis://127.0.0.1:6379"
QUEUE = "machinery_tasks"


def programs(page: str, redis_db: str) -> list[str]:
    """The Python blocks of a page, for the Redis of the test."""
    return [block.replace(REDIS, redis_db) for block in guide.blocks(ROOT / page, "python")]


def environment(page: str, redis_db: str) -> dict[str, str]:
    """The variables that a page exports before it starts a worker."""
    exported = [one.text for one in guide.commands(ROOT / page) if one.text.startswith("export BROKER=")]
    words = exported[0].replace(REDIS, redis_db).split()[1:]
    return {**dict(word.split("=", 1) for word in words), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def worker(page: str, directory: Path, variables: Mapping[str, str]) -> Process:
    """The worker that a page starts."""
    command = next(one.text for one in guide.commands(ROOT / page) if one.text.startswith("celery -A"))
    words = ["env", "-C", str(directory), sys.executable, "-m", *command.split()]
    return Process([*words, "--concurrency", "2"], directory / "worker.log", variables)


def run(program: str, directory: Path, variables: Mapping[str, str]) -> str:
    """What a program prints."""
    path = directory / "program.py"
    path.write_text(program)
    finished = subprocess.run(
        [sys.executable, str(path)],
        cwd=directory,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.redis
def test_the_readmes_worker_and_caller(redis_db: str, tmp_path: Path) -> None:
    tasks, caller = programs("README.md", redis_db)[:2]
    (tmp_path / "mytasks.py").write_text(tasks)
    variables = environment("README.md", redis_db)

    process = worker("README.md", tmp_path, variables)
    try:
        assert run(caller, tmp_path, variables) == "[42]\n"
    finally:
        process.stop()


@pytest.mark.redis
@pytest.mark.go
def test_the_readmes_celery_application_calls_go(redis_db: str, tmp_path: Path, go_worker: GoWorkerFactory) -> None:
    application, call = programs("README.md", redis_db)[2:4]
    go_worker(broker=redis_db, backend=redis_db, queue=QUEUE)

    assert call.startswith("app.send_task(")
    assert run(f"{application}\nprint({call.partition('#')[0]})", tmp_path, {"PYTHONPATH": str(ROOT)}) == "3\n"


def test_the_tests_without_servers(tmp_path: Path) -> None:
    tests, eager = programs("docs/testing.md", "")

    run(f"{tests}\ntest_with_machinerys_api()\ntest_with_celerys_api()\n{eager}", tmp_path, {"PYTHONPATH": str(ROOT)})


@pytest.mark.redis
def test_the_example_of_tracing(redis_db: str, tmp_path: Path) -> None:
    tasks, sender = programs("docs/tracing.md", redis_db)[:2]
    (tmp_path / "tasks.py").write_text(tasks)
    variables = environment("docs/tracing.md", redis_db)

    process = worker("docs/tracing.md", tmp_path, variables)
    try:
        result, trace = run(sender, tmp_path, variables).splitlines()
    finally:
        process.stop()

    assert result == "[6]"
    # Stopping, the worker has written all its spans.
    spans = process.log.read_text().count(f'"trace_id": "0x{trace.removeprefix("trace ")}"')
    assert spans == 3


@pytest.mark.redis
def test_the_example_of_periodic_tasks(redis_db: str, tmp_path: Path) -> None:
    program = programs("docs/periodic.md", redis_db)[0] + "\nserver.periodic.stop()\nprint('registered')\n"
    variables = {"BROKER": redis_db, "RESULT_BACKEND": redis_db, "PYTHONPATH": str(ROOT)}

    assert run(program, tmp_path, variables) == "registered\n"
