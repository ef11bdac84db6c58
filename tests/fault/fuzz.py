"""Mutated and random input for everything that reads what a stranger has written.

    python -m tests.fault.fuzz [--inputs N] [--seed N] [--target NAME ...]

A finding is an exception that is not a MachineryError, or an input that takes more than a second of the processor.
Each is printed with its target and its bytes; the exit code is their number (at most 100).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from machinery_compat import Celery, Config, arguments, canvas, cron, errors, urls
from machinery_compat.backends.base import Backend
from machinery_compat.backends.reading import task_values
from machinery_compat.config import ConfigWarning
from machinery_compat.transport import transport_for
from machinery_compat.transport.dead import DeadEntry
from machinery_compat.transport.payloads import decode
from machinery_compat.wire import Arg, GroupMeta, Signature, TaskState, decode_value
from machinery_compat.wire.gotypes import TYPES

#: Seconds of the processor after which an input counts as a hang; a machine with much else to do is none.
HANG = 1.0
VECTORS = Path(__file__).parents[1] / "vectors"
SORTED_TYPES = sorted(TYPES)


class HangError(BaseException):
    """Raised by the alarm; no decoder may swallow it."""


# -- what is fuzzed


def _backend() -> Backend:
    app = Celery("fuzz", broker="eager", backend="eager", set_as_current=False)
    backend: Backend = app.backend
    return backend


BACKEND = _backend()


def signature(data: bytes) -> None:
    """A message, all the way to what Celery's worker gets."""
    found = decode(data)
    found.copy().encode()
    Signature.decode(found.encode())
    canvas.from_signature(found, data)


def state(data: bytes) -> None:
    """A TaskState, all the way to what Celery's readers get."""
    found = TaskState.decode(data)
    TaskState.decode(found.encode())
    with contextlib.suppress(errors.MachineryError):
        task_values(found.results)
    BACKEND.meta_of("task", found)


def group(data: bytes) -> None:
    found = GroupMeta.decode(data)
    GroupMeta.decode(found.encode())


def argument(data: bytes) -> None:
    """One Value, as each Type."""
    refused = None
    for go_type in SORTED_TYPES:
        for name in ("", arguments.JSON_MARK, "celery:kw=x", "celery:json,kw=x"):
            try:
                if name:
                    arguments.value_of(Arg.from_raw(go_type, data, name))
                else:
                    decode_value(go_type, data)
            except errors.MachineryError as exc:
                refused = exc
    if refused is not None:
        raise refused


def celery_header(data: bytes) -> None:
    """The text of the header ``celery``."""
    found = Signature(name="x", uuid="x", headers={"celery": data.decode("utf-8", "replace")})
    canvas.from_signature(found, b"")


def dead_entry(data: bytes) -> None:
    entry = DeadEntry.parse(1, data, "queue")
    assert entry.signature is None or entry.signature.name
    assert entry.deliveries >= 0


def spec(data: bytes) -> None:
    schedule = cron.parse(data.decode("utf-8", "replace"))
    schedule.next(datetime(2024, 2, 28, 23, 59, 30, tzinfo=timezone.utc))


URL_READERS: tuple[Callable[[str], object], ...] = (
    urls.parse_redis_url,
    lambda text: urls.parse_redis_url(text, as_list=True),
    urls.parse_lock_url,
    urls.parse_gcppubsub_url,
    urls.memcache_servers,
    urls.broker_kind,
    urls.backend_kind,
    urls.lock_kind,
    urls.redact,
    urls.with_colon,
    urls.uncut,
    transport_for,
)


def url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    refused = None
    for read in URL_READERS:
        try:
            read(text)
        except errors.MachineryError as exc:
            refused = exc
    if refused is not None:
        raise refused


_yaml_file = tempfile.NamedTemporaryFile(suffix=".yml")  # noqa: SIM115 - for the life of the process


def configuration(data: bytes) -> None:
    Path(_yaml_file.name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)
        made = Config.from_yaml(_yaml_file.name)
    repr(made)
    made.validate()


# -- what the mutations begin with


def _lines(name: str) -> Iterator[dict[str, Any]]:
    for line in (VECTORS / name).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


HEADER = json.dumps(
    {
        "expires": "2030-01-01T00:00:00+00:00",
        "timelimit": [10, 5.5],
        "retries": 3,
        "group": "g",
        "group_index": 1,
        "root_id": "r",
        "parent_id": "p",
        "reply_to": "q",
        "shadow": "s",
        "ignore_result": True,
        "stamps": {"a": ["b"]},
        "stamped_headers": ["a"],
        "callbacks": [
            {"task": "add", "args": [1], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
        ],
        "chain": [{"task": "add", "args": [], "kwargs": {}, "options": {"task_id": "x"}}],
        "chord": {"task": "add", "args": [], "kwargs": {}, "options": {}},
        "headers": {"n": 5, "when": {"__type__": "datetime", "__value__": "2030-01-01T00:00:00"}},
        "own": 1,
        "alone": False,
    }
)
FULL = json.dumps(
    {
        "UUID": "task_1",
        "Name": "add",
        "RoutingKey": "q",
        "ETA": "2030-01-01T00:00:00.123456789Z",
        "Args": [
            {"Name": "", "Type": "int64", "Value": 5},
            {"Name": arguments.JSON_MARK, "Type": "string", "Value": '{"a": [1, null]}'},
            {"Name": "celery:kw=x", "Type": "[]string", "Value": ["a"]},
        ],
        "Headers": {"celery": HEADER, "traceparent": "00-1", "deep": [[{}]]},
        "OnSuccess": [{"UUID": "task_2", "Name": "b"}],
        "ChordCallback": {"UUID": "task_3", "Name": "c"},
    }
)
STATE = json.dumps(
    {
        "TaskUUID": "task_1",
        "TaskName": "add",
        "State": "FAILURE",
        "Results": [{"Type": "string", "Value": "[1]", "Celery": arguments.JSON_MARK}],
        "Error": "boom",
        "CreatedAt": "2024-01-02T03:04:05.678901234Z",
        "Celery": json.dumps(
            {
                "exception": {"exc_type": "ValueError", "exc_module": "builtins", "exc_message": ["x"]},
                "traceback": "t",
                "children": [[["id", None], None]],
                "state": "REVOKED",
                "result": 5,
            }
        ),
    }
)
YAML = """\
broker: 'redis://user:pass@localhost:6379/1'
default_queue: 010
result_backend: 'redis://localhost:6379'
results_expire_in: 3600
multiple_broker_separator: ';'
amqp:
  exchange: e
  exchange_type: direct
  binding_key: k
  prefetch_count: 3
  queue_declare_args: {x-max-priority: 10}
redis: {max_idle: 3, wait: true}
tlsconfig: &a {minversion: 771, nextprotos: [a, b]}
x: *a
"""
URLS = (
    "redis://user:pa%20ss@[::1]:6379/1?ssl_cert_reqs=none#x",
    "rediss://p@h1:1,h2:2/3",
    "redis+socket://u:p@/tmp/redis.sock:/2",
    "amqps://u:p@h:5671/vhost",
    "machinery+redis://h",
    "machinery-redis://h:1/0",
    "memcache://h1:1,h2:2",
    "mongodb+srv://u:p@h/db",
    "gcppubsub://project/subscription",
    "https://sqs.eu-west-1.amazonaws.com/1/q",
    "https://dynamodb",
    "eager",
    "redis://a;redis://b",
)


@dataclass
class Target:
    run: Callable[[bytes], None]
    seeds: list[bytes]
    #: Its share of the inputs.
    weight: int
    #: Whether its texts are JSON, to be changed member by member too.
    structured: bool = True


def targets() -> dict[str, Target]:
    documents: dict[str, list[bytes]] = {"signature": [], "state": [], "group": [], "arg": []}
    for vector in _lines("vectors.jsonl"):
        documents.setdefault(vector.get("kind", ""), []).append(vector["bytes"].encode())
    signatures = [*documents["signature"], FULL.encode()]
    signatures += [bytes.fromhex(one["inputHex"]) for one in _lines("decode_vectors.jsonl")]
    states = [STATE.encode(), *(one for kind, ones in documents.items() if "state" in kind for one in ones)]
    groups = [
        b'{"GroupUUID":"g","TaskUUIDs":["a","b"],"ChordTriggered":false,"Lock":false,"CreatedAt":"2024-01-02T03:04:05Z"}'
    ]
    groups += [one for kind, ones in documents.items() if "group" in kind for one in ones]
    return {
        "signature": Target(signature, signatures, 30),
        "state": Target(state, states, 15),
        "group": Target(group, groups, 5),
        "argument": Target(argument, [one["ValueJSON"].encode() for one in _lines("reflect_vectors.jsonl")], 5),
        "celery_header": Target(celery_header, [HEADER.encode()], 20),
        "dead_entry": Target(dead_entry, [json.dumps({"reason": "r", "queue": "q", "body": FULL}).encode()], 5),
        "cron": Target(spec, [one["spec"].encode() for one in _lines("cron_vectors.jsonl")], 10, structured=False),
        "url": Target(url, [one.encode() for one in URLS], 8, structured=False),
        "configuration": Target(configuration, [YAML.encode()], 2, structured=False),
    }


# -- mutations

# ruff: noqa: E501 - tables

TOKENS = (
    *(b"{ } [ ] , : \" \\ \\u0000 \\ud800 \\udc00 null true false 0 -0 -1 1e999 1E-400 1e2 0.1 NaN Infinity -Infinity".split()),
    *(b"9223372036854775808 18446744073709551616 340282350000000000000000000000000000000 __type__ __value__".split()),
    *(b'"__type__":"datetime" "__type__":"decimal" "__type__":"uuid" "__type__":"bytes" "__type__":"base64"'.split()),
    *(b"celery: celery:json kw= exc_type exc_module builtins SystemExit os system subprocess Popen task chain chord".split()),
    *(b"* / - ? , TZ= CRON_TZ= @every 1h 0 59 60 Europe/Berlin ../../etc/passwd JAN SUN L W #".split()),
    *(b"redis:// rediss:// @ % %zz %00 ;  ? # : [ ] ::1 65536 & * !!python/object/apply:os.system !!binary << | >".split()),
    b" ", b"\n", b"\t", b"\x00", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
    b"[" * 200, b"{\"a\":" * 200, b"9" * 400, b"9" * 5000, b"1e" + b"9" * 30, b"x" * 2000, b"0" * 100, b"\r\n",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 255, 256, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, 1e22, float("nan"),
    float("inf"), "", "x", "\x00", "\ud800", "9" * 400, "2030-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "2030-13-45", "2030-01-01T00:00:00+99:99", [], [None], [[]], {}, {"": None}, {"task": "x"}, {"task": 5}, [1, "a", None, {}],
    {"__type__": "datetime", "__value__": "x"}, {"__type__": "decimal", "__value__": "1e999999"}, {"__type__": [], "__value__": 1}, {"__type__": "decimal", "__value__": "x"},
    {"__type__": "uuid", "__value__": {"hex": "x", "version": 9}}, {"__type__": "bytes", "__value__": "x"},
    {"exc_type": "system", "exc_module": "os", "exc_message": ["x"]}, {"exc_type": "SystemExit", "exc_module": "builtins"},
    {"exc_type": 5}, {"exc_type": "a.b", "exc_module": "c"}, {"exc_type": "\x00", "exc_module": None},
)  # fmt: skip


def mutated(bits: random.Random, target: Target) -> bytes:
    kind = bits.random()
    if kind < 0.05:
        return bits.randbytes(bits.randrange(64))
    data = bits.choice(target.seeds)
    if target.structured and kind < 0.5:
        data = restructured(bits, data)
        if kind < 0.4:
            return data
    for _ in range(bits.choice((1, 1, 1, 2, 3, 8))):
        data = _bytes_changed(bits, data, target.seeds)
    return data


def _bytes_changed(bits: random.Random, data: bytes, seeds: list[bytes]) -> bytes:
    at = bits.randrange(len(data) + 1)
    to = min(len(data), at + bits.choice((1, 1, 2, 4, 16, 64)))
    kind = bits.randrange(8)
    if kind == 0 and at < len(data):
        return data[:at] + bytes([data[at] ^ (1 << bits.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[to:]
    if kind == 2:
        return data[:at] + data[at:to] * bits.choice((2, 3, 50)) + data[to:]
    if kind == 3:
        other = bits.choice(seeds)
        return data[:at] + other[bits.randrange(len(other) + 1) :]
    if kind == 4:
        return data[:at] + bits.randbytes(bits.randrange(1, 5)) + data[to:]
    if kind == 5:
        return data[:at]
    token = bits.choice(TOKENS)
    return data[:at] + token + data[at if kind == 6 else to :]


def restructured(bits: random.Random, data: bytes) -> bytes:
    """JSON with members changed, taken away, added, or JSON in a text changed likewise."""
    try:
        document = json.loads(data)
    except ValueError:
        return data
    for _ in range(bits.choice((1, 1, 2, 4))):
        document = _member_changed(bits, document)
    return json.dumps(document, ensure_ascii=bits.random() < 0.7).encode("utf-8", "surrogatepass")


def _value(bits: random.Random) -> Any:
    # Later mutations change it in place.
    return copy.deepcopy(bits.choice(VALUES))


def _member_changed(bits: random.Random, value: Any) -> Any:
    if isinstance(value, (dict, list)) and value and bits.random() < 0.85:
        key = bits.choice(list(value) if isinstance(value, dict) else range(len(value)))
        kind = bits.random()
        if kind < 0.1:
            del value[key]
        elif kind < 0.2 and isinstance(value, dict):
            value[bits.choice((str(key).upper(), str(key).swapcase(), "", "\x00", "task", "__type__", "K\u017f"))] = (
                _value(bits)
            )
        elif kind < 0.25 and isinstance(value, list):
            value.append(_value(bits))
        else:
            value[key] = _member_changed(bits, value[key])
        return value
    if isinstance(value, str) and value[:1] in ("{", "[") and bits.random() < 0.8:
        return restructured(bits, value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return _value(bits)


# -- running


@dataclass
class Report:
    """What a run has found.

    Attributes:
        inputs: how many inputs each target got.
        refused: how many of them it refused, as it should.
        findings: a text for each finding, one a place in the code.
        slowest: the longest time that an input took, in seconds.
    """

    inputs: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0

    def try_one(self, name: str, run: Callable[[bytes], None], data: bytes) -> None:
        self.inputs[name] += 1
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, HANG)
        try:
            run(data)
        except errors.MachineryError:
            self.refused[name] += 1
        except HangError as exc:
            self._found(name, data, exc)
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt) and not exc.args:
                raise
            self._found(name, data, exc)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        took = time.process_time() - started
        self.slowest = max(self.slowest, took)
        if took > HANG:
            self.findings.setdefault(f"{name}: slow", f"{name}: {took:.1f} s for {data[:2000]!r}")

    def _found(self, name: str, data: bytes, exc: BaseException) -> None:
        frames = traceback.extract_tb(exc.__traceback__)
        where = next(
            (f"{one.filename}:{one.lineno}" for one in reversed(frames) if "machinery_compat" in one.filename), ""
        )
        text = "".join(traceback.format_exception(exc)[-6:])
        self.findings.setdefault(f"{name}: {type(exc).__name__} {where}", f"{name} {data[:2000]!r}\n{text}")


def _alarm(number: int, frame: FrameType | None) -> None:
    raise HangError


def fuzz(inputs: int, seed: int, only: list[str] | None = None) -> Report:
    """Runs the mutations; call it in the main thread."""
    bits, report, chosen = random.Random(seed), Report(), targets()
    if only:
        chosen = {name: chosen[name] for name in only}
    names = bits.choices(list(chosen), [one.weight for one in chosen.values()], k=inputs)
    before = signal.signal(signal.SIGPROF, _alarm)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                report.try_one(name, chosen[name].run, mutated(bits, chosen[name]))
    finally:
        signal.signal(signal.SIGPROF, before)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=int, default=int(time.time()), metavar="N")
    parser.add_argument("--target", action="append", choices=list(targets()), help="only this one; may be repeated")
    options = parser.parse_args()
    started = time.monotonic()
    report = fuzz(options.inputs, options.seed, options.target)
    for finding in report.findings.values():
        print(f"FINDING {finding}\n")
    for name, count in report.inputs.most_common():
        print(f"{name:15} {count:9} inputs, {report.refused[name]:9} refused")
    print(
        f"seed {options.seed}: {sum(report.inputs.values())} inputs, {len(report.findings)} findings, "
        f"slowest {report.slowest * 1000:.0f} ms, {time.monotonic() - started:.0f} s"
    )
    return min(len(report.findings), 100)


if __name__ == "__main__":
    sys.exit(main())
