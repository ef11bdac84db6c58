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

import msgspec

from machinery_compat.wire import (
    SUCCESS,
    Arg,
    Chain,
    GoNumber,
    Signature,
    TaskResult,
    TaskState,
    new_signature,
    new_task_uuid,
    now_text,
)

MODULE = Path(__file__).parents[1] / "tests" / "interop" / "go"
_HTML = re.compile("[<>&\u2028\u2029]")
_ATTRIBUTES = {field.encode_name: field.name for field in msgspec.structs.fields(Signature)}
_STATE_ATTRIBUTES = {field.encode_name: field.name for field in msgspec.structs.fields(TaskState)}
_NOTHING = type(None)
_KINDS = {
    "ETA": (str, _NOTHING),
    "GroupTaskCount": GoNumber,
    "Args": (list, _NOTHING),
    "Headers": (dict, _NOTHING),
    "Priority": GoNumber,
    "Immutable": bool,
    "RetryCount": GoNumber,
    "RetryTimeout": GoNumber,
    "OnSuccess": (list, _NOTHING),
    "OnError": (list, _NOTHING),
    "ChordCallback": (dict, _NOTHING),
    "StopTaskDeletionOnError": bool,
    "IgnoreWhenTaskNotRegistered": bool,
    "Results": (list, _NOTHING),
    "TTL": GoNumber,
}


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


# --- bare json ------------------------------------------------------------------------------------


def dumps(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


def loads_and_read(body: bytes) -> Any:
    tree = json.loads(body)
    return tree["Name"], tree["UUID"], [arg["Value"] for arg in tree["Args"]]


# --- json, same job -------------------------------------------------------------------------------


def _dumps_as_go(tree: dict[str, Any]) -> bytes:
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False)
    return _HTML.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode()


def _tree(made: Signature | None) -> dict[str, Any] | None:
    if made is None:
        return None
    tree = {name: getattr(made, attribute) for name, attribute in _ATTRIBUTES.items()}
    if made.args is not None:
        tree["Args"] = [{"Name": arg.name, "Type": arg.type, "Value": arg.value} for arg in made.args]
    if made.on_success is not None:
        tree["OnSuccess"] = [_tree(callback) for callback in made.on_success]
    if made.on_error is not None:
        tree["OnError"] = [_tree(callback) for callback in made.on_error]
    tree["ChordCallback"] = _tree(made.chord_callback)
    return tree


def dumps_same_job(made: Signature) -> bytes:
    return _dumps_as_go(_tree(made) or {})


def dumps_state_same_job(made: TaskState) -> bytes:
    tree = {name: getattr(made, attribute) for name, attribute in _STATE_ATTRIBUTES.items() if name != "Celery"}
    tree["Results"] = made.results and [{"Type": item.type, "Value": item.value} for item in made.results if item]
    return _dumps_as_go(tree)


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _parse(body: bytes) -> Any:
    return json.loads(body, parse_int=GoNumber, parse_float=GoNumber, object_pairs_hook=_unrepeated)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(str(value) if type(value) is GoNumber else json.dumps(value, separators=(",", ":")))


def _fields(tree: dict[str, Any], attributes: dict[str, str]) -> dict[str, Any]:
    fields = {}
    for name, value in tree.items():
        kind = _KINDS.get(name, str)
        if not isinstance(value, kind):
            raise ValueError(f"{name} is no {kind}")
        fields[attributes[name]] = int(value) if kind is GoNumber else value
    return fields


def _arg(tree: dict[str, Any]) -> Arg:
    if not isinstance(tree["Name"], str) or not isinstance(tree["Type"], str):
        raise ValueError("an Arg's Name and Type are text")
    made: Arg = Arg._fill(name=tree["Name"], type=tree["Type"], _raw=_raw(tree["Value"]))
    return made


def _signature(tree: dict[str, Any] | None) -> Signature | None:
    if tree is None:
        return None
    fields = _fields(tree, _ATTRIBUTES)
    if fields["args"] is not None:
        fields["args"] = [_arg(arg) for arg in fields["args"]]
    if fields["on_success"] is not None:
        fields["on_success"] = [_signature(callback) for callback in fields["on_success"]]
    if fields["on_error"] is not None:
        fields["on_error"] = [_signature(callback) for callback in fields["on_error"]]
    fields["chord_callback"] = _signature(fields["chord_callback"])
    return Signature(**fields)


def loads_same_job(body: bytes) -> Any:
    return _signature(_parse(body))


def loads_state_same_job(body: bytes) -> TaskState:
    fields = _fields(_parse(body), _STATE_ATTRIBUTES)
    if fields["results"] is not None:
        fields["results"] = [
            TaskResult._fill(type=item["Type"], _raw=_raw(item["Value"])) for item in fields["results"]
        ]
    return TaskState(**fields)


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
    assert dumps(tree) == dumps_same_job(made) == body
    assert loads_same_job(body) == Signature.decode(body) == made
    return {
        "encode": {
            "ours": made.encode,
            "json": partial(dumps, tree),
            "json, same job": partial(dumps_same_job, made),
        },
        "decode": {
            "ours": partial(Signature.decode, body),
            "json": partial(json.loads, body),
            "json, same job": partial(loads_same_job, body),
        },
        "decode and read": {
            "ours": partial(read, Signature.decode, body),
            "json": partial(loads_and_read, body),
            "json, same job": partial(read, loads_same_job, body),
        },
    }


def state_works(made: TaskState) -> Works:
    body = made.encode()
    tree = json.loads(body)
    assert dumps(tree) == dumps_state_same_job(made) == body
    assert loads_state_same_job(body) == TaskState.decode(body) == made
    return {
        "encode": {
            "ours": made.encode,
            "json": partial(dumps, tree),
            "json, same job": partial(dumps_state_same_job, made),
        },
        "decode": {
            "ours": partial(TaskState.decode, body),
            "json": partial(json.loads, body),
            "json, same job": partial(loads_state_same_job, body),
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
