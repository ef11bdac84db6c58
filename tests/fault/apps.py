"""Applications of the workers of these tests: ``-A tests.fault.apps:app``."""

from __future__ import annotations

import os

from machinery_compat import Celery, Config

#: Seconds of a lease that a test can outlive, and a worker on a busy machine can renew.
LEASE = 2.0

app = Celery("faults", config=Config.load())
app.conf.broker_transport_options = {"lease_time": float(os.environ.get("LEASE", LEASE))}
app.conf.machinery_redelivery_limit = int(os.environ.get("REDELIVERY_LIMIT", "5"))
# Seconds that Celery waits for the result of a process of its pool that has ended.
app.conf.worker_lost_wait = 0.1
