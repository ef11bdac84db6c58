"""Reads the results of tasks of either fleet: ``python fetch.py ID …``."""

import sys
import time

from shop import member

APPS = [member("machinery"), member("celery")]


def fetch(task_id: str, timeout: float = 30) -> object:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for app in APPS:
            result = app.AsyncResult(task_id)
            if result.ready():
                return result.get()
        time.sleep(0.1)
    raise TimeoutError(task_id)


for task_id in sys.argv[1:]:
    print(fetch(task_id))
