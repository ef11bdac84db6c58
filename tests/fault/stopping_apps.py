"""Applications that the workers of these tests are started with."""

from __future__ import annotations

from machinery_compat import Celery, Config

#: Seconds of a lease that a test can outlive.
LEASE = 2.0
#: Seconds for which a cold stop waits for the running tasks.
SOFT = 2.0

short_lease = Celery("short_lease", config=Config.load())
short_lease.conf.broker_transport_options = {"lease_time": LEASE}

soft = Celery("soft", config=Config.load())
soft.conf.worker_soft_shutdown_timeout = SOFT
soft.conf.worker_enable_soft_shutdown_on_idle = True
