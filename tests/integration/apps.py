"""Applications that the workers of these tests are started with: ``-A tests.integration.apps:short_lease``."""

from __future__ import annotations

from machinery_compat import Celery, Config

#: Seconds of a lease that a test can outlive.
LEASE = 2.0

short_lease = Celery("short_lease", config=Config.load())
short_lease.conf.broker_transport_options = {"lease_time": LEASE}

#: Whole seconds, as Pub/Sub has them.
PUBSUB_LEASE = 2

pubsub = Celery("pubsub", config=Config.load())
pubsub.conf.broker_transport_options = {"lease_time": PUBSUB_LEASE, "wait_time": 1.0}
pubsub.conf.machinery_redelivery_limit = 1
# Seconds that Celery waits for the result of a process of its pool that has ended.
pubsub.conf.worker_lost_wait = 0.1

#: The most bytes of a message or of a task's results.
LIMIT = 100_000

limited = Celery("limited", config=Config.load())
limited.conf.machinery_max_body_size = LIMIT


@limited.task(name="py_repeat")
def repeat(text: str, times: int) -> str:
    return text * times


impatient = Celery("impatient", config=Config.load())
impatient.conf.machinery_redelivery_limit = 1

deduplicating = Celery("deduplicating", config=Config.load())
deduplicating.conf.worker_deduplicate_successful_tasks = True
