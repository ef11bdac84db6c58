"""Go Machinery as an oracle: what it makes of a message body."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

MODULE = Path(__file__).parents[1] / "interop" / "go"


@dataclass(frozen=True)
class Answer:
    """What Go says: an error, or the bytes it writes again and each argument converted."""

    reencoded: bytes
    error: str
    args: list[dict[str, Any]]


class Oracle:
    """The running Go program."""

    def __init__(self, binary: Path) -> None:
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]
        self._stdout: IO[bytes] = self.process.stdout  # type: ignore[assignment]

    def ask(self, body: bytes) -> Answer:
        request = {"op": "roundtrip", "hex": body.hex()}
        self._stdin.write(json.dumps(request).encode() + b"\n")
        self._stdin.flush()
        answer = json.loads(self._stdout.readline())
        return Answer(bytes.fromhex(answer["reencoded_hex"]), answer["error"], answer["args"])

    def close(self) -> None:
        self._stdin.close()
        self.process.wait(10)
        self._stdout.close()


@pytest.fixture(scope="session")
def go_oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    """The oracle, built once a session. MACHINERY_GO names the go command; a missing one fails in CI, else skips."""
    go = shutil.which(os.environ.get("MACHINERY_GO", "go"))
    if go is None:
        if os.environ.get("CI"):
            pytest.fail("no Go toolchain; set MACHINERY_GO to its go command")
        pytest.skip("no Go toolchain; set MACHINERY_GO to its go command")
    binary = tmp_path_factory.mktemp("oracle") / "oracle"
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    command = [go, "build", "-buildvcs=false", "-o", str(binary), "./cmd/oracle"]
    subprocess.run(command, cwd=MODULE, env=environment, check=True)
    oracle = Oracle(binary)
    yield oracle
    oracle.close()
