"""Which Go is taken, and what happens without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import conftest
from tests.support import golang
from tests.support.processes import Unavailable


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    golang.find_go.cache_clear()
    yield
    golang.find_go.cache_clear()


def fake_go(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def test_the_environment_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = fake_go(tmp_path / "mine", "go1.22.1")
    monkeypatch.setenv("MACHINERY_GO", str(chosen))

    assert golang.find_go() == chosen


def test_an_old_go_on_path_gives_way_to_the_one_from_pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_go(tmp_path / "path" / "go", "go1.19.8")
    wheel = fake_go(tmp_path / "venv" / "bin" / "go", "go1.27")
    monkeypatch.delenv("MACHINERY_GO", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin:/usr/bin")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))

    assert golang.find_go() == wheel


def test_an_old_go_alone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINERY_GO", str(fake_go(tmp_path / "go", "go1.19.8")))

    with pytest.raises(Unavailable, match=r"no Go >= 1\.22: .*go is 1\.19"):
        golang.find_go()


def test_what_is_missing_fails_in_ci_and_is_skipped_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Redis"):
        conftest._missing(Unavailable("no Redis"))

    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no Redis"):
        conftest._missing(Unavailable("no Redis"))
