"""Signatures to bytes and back: this package, Python's json module and Go Machinery, side by side.

``python benchmarks/codec.py`` prints operations a second and ratios, each the median of alternating rounds.
The Go column needs a Go toolchain (``MACHINERY_GO`` names it) and is left out without one.

The json module is measured twice. "json" is bare ``json.dumps``/``json.loads`` of the equivalent dicts.
"json, same job" also does what the wire demands: Go's escapes on the way out; on the way in numbers that keep
their spelling and no silently lost repeated members.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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

from machinery_compat.wire import Chain, GoNumber, Signature, new_signature

MODULE = Path(__file__).parents[1] / "tests" / "interop" / "go"
_HTML = re.compile("[<>&\u2028\u2029]")


def signature(steps: int) -> Signature:
    """A task of two arguments, or a chain of such tasks."""
    parts = [new_signature("add", 1, 2, routing_key="machinery_tasks", headers={}) for _ in range(steps)]
    return Chain(*parts).tasks[0]


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


def dumps(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


def dumps_same_job(tree: dict[str, Any]) -> bytes:
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False)
    return _HTML.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode()


def read(body: bytes) -> Any:
    """What a worker needs first of a message."""
    decoded = Signature.decode(body)
    return decoded.name, decoded.uuid, [arg.value for arg in decoded.args or ()]


def loads(body: bytes) -> Any:
    decoded = json.loads(body)
    return decoded["Name"], decoded["UUID"], [arg["Value"] for arg in decoded["Args"]]


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def loads_same_job(body: bytes) -> Any:
    decoded = json.loads(body, parse_int=GoNumber, parse_float=GoNumber, object_pairs_hook=_unrepeated)
    return decoded["Name"], decoded["UUID"], [int(arg["Value"]) for arg in decoded["Args"]]


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


def measure(go: GoBench | None, signatures: dict[str, Signature], rounds: int, seconds: float) -> list[dict[str, Any]]:
    rows = []
    for index, (name, made) in enumerate(signatures.items()):
        body = made.encode()
        tree = json.loads(body)
        works: dict[str, dict[str, Callable[[], Any]]] = {
            "encode": {
                "ours": made.encode,
                "json": partial(dumps, tree),
                "json, same job": partial(dumps_same_job, tree),
            },
            "decode": {
                "ours": partial(read, body),
                "json": partial(loads, body),
                "json, same job": partial(loads_same_job, body),
            },
        }
        for what, contenders in works.items():
            runs = {contender: partial(rate, work, seconds) for contender, work in contenders.items()}
            if go is not None:
                runs["Go"] = partial(go.rate, what, index, seconds)
            rates: dict[str, list[float]] = {contender: [] for contender in runs}
            for _ in range(rounds):
                for contender, run in runs.items():
                    rates[contender].append(run())
            rows.append({"what": f"{what} {name}", **{key: statistics.median(value) for key, value in rates.items()}})
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
        rows = measure(go, signatures, options.rounds, options.seconds)
        if go is not None:
            go.close()
    if options.json:
        print(json.dumps(rows))
        return 0
    others = [key for key in rows[0] if key not in ("what", "ours")]
    print(f"{'':24}{'ours/s':>10}" + "".join(f"{other + '/s':>18}{'ratio':>8}" for other in others))
    for row in rows:
        cells = "".join(f"{row[other]:18,.0f}{row['ours'] / row[other]:7.1f}x" for other in others)
        print(f"{row['what']:24}{row['ours']:10,.0f}{cells}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
