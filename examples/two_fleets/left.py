"""How many tasks each fleet has not ended yet: ``python left.py``."""

from redis import Redis
from shop import QUEUES, REDIS

redis = Redis.from_url(REDIS)


def old(queue: str) -> int:
    # What waits, and what a worker has taken: it runs, or waits there for its ETA.
    return redis.llen(queue) + redis.hlen("unacked")


def new(queue: str) -> int:
    taken = sum(redis.llen(key) for key in redis.scan_iter(f"{{{queue}}}:inflight:*"))
    return redis.llen(queue) + taken + redis.zcard("delayed_tasks")


print("celery:", old(QUEUES["celery"]))
print("machinery:", new(QUEUES["machinery"]))
