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
STATE = "Celery(backend=URL).AsyncResult('x').state"


@pytest.mark.parametrize(
    ("missing", "statement", "url", "extra"),
    [
        pytest.param(["redis"], "Celery(broker=URL).send_task('add')", REDIS, "redis", id="broker"),
        pytest.param(["redis"], STATE, REDIS, "redis", id="backend"),
        pytest.param(["pymemcache"], STATE, "memcache://127.0.0.1:1", "memcache", id="memcache"),
        pytest.param(["pymongo", "bson"], STATE, "mongodb://127.0.0.1:1", "mongodb", id="mongodb"),
        pytest.param(
            ["google.pubsub_v1"], "Celery(broker=URL).send_task('x')", "gcppubsub://p/s", "gcpubsub", id="pubsub"
        ),
        pytest.param(["redis"], "lock_for(URL)", REDIS, "redis", id="lock"),
        pytest.param(["redis"], "kombu.Connection('machinery+' + URL).connect()", REDIS, "redis", id="kombu"),
        pytest.param(["packaging", "packaging.version"], "Celery(broker=URL).connection()", REDIS, "redis", id="part"),
    ],
)
def test_a_missing_driver_is_one_error_that_names_the_extra(
    missing: list[str], statement: str, url: str, extra: str
) -> None:
    program = WITHOUT.format(missing=missing, url=url, statement=statement)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == ""
    assert f"pip install 'machinery-compat[{extra}]'" in ended.stdout
    assert ended.stdout.count("\n") == 1
