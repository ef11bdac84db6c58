"""Where the servers and workers of the smoke tests run."""

from __future__ import annotations

import os

#: Selects it: ``docker``, or ``process`` (the default).
VARIABLE = "CELERY_TEST_RUNTIME"
DOCKER, PROCESS = "docker", "process"
RUNTIMES = {DOCKER: "containers of Docker", PROCESS: "processes of this machine"}


def runtime() -> str:
    """The runtime that was asked for.

    Raises:
        ValueError: there is none of that name.
    """
    asked = os.environ.get(VARIABLE) or PROCESS
    if asked not in RUNTIMES:
        raise ValueError(f"{VARIABLE} is one of {', '.join(RUNTIMES)}, not {asked!r}")
    return asked
