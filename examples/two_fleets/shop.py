"""One application that belongs to either fleet: FLEET=celery (the default) or FLEET=machinery."""

import os

import celery

import machinery_compat

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
QUEUES = {"celery": "shop", "machinery": "machinery_tasks"}
# The modules with the tasks that are (still) Python's.
TASKS = os.environ.get("TASKS", "tasks totals").split()


def member(fleet: str) -> celery.Celery:
    made = celery.Celery if fleet == "celery" else machinery_compat.Celery
    app = made("shop", broker=REDIS, backend=REDIS, include=TASKS)
    app.conf.task_default_queue = QUEUES[fleet]
    # Results of Machinery are kept for an hour, those of Celery for a day.
    app.conf.result_expires = 24 * 3600
    return app


app = member(os.environ.get("FLEET", "celery"))
