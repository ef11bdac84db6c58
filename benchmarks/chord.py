"""How long a chord takes: this project's Machinery API, Go's Machinery, and how it grows.

    python benchmarks/chord.py [--sizes 1000,2000,10000] [--go-sizes 1000,2000]

Both systems run a chord of tasks that do nothing on the same Redis, each with its own sender and
its own worker of the same concurrency, one after the other in each round. The time is that from
the call that sends the chord to the callback's result.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from machinery_compat import Chord, Config, Group, Server, new_signature  # noqa: E402
from tests.support.golang import GoClient, GoWorker, arg, signature  # noqa: E402
from tests.support.python_worker import PythonWorker  # noqa: E402
from tests.support.services import RedisServer  # noqa: E402

QUEUE = "bench"
TIMEOUT = 600.0


def ours(redis: RedisServer, directory: Path, size: int) -> float:
    """Seconds that a chord of this size takes here."""
    redis.client(0).flushdb()
    url = redis.url(0)
    server = Server(Config(broker=url, result_backend=url, default_queue=QUEUE))
    worker = PythonWorker(
        directory, broker=url, backend=url, queue=QUEUE, loglevel="WARNING", tasks="benchmarks.chord_tasks"
    )
    try:
        server.send_task(new_signature("nothing", 0)).get_with_timeout(30)
        began = time.perf_counter()
        chord = Chord(Group(*[new_signature("nothing", number) for number in range(size)]), new_signature("count"))
        result = server.send_chord(chord)
        assert result.result.get_with_timeout(TIMEOUT, 0.01) == [size]
        return time.perf_counter() - began
    finally:
        worker.kill()


def go(redis: RedisServer, directory: Path, size: int) -> float:
    """Seconds that a chord of this size takes in Go."""
    redis.client(0).flushdb()
    url = redis.url(0)
    options = {"flavor": "v2-redigo", "broker": url, "backend": url, "queue": QUEUE, "concurrency": 2}
    members = [signature("add", arg("int64", 1))] * size
    with GoClient(directory, **options) as client:
        worker = GoWorker(directory, **options).wait_ready()
        try:
            began = time.perf_counter()
            sent = client.must(TIMEOUT, op="send_chord", signatures=members, callback=signature("add"))
            assert client.values(sent["callback_uuid"], timeout=TIMEOUT) == [size]
            return time.perf_counter() - began
        finally:
            worker.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,2000,10000")
    parser.add_argument("--go-sizes", default="1000,2000")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    go_sizes = [int(size) for size in options.go_sizes.split(",") if size]
    times: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        for _ in range(options.rounds):
            for name, run, wanted in (("machinery_compat", ours, sizes), ("Go Machinery", go, go_sizes)):
                for size in wanted:
                    times.setdefault((name, size), []).append(run(redis, Path(folder), size))
                    print(f"{name:<18} chord of {size:>6}: {times[name, size][-1]:7.2f} s", flush=True)
    medians = {key: statistics.median(found) for key, found in times.items()}
    print("\nmedians")
    for (name, size), seconds in medians.items():
        other = medians.get(("Go Machinery", size))
        ratio = f"   Go takes {other / seconds:.1f} times as long" if other and name == "machinery_compat" else ""
        print(f"{name:<18} chord of {size:>6}: {seconds:7.2f} s{ratio}")
    smallest, largest = min(sizes), max(sizes)
    growth = medians["machinery_compat", largest] / medians["machinery_compat", smallest]
    print(f"a chord of {largest} takes {growth:.1f} times one of {smallest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
