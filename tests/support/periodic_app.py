"""An application with one periodic task, for ``celery -A`` and as a program that only sends.

Everything comes from variables: Machinery's, and PROGRAM, the name that the lock begins with.
"""

from __future__ import annotations

import os
import sys

from machinery_compat import Config, Server, new_signature
from tests.support.ticks import NAME, SPEC

server = Server(Config.from_env(), program_name=os.environ.get("PROGRAM"))
server.register_task("beat", lambda: os.getppid())
server.register_periodic_task(SPEC, NAME, new_signature("beat"))
app = server.app

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.read()
    server.periodic.stop()
