"""Live reload of the configuration."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinery_compat import errors
from machinery_compat.config import ConfigWatcher


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yml"


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def watcher(file: Path, seen: list[str]) -> Iterator[ConfigWatcher]:
    file.write_text("default_queue: one\n")
    watcher = ConfigWatcher(file, lambda new: seen.append(new.default_queue), interval=0.005)
    yield watcher
    watcher.stop()


def test_a_change_is_handed_on_once(file: Path, watcher: ConfigWatcher, seen: list[str]) -> None:
    before = watcher.current
    assert not watcher.check()
    file.write_text("default_queue: two\n")
    assert watcher.check()
    assert not watcher.check()
    assert seen == ["two"]
    assert watcher.current.default_queue == "two"
    assert before.default_queue == "one"


def test_a_comment_is_no_change(file: Path, watcher: ConfigWatcher, seen: list[str]) -> None:
    file.write_text("# comment\ndefault_queue: one\n")
    assert not watcher.check()
    assert seen == []


def test_from_good_to_bad_to_good(
    file: Path, watcher: ConfigWatcher, seen: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    bad = ["default_queue: [\n", "results_expire_in: x\n", "", "broker: ftp://u:secret@h\n"]
    for text in bad:
        file.write_text(text)
        assert not watcher.check()
        assert not watcher.check()
    file.unlink()
    assert not watcher.check()
    assert not watcher.check()
    assert watcher.current.default_queue == "one"
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == len(bad) + 1
    assert all(str(file) in line and "\n" not in line and "secret" not in line for line in lines)
    file.write_text("default_queue: one\n")
    assert not watcher.check()
    file.write_text("default_queue: two\n")
    assert watcher.check()
    assert seen == ["two"]


def test_the_same_fault_after_a_repair_is_logged_again(
    file: Path, watcher: ConfigWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("[", "default_queue: one\n", "["):
        file.write_text(text)
        watcher.check()
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2


def test_an_unknown_key_is_logged_and_no_warning_in_the_thread(
    file: Path, watcher: ConfigWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("default_queue: two\ndefualt_queue: x\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert watcher.check()
    assert "did you mean default_queue?" in caplog.text


def test_a_failing_callback_does_not_end_the_watch(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("default_queue: one\n")
    watcher = ConfigWatcher(file, lambda new: 1 / 0)
    file.write_text("default_queue: two\n")
    assert watcher.check()
    assert watcher.current.default_queue == "two"
    assert "on_change failed" in caplog.text


def test_a_bad_file_at_the_start_is_an_error(file: Path) -> None:
    for text in ("[", "default_queue: ''\n"):
        file.write_text(text)
        with pytest.raises(errors.ConfigError):
            ConfigWatcher(file, print)


def watching() -> set[threading.Thread]:
    """The threads of watchers, also those of applications that other tests have made."""
    return {thread for thread in threading.enumerate() if thread.name == "machinery-config"}


def test_the_thread_sees_a_change_and_stops(file: Path) -> None:
    file.write_text("default_queue: one\n")
    others = watching()
    changed = threading.Event()
    with ConfigWatcher(file, lambda new: changed.set(), interval=0.005) as watcher:
        watcher.start()
        threads = list(watching() - others)
        assert [thread.daemon for thread in threads] == [True]
        replacement = file.with_suffix(".new")
        replacement.write_text("default_queue: two\n")
        replacement.replace(file)
        assert changed.wait(10)
    assert not threads[0].is_alive()
    watcher.stop()


def test_the_callback_may_stop_the_watcher(file: Path, watcher: ConfigWatcher) -> None:
    stopped = threading.Event()
    watcher._on_change = lambda new: (watcher.stop(), stopped.set())
    watcher.start()
    file.write_text("default_queue: two\n")
    assert stopped.wait(10)


def test_a_stop_does_not_wait_for_the_interval(file: Path) -> None:
    file.write_text("default_queue: one\n")
    others = watching()
    watcher = ConfigWatcher(file, print)
    watcher.start()
    watcher.stop()
    assert watching() <= others
