"""A driver that is not installed: nothing fails before it is needed, and then one error names the extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
import machinery_compat
from machinery_compat import Celery, Config, Server, errors
from machinery_compat.locks import lock_for
import kombu
URL = {url!r}
try:
    {statement}
except errors.ConfigError as error:
    print(error)
"""
REDIS = "redis://127.0.0.1:1"


@pytest.mark.parametrize(
    ("missing", "statement"),
    [
        pytest.param(["redis"], "Celery(broker=URL).send_task('add')", id="broker"),
        pytest.param(["redis"], "Celery(backend=URL).AsyncResult('x').state", id="backend"),
        pytest.param(["redis"], "lock_for(URL)", id="lock"),
        pytest.param(["redis"], "kombu.Connection('machinery+' + URL).connect()", id="kombu"),
        pytest.param(["packaging", "packaging.version"], "Celery(broker=URL).connection()", id="part"),
    ],
)
def test_a_missing_driver_is_one_error_that_names_the_extra(missing: list[str], statement: str) -> None:
    program = WITHOUT.format(missing=missing, url=REDIS, statement=statement)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == ""
    assert "pip install 'machinery-compat[redis]'" in ended.stdout
    assert ended.stdout.count("\n") == 1
