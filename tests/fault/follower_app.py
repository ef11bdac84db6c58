"""A worker whose pool process dies once, just before it sends what follows a task; the file FLAG says that it has."""

from __future__ import annotations

import os
from pathlib import Path

from machinery_compat import Signature, app


def die_once(signature: Signature) -> None:
    flag = Path(os.environ["FLAG"])
    if signature.name == "py_multiply" and not flag.exists():
        flag.touch()
        os._exit(1)


app.machinery.pre_publish.append(die_once)
