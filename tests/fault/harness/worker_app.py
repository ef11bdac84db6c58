"""What worker processes are started with: ``celery -A tests.fault.harness.worker_app worker``."""

from __future__ import annotations

import os

from tests.fault.harness.app import Settings, add, make

app = make(Settings.decode(os.environ["FAULT_APP"]))
app.task(name="add", bind=True, shared=False)(add)
