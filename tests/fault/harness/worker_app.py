"""What worker processes are started with: ``celery -A tests.fault.harness.worker_app worker``."""

from __future__ import annotations

import os

from tests.fault.harness.app import Settings, make

app = make(Settings.decode(os.environ["FAULT_APP"]))
