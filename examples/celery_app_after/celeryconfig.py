import os

broker_url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
result_backend = broker_url
# The queue of the Go fleet.
task_default_queue = os.environ.get("DEFAULT_QUEUE", "machinery_tasks")
