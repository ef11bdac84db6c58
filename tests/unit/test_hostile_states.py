"""A state document that a stranger has written makes its reader import, run and end nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from machinery_compat import Celery, TaskState
from machinery_compat.errors import BackendError, TaskError

ERROR = "what the worker said"


@pytest.fixture
def app() -> Celery:
    return Celery("reader", broker="eager", backend="eager", set_as_current=False)


def read(app: Celery, extra: Any, state: str = "FAILURE") -> Any:
    document = TaskState(task_uuid="task_1", state=state, error=ERROR, celery=json.dumps(extra))
    return app.backend.meta_of("task_1", document)["result"]


def described(module: Any, name: Any, *args: Any) -> dict[str, Any]:
    return {"exception": {"exc_module": module, "exc_type": name, "exc_message": list(args)}}


@pytest.mark.parametrize(
    ("module", "name", "form"),
    [
        ("os", "system", "touch {}"),
        ("posix", "system", "touch {}"),
        ("subprocess", "Popen", "touch {}"),
        ("subprocess", "getoutput", "touch {}"),
        ("builtins", "eval", "open({!r}, 'w')"),
        ("builtins", "exec", "open({!r}, 'w')"),
        ("builtins", "open", "{}"),
        ("builtins", "__import__", "antigravity"),
        ("importlib", "import_module", "antigravity"),
        ("pathlib", "Path.touch", "{}"),
        ("celery.exceptions", "os.system", "touch {}"),
    ],
)
def test_what_is_no_exception_is_not_called(app: Celery, tmp_path: Path, module: str, name: str, form: str) -> None:
    path = tmp_path / "made"

    try:
        result = read(app, described(module, name, form.format(str(path))))
    except BackendError as exc:
        result = exc

    assert isinstance(result, Exception)
    assert not path.exists()
    assert "antigravity" not in sys.modules


def test_no_module_is_imported(app: Celery) -> None:
    assert "antigravity" not in sys.modules

    result = read(app, described("antigravity", "Error", "text"))

    assert isinstance(result, Exception)
    assert type(result).__name__ == "Error"
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "SystemExit"),
        ("builtins", "KeyboardInterrupt"),
        ("builtins", "GeneratorExit"),
        ("celery.exceptions", "WorkerShutdown"),
        ("celery.exceptions", "WorkerTerminate"),
        ("celery.exceptions", "Reject"),
        ("celery.exceptions", "Ignore"),
        ("celery.exceptions", "Retry"),
        ("builtins", "BaseException"),
    ],
)
def test_what_would_end_the_reader_is_only_a_failure(app: Celery, module: str, name: str) -> None:
    result = read(app, described(module, name, "x"))

    assert type(result) is TaskError
    assert str(result) == ERROR


@pytest.mark.parametrize(
    "extra",
    [
        5,
        [],
        "x",
        {"exception": 5},
        {"exception": [5]},
        {"exception": {"exc_type": 5}},
        {"exception": {"exc_type": "\x00"}},
        {"exception": {"exc_module": [], "exc_type": "x"}},
        {"exception": {"exc_type": "ValueError", "exc_module": "builtins", "exc_message": {"a": 1}}},
        {"children": 5},
        {"children": [5]},
        {"children": [[["x", None], [[5]]]]},
        {"exception": {"__type__": "decimal", "__value__": "x"}},
        {"exception": {"__type__": [], "__value__": "x"}},
    ],
)
def test_nonsense_is_an_error_of_this_package_or_a_failure(app: Celery, extra: Any) -> None:
    try:
        result = read(app, extra)
    except BackendError as exc:
        result = exc
    assert isinstance(result, Exception)


def test_celerys_own_exceptions_still_arrive(app: Celery) -> None:
    assert isinstance(read(app, described("celery.exceptions", "TaskRevokedError", "expired")), TaskRevokedError)
    assert isinstance(read(app, described("builtins", "ValueError", "x")), ValueError)
