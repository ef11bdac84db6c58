"""Signatures to bytes and back: this package, Python's json module and Go Machinery, side by side.

``python benchmarks/codec.py`` prints operations a second and ratios, each the median of alternating rounds.

The rows:
    encode           an object in memory to the bytes of a message
    decode           those bytes to an object
    decode and read  the same, and then the name, the UUID and the converted values of the outermost arguments

The columns:
    ours             ``encode`` and ``decode`` of Signature and TaskState
    json             bare ``json.dumps(tree).encode()`` and ``json.loads(data)`` of the equivalent dicts and lists: no
                     objects, no checks, numbers as Python reads them, repeated members lost
    json, objects    the least that a codec written with the json module has to do to give a Signature and to take one:
                     a Signature to dicts and ``json.dumps``; ``json.loads`` and a Signature made of the dicts. Nothing
                     is checked, Values are taken for what they are, and Go's spelling is left out. No states.
    json, same job   what a codec written with the json module has to do to come to the same result. Out: objects to
                     dicts, ``json.dumps``, Go's escapes. In: ``json.loads`` with numbers that keep their spelling and
                     a refusal of repeated members, every member's type checked, and Signature and Arg objects made
                     that are equal to ours. It has no exact reading behind it for what it refuses, no order of
                     map keys, no check of times, and Python's spelling of floats.
    Go               Go Machinery itself: ``json.Marshal``, and ``Decoder.Decode`` with ``UseNumber``; it converts
                     no values, so "decode and read" shows its plain decoding once more. The column needs a Go
                     toolchain (``MACHINERY_GO`` names it) and is left out without one; it has no states.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import json_codecs  # noqa: E402
from machinery_compat.wire import (  # noqa: E402
    SUCCESS,
    Chain,
    Signature,
    TaskResult,
    TaskState,
    new_signature,
    new_task_uuid,
    now_text,
)

MODULE = ROOT / "tests" / "interop" / "go"


def signature(steps: int) -> Signature:
    """A task of two arguments, or a chain of such tasks."""
    parts = [new_signature("add", 1, 2, routing_key="machinery_tasks", headers={}) for _ in range(steps)]
    return Chain(*parts).tasks[0]


def state() -> TaskState:
    """A task that succeeded with one result."""
    result = TaskResult("int64", 3)
    return TaskState(task_uuid=new_task_uuid(), task_name="add", state=SUCCESS, results=[result], created_at=now_text())


def rate(work: Callable[[], Any], seconds: float) -> float:
    done = 0
    start = time.perf_counter()
    while True:
        for _ in range(50):
            work()
        done += 50
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return done / elapsed


def read(decode: Callable[[bytes], Signature], body: bytes) -> Any:
    """What a worker needs first of a message."""
    decoded = decode(body)
    return decoded.name, decoded.uuid, [arg.value for arg in decoded.args or ()]


# --- Go -------------------------------------------------------------------------------------------


class GoBench:
    """The Go program, driven over its standard input."""

    def __init__(self, directory: str, bodies: list[bytes]) -> None:
        go = os.environ.get("MACHINERY_GO", "go")
        binary = Path(directory) / "codecbench"
        subprocess.run([go, "build", "-buildvcs=false", "-o", binary, "./cmd/codecbench"], cwd=MODULE, check=True)
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stdin: IO[str] = self.process.stdin  # type: ignore[assignment]
        self._stdout: IO[str] = self.process.stdout  # type: ignore[assignment]
        self._stdin.write("".join(f"{body.hex()}\n" for body in bodies) + "\n")

    def rate(self, what: str, index: int, seconds: float) -> float:
        self._stdin.write(f"{what} {index} {seconds}\n")
        self._stdin.flush()
        return float(self._stdout.readline())

    def close(self) -> None:
        self._stdin.close()
        self.process.wait(10)


Works = dict[str, dict[str, Callable[[], Any]]]


def signature_works(made: Signature) -> Works:
    body = made.encode()
    tree = json.loads(body)
    assert json_codecs.dumps(tree) == json_codecs.dumps_same_job(made) == body
    assert json_codecs.dumps_unchecked(made) == body
    assert json_codecs.loads_same_job(body) == Signature.decode(body) == made
    assert json_codecs.loads_unchecked(body).uuid == made.uuid
    return {
        "encode": {
            "ours": made.encode,
            "json": partial(json_codecs.dumps, tree),
            "json, objects": partial(json_codecs.dumps_unchecked, made),
            "json, same job": partial(json_codecs.dumps_same_job, made),
        },
        "decode": {
            "ours": partial(Signature.decode, body),
            "json": partial(json.loads, body),
            "json, objects": partial(json_codecs.loads_unchecked, body),
            "json, same job": partial(json_codecs.loads_same_job, body),
        },
        "decode and read": {
            "ours": partial(read, Signature.decode, body),
            "json": partial(json_codecs.loads_and_read, body),
            "json, same job": partial(read, json_codecs.loads_same_job, body),
        },
    }


def state_works(made: TaskState) -> Works:
    body = made.encode()
    tree = json.loads(body)
    assert json_codecs.dumps(tree) == json_codecs.dumps_state_same_job(made) == body
    assert json_codecs.loads_state_same_job(body) == TaskState.decode(body) == made
    return {
        "encode": {
            "ours": made.encode,
            "json": partial(json_codecs.dumps, tree),
            "json, same job": partial(json_codecs.dumps_state_same_job, made),
        },
        "decode": {
            "ours": partial(TaskState.decode, body),
            "json": partial(json.loads, body),
            "json, same job": partial(json_codecs.loads_state_same_job, body),
        },
    }


def measure(what: str, runs: dict[str, Callable[[float], float]], rounds: int, seconds: float) -> dict[str, Any]:
    """Run the contenders in turns, so that whatever else the machine does meets all of them."""
    rates: dict[str, list[float]] = {contender: [] for contender in runs}
    for _ in range(rounds):
        for contender, run in runs.items():
            rates[contender].append(run(seconds))
    return {"what": what, **{contender: statistics.median(found) for contender, found in rates.items()}}


def compare(go: GoBench | None, signatures: dict[str, Signature], rounds: int, seconds: float) -> list[dict[str, Any]]:
    rows = []
    for index, (name, made) in enumerate(signatures.items()):
        for what, contenders in signature_works(made).items():
            runs = {contender: partial(rate, work) for contender, work in contenders.items()}
            if go is not None:
                runs["Go"] = partial(go.rate, what.split()[0], index)
            rows.append(measure(f"{what} {name}", runs, rounds, seconds))
    for what, contenders in state_works(state()).items():
        runs = {contender: partial(rate, work) for contender, work in contenders.items()}
        rows.append(measure(f"{what} task state", runs, rounds, seconds))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="length of one round")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    signatures = {"2-argument task": signature(1), "10-step chain": signature(10)}
    with tempfile.TemporaryDirectory() as directory:
        go = None
        if shutil.which(os.environ.get("MACHINERY_GO", "go")):
            go = GoBench(directory, [made.encode() for made in signatures.values()])
        else:
            print("no Go toolchain: the Go column is left out", file=sys.stderr)
        rows = compare(go, signatures, options.rounds, options.seconds)
        if go is not None:
            go.close()
    if options.json:
        print(json.dumps(rows))
        return 0
    others = [key for key in rows[0] if key not in ("what", "ours")]
    print(f"{'':32}{'ours/s':>10}" + "".join(f"{other + '/s':>18}{'ratio':>8}" for other in others))
    for row in rows:
        cells = "".join(
            f"{row[other]:18,.0f}{row['ours'] / row[other]:7.1f}x" if other in row else f"{'-':>18}{'':8}"
            for other in others
        )
        print(f"{row['what']:32}{row['ours']:10,.0f}{cells}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
