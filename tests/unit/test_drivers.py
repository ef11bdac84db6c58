"""A driver that is not installed: nothing fails before it is needed, and then one error names the extra."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

from machinery_compat import errors, urls
from machinery_compat.transport import DRIVERS

WITHOUT = """
import sys
class Missing:
    # Finds no driver, as where it is not installed.
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
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
SQS = "https://sqs.us-east-1.amazonaws.com/123456789012"
STATE = "Celery(backend=URL).AsyncResult('x').state"


@pytest.mark.parametrize(
    ("missing", "statement", "url", "extra"),
    [
        pytest.param(["redis"], "Celery(broker=URL).send_task('add')", REDIS, "redis", id="broker"),
        pytest.param(["redis"], STATE, REDIS, "redis", id="backend"),
        pytest.param(["pymemcache"], STATE, "memcache://127.0.0.1:1", "memcache", id="memcache"),
        pytest.param(["pymongo", "bson"], STATE, "mongodb://127.0.0.1:1", "mongodb", id="mongodb"),
        pytest.param(["boto3", "botocore"], STATE, "https://dynamodb.x", "dynamodb", id="dynamodb"),
        pytest.param(["boto3"], "Celery(broker=URL).send_task('add')", SQS, "sqs", id="sqs"),
        pytest.param(["google"], "Celery(broker=URL).send_task('x')", "gcppubsub://p/s", "gcpubsub", id="pubsub"),
        pytest.param(["redis"], "lock_for(URL)", REDIS, "redis", id="lock"),
        pytest.param(["redis"], "kombu.Connection('machinery+' + URL).connect()", REDIS, "redis", id="kombu"),
        pytest.param(["packaging"], "Celery(broker=URL).connection()", REDIS, "redis", id="part"),
        pytest.param(["redis"], "Celery(broker=URL).connection()", "redis://127.0.0.1:1,b:1", "redis", id="several"),
        pytest.param(["redis"], "Celery(broker=URL).connection()", "rediss://127.0.0.1:1", "redis", id="tls"),
        pytest.param(["redis"], "Celery(broker=URL).connection()", "redis+socket:///x", "redis", id="socket"),
        pytest.param(["redis"], "Server(Config(broker=URL, result_backend='eager'))", REDIS, "redis", id="server"),
        pytest.param(["redis"], "Server(Config(broker='eager', lock=URL)).lock", REDIS, "redis", id="its lock"),
        pytest.param(["redis"], STATE, "redis+socket:///x", "redis", id="backend's socket"),
        pytest.param(["pymongo", "bson"], STATE, "mongodb+srv://h", "mongodb", id="mongodb+srv"),
    ],
)
def test_a_missing_driver_is_one_error_that_names_the_extra(
    missing: list[str], statement: str, url: str, extra: str
) -> None:
    program = WITHOUT.format(missing=missing, url=url, statement=statement)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == ""
    assert f"(No module named '{missing[0]}" in ended.stdout
    assert f"pip install 'machinery-compat[{extra}]'" in ended.stdout
    assert ended.stdout.count("\n") == 1


def test_every_extra_that_an_error_can_name_is_there() -> None:
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    kinds = {kind for find in (urls.broker_kind, urls.backend_kind) for kind in named(find)}

    assert {"amqp", "redis", "sqs", "gcpubsub", "memcache", "mongodb", "dynamodb"} == kinds
    assert kinds | set(DRIVERS.values()) <= set(setup["options.extras_require"])


def named(find: Callable[[str], str]) -> list[str]:
    """The extras that the error for an unknown URL names."""
    with pytest.raises(errors.ConfigError) as caught:
        find("kafka://h")
    return re.findall(r"\[([a-z]+)\]", str(caught.value))
