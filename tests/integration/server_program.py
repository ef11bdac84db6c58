"""A program that runs a Machinery worker in its main thread, as a user of the Server would write it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from machinery_compat import Config, Server


def slow(started: str, ended: str, seconds: float) -> str:
    Path(started).touch()
    time.sleep(seconds)
    Path(ended).touch()
    return ended


def main(url: str, queue: str) -> None:
    server = Server(Config(broker=url, result_backend=url, default_queue=queue))
    server.register_task("slow", slow)
    server.new_worker("program", 2).launch()
    print("Worker quit gracefully", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
