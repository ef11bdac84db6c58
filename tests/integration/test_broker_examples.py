"""``examples/brokers``: with each of its files, Go calls Python and Python calls Go."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinery_compat import Config
from tests.conftest import Names, _missing
from tests.support import golang
from tests.support.processes import Process, Unavailable
from tests.support.services import MotoServer, RedisClusterServers, RedisGroup

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "brokers"
PRINTED = "task: Hello Ada, says {language}\nchord: 10\nerror: not today\n"
#: Each file, with the marks of the servers that it needs.
MARKS = {
    "redis": [pytest.mark.redis],
    "rabbitmq": [pytest.mark.rabbitmq],
    "sentinel": [pytest.mark.redis],
    "cluster": [pytest.mark.redis],
    "memcached": [pytest.mark.redis, pytest.mark.memcache],
    "mongodb": [pytest.mark.rabbitmq, pytest.mark.mongodb],
    "sqs": [pytest.mark.redis, pytest.mark.sqs],
    "pubsub": [pytest.mark.redis, pytest.mark.pubsub],
    "dynamodb": [pytest.mark.redis, pytest.mark.dynamodb],
}
#: What the files call the servers.
SERVERS = {
    "redis": "localhost:6379/0",
    "rabbitmq": "guest:guest@localhost:5672/",
    "sentinel": "localhost:26379,localhost:26380,localhost:26381/0",
    "cluster": "localhost:7000,localhost:7001,localhost:7002",
    "memcached": "localhost:11211",
    "mongodb": "localhost:27017",
}
#: What they call those of Amazon's and Google's clouds; of DynamoDB's URL Go takes the first letters only.
SQS, PUBSUB = "https://sqs.us-east-1.amazonaws.com/123456789012", "gcppubsub://my-project/machinery_workers"


@pytest.fixture
def fleet_program() -> Path:
    """The Go half, built."""
    try:
        return golang.build(".", golang.BROKERS)
    except Unavailable as error:
        _missing(error)


@pytest.fixture
def servers(name: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """The URLs, without their schemes, of the servers that a file names."""
    text = (FOLDER / f"{name}.yml").read_text()
    needed = [server for server, address in SERVERS.items() if address in text]
    return {server: _url_of(server, request).partition("://")[2] for server in needed}


def _url_of(server: str, request: pytest.FixtureRequest) -> str:
    if server == "redis":
        return str(request.getfixturevalue("redis_db"))
    fixture = {"rabbitmq": "rabbit_server", "memcached": "memcached_server", "mongodb": "mongo_server"}
    return str(request.getfixturevalue(fixture.get(server, server)).url())


@pytest.fixture
def sentinel() -> Iterator[RedisGroup]:
    try:
        with RedisGroup() as started:
            yield started
    except Unavailable as error:
        _missing(error)


@pytest.fixture
def cluster() -> Iterator[RedisClusterServers]:
    try:
        with RedisClusterServers() as started:
            yield started
    except Unavailable as error:
        _missing(error)


@pytest.fixture
def environment(
    name: str, servers: dict[str, str], names: Names, tmp_path: Path, request: pytest.FixtureRequest
) -> dict[str, str]:
    """The variables of all four programs, with the example's file for the servers of the tests."""
    text = (FOLDER / f"{name}.yml").read_text().replace("machinery_tasks", names.queue)
    for server, url in servers.items():
        text = text.replace(SERVERS[server], url)
    cloud: dict[str, str] = {}
    if name in ("sqs", "dynamodb"):
        moto: MotoServer = request.getfixturevalue("moto_server")
        cloud = {**moto.ENVIRONMENT, "AWS_ENDPOINT_URL": moto.url(), "DISABLE_STRICT_SQS_CHECK": ""}
        text = text.replace(SQS, f"{moto.url()}/{moto.ACCOUNT}")
        moto.client("sqs").create_queue(QueueName=names.queue)
    if name == "pubsub":
        server = request.getfixturevalue("pubsub_server")
        server.make(names.queue)
        text = text.replace(PUBSUB, server.url(names.queue))
    assert "localhost" not in text, text
    file = tmp_path / f"{name}.yml"
    file.write_text(text)
    paths = f"{FOLDER}{os.pathsep}{ROOT}"
    made = {"MACHINERY_CONFIG": str(file), "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **cloud}
    if name == "dynamodb":
        # As docs/backends.md has it.
        command = [sys.executable, "-m", "celery", "-A", "machinery_compat", "machinery", "tables"]
        subprocess.run(command, env={**os.environ, **made}, check=True, capture_output=True, timeout=60)
    return made


def call(command: list[str], environment: dict[str, str], worker: Process) -> str:
    """What a caller prints."""
    finished = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr + worker.tail()
    return finished.stdout


@pytest.mark.go
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks) for name, marks in MARKS.items()])
def test_each_language_runs_what_the_other_calls(
    name: str, environment: dict[str, str], fleet_program: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "celery", "-A", "machinery_compat", "worker", "-I", "tasks", "-P", "threads"]
    worker = Process([*command, "-c", "2", "-l", "INFO"], tmp_path / "python.log", environment)
    try:
        printed = PRINTED.format(language="Python")
        if name == "dynamodb":
            # Go has no integers where it reads DynamoDB's numbers.
            printed = printed.replace("10", "[]")
        assert call([str(fleet_program), "call"], environment, worker) == printed
    finally:
        worker.stop()

    worker = Process([fleet_program, "worker"], tmp_path / "go.log", environment)
    try:
        # A chord of numbers that Go completes fails on DynamoDB, and with it Go's worker.
        calls, lines = (["check"], 1) if name == "dynamodb" else ([], 3)
        printed = call([sys.executable, str(FOLDER / "call.py"), *calls], environment, worker)
        assert printed.splitlines() == PRINTED.format(language="Go").splitlines()[:lines]
    finally:
        worker.kill()


def test_the_files_are_what_the_table_says() -> None:
    files = {path.stem: Config.from_yaml(path) for path in FOLDER.glob("*.yml")}
    table = re.findall(r"^\| \[(\w+)\.yml\]\(\1\.yml\) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)

    assert sorted(files) == sorted(table) == sorted(MARKS)
    for path, config in files.items():
        config.validate()
        # Go reads no more of a file.
        assert (FOLDER / f"{path}.yml").stat().st_size < 1000
