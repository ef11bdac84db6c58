"""The programs in docs/workflows.md do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import AsyncResult, Server
from tests.support.python_worker import PythonWorker

pytestmark = pytest.mark.redis

TEXT = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text()


def test_every_program_runs(redis_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BROKER": redis_db, "RESULT_BACKEND": redis_db, "DEFAULT_QUEUE": "docs"}.items():
        monkeypatch.setenv(name, value)
    programs = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names: dict[str, Any] = {}
    shown: list[tuple[str, str]] = []
    with PythonWorker(tmp_path, broker=redis_db, backend=redis_db, queue="docs", tasks="tests.support.docs_tasks"):
        for program in programs:
            exec(program, names)  # noqa: S102 - our own documentation
            for line in program.splitlines():
                code, _, value = line.partition("  # ")
                # What a line gives stands behind it.
                if re.fullmatch(r"\[?\d+\]?", value):
                    shown.append((repr(eval(code, names)), value))  # noqa: S307 - our own documentation
    assert shown
    assert [given for given, _ in shown] == [said for _, said in shown]
    assert isinstance(names["server"], Server)
    results = names["server"].send_group(names["Group"](names["new_signature"]("add", 1, 2)))
    assert all(isinstance(result, AsyncResult) for result in results)
