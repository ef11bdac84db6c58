"""A process that renews leases while the worker's own one cannot.

Where tasks run in the worker's process, a task may hold Python's lock for longer than a lease
(a regular expression, a C library), and then no thread of the worker can renew anything. This
process does it as long as the worker lives and is not stopped. It renews and nothing else: it
never takes a lease back that others have taken away.

The process runs this file by its path and imports nothing else of this package but what it
needs to reach sentinels or a cluster, so that it is small. It reads JSON lines from its standard
input and ends with it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

__all__ = ["LeaseKeeper"]

logger = logging.getLogger("machinery_compat.transport")

#: How many times a lease is renewed while it lasts.
RENEWALS = 3
#: Seconds that the process has to end by itself.
END_TIMEOUT = 2.0
#: Runs this file without putting its folder, where another ``redis`` lies, on the path.
BOOTSTRAP = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
#: What knows of sentinels, and of clusters, run by its path too.
SENTINEL, CLUSTER = (Path(__file__).parents[1] / f"redis_{name}.py" for name in ("sentinel", "cluster"))
#: By the names of their classes, how a connection is made.
CONNECTIONS = {
    kind.__name__: kind for kind in (redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection)
}


class LeaseKeeper:
    """The process, seen from the worker.

    Args:
        params: the arguments of redis-py's connection pool.
        lease: how long a lease lasts, in seconds.
        script: the script that renews a lease.
    """

    def __init__(self, params: Mapping[str, Any], lease: float, script: str) -> None:
        self._setup = {
            "parent": os.getpid(),
            "connection": params.get("connection_class", redis.Connection).__name__,
            # Its keys are numbers, which JSON does not know; one connection more or less matters little.
            "params": {k: v for k, v in params.items() if k not in ("connection_class", "socket_keepalive_options")},
            "lease": lease,
            "script": script,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._broken = False

    def keep(self, leases: Sequence[Sequence[str]]) -> None:
        """Keeps these leases from now on, each given as the keys and the argument of the script.

        Starts the process where there is none, or none any more.
        """
        if self._broken:
            return
        try:
            if self._process is None or self._process.poll() is not None:
                self._start()
            self._tell(leases)
        except (OSError, TypeError, ValueError) as exc:
            # The thread in the worker renews too, so this is no reason to stop.
            self._broken = True
            logger.warning(
                "no process can be started that renews leases while a task keeps Python from running threads: %s", exc
            )

    def _start(self) -> None:
        setup = json.dumps(self._setup)
        self.stop()
        self._process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._write(setup)

    def _tell(self, leases: Sequence[Sequence[str]]) -> None:
        self._write(json.dumps([list(lease) for lease in leases]))

    def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _worker_runs(pid: int) -> bool:
    """Whether the worker could go on: it is not stopped, as far as the system tells."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except OSError:
        return True
    return state not in (b"T", b"t", b"Z", b"X")


def _lines(timeout: float, rest: bytearray) -> list[bytes] | None:
    """The lines that the worker has sent, after at most a time in seconds; None when it is gone."""
    if not select.select([0], [], [], timeout)[0]:
        return []
    data = os.read(0, 65536)
    if not data:
        return None
    rest += data
    *lines, last = bytes(rest).split(b"\n")
    rest[:] = last
    return lines


def _module(path: Path) -> Any:
    """A module by its path; the package around it would be imported with its name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _client(setup: Mapping[str, Any]) -> Any:
    kind, params = setup["connection"], setup["params"]
    if "nodes" in params:
        return _module(CLUSTER).client_of(params)
    if "sentinels" in params:
        known = _module(SENTINEL)
        return redis.Redis(connection_pool=known.pool_of({**params, "connection_class": getattr(known, kind)}))
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=CONNECTIONS[kind], **params))


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        # The worker may need a long time for its warm shutdown.
        signal.signal(number, signal.SIG_IGN)
    setup: dict[str, Any] | None = None
    leases: list[list[str]] = []
    renew: Any = None
    rest = bytearray()
    period = END_TIMEOUT
    while (lines := _lines(period, rest)) is not None:
        for line in lines:
            if setup is not None:
                leases = json.loads(line)
                continue
            setup = json.loads(line)
            renew = _client(setup).register_script(setup["script"])
            period = setup["lease"] / RENEWALS
        if setup is None:
            continue
        if os.getppid() != setup["parent"]:
            # A child of the worker may have kept the other end of the pipe open.
            return
        if _worker_runs(setup["parent"]):
            for consumers, concurrency, consumer in leases:
                with contextlib.suppress(redis.RedisError):
                    renew(keys=[consumers, concurrency], args=[consumer, int(setup["lease"] * 1000), "", ""])


if __name__ == "__main__":
    _main()
