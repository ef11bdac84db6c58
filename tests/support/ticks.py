"""What periodic tasks have sent, told by the states that sending leaves behind."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

from machinery_compat import redis_client
from machinery_compat.backends.redis import MUTEX_KEY
from machinery_compat.wire.gotime import time_ns
from tests.support.waiting import wait_for

__all__ = ["NAME", "SPEC", "Ticks"]

#: What the programs of these tests send.
SPEC = "@every 1s"
NAME = "heartbeat"

SECOND = 10**9


class Ticks:
    """The tasks in a result database that nothing else uses."""

    def __init__(self, url: str) -> None:
        self.client = redis_client.client_for(url)

    def states(self) -> list[dict[str, Any]]:
        texts = [key for key in self.client.scan_iter(count=1000) if self.client.type(key) == b"string"]
        # The lock of Go's chords is no document, and may be gone by the time that it is read.
        keys = [key for key in texts if not key.endswith(MUTEX_KEY.encode())]
        found = [json.loads(value) for value in self.client.mget(keys) if value] if keys else []
        return [state for state in found if isinstance(state, dict) and "TaskUUID" in state]

    def seconds(self) -> Counter[int]:
        """How many tasks were sent in each second."""
        return Counter(time_ns(state["CreatedAt"]) // SECOND for state in self.states())

    def wait(self, count: int) -> Counter[int]:
        """The tasks of *count* whole seconds, the first one not yet begun when this was called."""
        first = int(time.time()) + 1
        wait_for(lambda: time.time() > first + count - 0.1, count + 5, "the time does not go on")
        seconds = self.seconds()
        return Counter({second: seconds[second] for second in range(first, first + count)})
