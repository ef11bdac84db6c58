"""The application of the smoke tests' workers, configured by Machinery's variables."""

from __future__ import annotations

import os
import time

from redis import Redis

from machinery_compat import Celery, Config

#: Seconds until another worker takes over what a killed one had; short, for a test to wait for.
LEASE = 2.0
POLL_SECONDS = 0.05

app = Celery("smoke", config=Config.load())
app.conf.broker_transport_options = {"lease_time": LEASE}


@app.task(name="smoke.add")
def add(*numbers: int) -> int:
    return sum(numbers)


@app.task(name="smoke.hold")
def hold(key: str) -> int:
    """Runs until the gate of this name is opened; returns how often it was begun."""
    with Redis.from_url(os.environ["RESULT_BACKEND"]) as client:
        begun = int(client.incr(f"begun:{key}"))
        while not client.exists(f"gate:{key}"):
            time.sleep(POLL_SECONDS)
    return begun
