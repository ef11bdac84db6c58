"""A worker whose limit of redeliveries the variable LIMIT says, with a task that kills it."""

from __future__ import annotations

import os

from machinery_compat import app
from tests.support.tasks import task

app.conf.machinery_redelivery_limit = int(os.environ["LIMIT"])


@task(name="die")
def die() -> None:
    os._exit(1)
