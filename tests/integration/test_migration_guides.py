"""The migration guides: their commands are run, their programs are those of the examples, their Go code compiles."""

from __future__ import annotations

import os
import re
import shutil
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import celery
import pytest

from tests.conftest import _missing
from tests.integration.test_examples import SHOP
from tests.support import golang, guide
from tests.support.processes import Unavailable

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
GUIDES = sorted((ROOT / "migration_guide").glob("0*.md"))
#: What the guides call the Redis.
REDIS = "redis://127.0.0.1:6379"
#: Seconds for all commands of a guide, on a machine that has much else to do.
SECONDS = 150


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with the examples, as in a clone."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", "orders"))
    return tmp_path


def run(page: Path, directory: Path, redis_db: str) -> None:
    """Runs all commands of a guide; each must print what stands below it."""
    try:
        go = golang.find_go()
    except Unavailable as error:
        _missing(error)
    path = os.pathsep.join([str(Path(sys.executable).parent), str(go.parent), os.environ["PATH"]])
    environment = {**golang.GO_ENVIRONMENT, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    said = guide.commands(page)
    done = [
        guide.Command(
            command.text.replace(f"{REDIS}/0", redis_db).replace(REDIS, redis_db.rpartition("/")[0]), command.output
        )
        for command in said
        if not command.text.startswith("pip install")
    ]

    printed = guide.run(done, directory, environment, SECONDS)

    assert [(one.text, one.output) for one in printed] == [(one.text, one.output) for one in done]


@pytest.mark.redis
@pytest.mark.go
def test_a_celery_application_joins_a_go_fleet(copied: Path, redis_db: str) -> None:
    run(GUIDES[0], copied, redis_db)


@pytest.mark.redis
@pytest.mark.go
def test_a_go_application_gains_python_workers(copied: Path, redis_db: str) -> None:
    run(GUIDES[1], copied, redis_db)


@pytest.mark.redis
@pytest.mark.go
def test_from_celery_to_machinery_and_back(copied: Path, redis_db: str) -> None:
    run(GUIDES[2], copied, redis_db)


def test_the_first_guide_shows_what_the_examples_print() -> None:
    """``test_examples`` runs them."""
    printed = [command.output for command in guide.commands(GUIDES[0]) if "caller.py" in command.text]

    assert printed == [SHOP, SHOP + "multiply, in Go: 2520\n"]


def test_what_is_to_be_installed_exists() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    commands = [command.text for page in GUIDES for command in guide.commands(page) if "install" in command.text]

    assert len(commands) == len(GUIDES)
    for text in commands:
        match = re.fullmatch(r"pip install '([\w-]+)\[(\w+)\]'", text)
        assert match, text
        assert match[1] == setup["metadata"]["name"]
        assert match[2] in setup["options.extras_require"]


def programs(pattern: str) -> list[list[str]]:
    return [stripped(path.read_text()) for path in EXAMPLES.rglob(pattern)]


def stripped(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def is_in(part: list[str], program: list[str]) -> bool:
    """Whether the lines of a part are in a program, in their order."""
    rest = iter(program)
    return all(line in rest for line in part)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_go_code_is_that_of_the_examples_which_the_tests_build(page: Path) -> None:
    shown = guide.blocks(page, "go")

    assert shown
    for block in shown:
        assert any(is_in(stripped(block), program) for program in programs("*.go")), block


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_python_code_is_that_of_the_examples_or_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER", "eager")
    monkeypatch.setenv("RESULT_BACKEND", "eager")
    for block in guide.blocks(page, "python"):
        if not any(is_in(stripped(block), program) for program in programs("*.py")):
            names: dict[str, Any] = {"app": celery.Celery("shop", set_as_current=False)}
            exec(block, names)  # noqa: S102 - our own documentation
            assert hasattr(names["app"], "machinery")
