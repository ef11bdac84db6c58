"""Celery and Kombu on the wire format of the Go task queue Machinery.

``celery -A machinery_compat worker`` finds the attribute ``app`` here: an application configured
from the YAML file that MACHINERY_CONFIG names, or from Machinery's environment variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machinery_compat import wire as _wire
from machinery_compat.application import Celery, Task, enable
from machinery_compat.config import Config
from machinery_compat.errors import MachineryError, RetryTaskLater, TaskError
from machinery_compat.log import set_logger
from machinery_compat.results import AsyncResult
from machinery_compat.server import Server
from machinery_compat.transport.base import current_signature
from machinery_compat.wire import *  # noqa: F403
from machinery_compat.worker import Worker

if TYPE_CHECKING:
    app: Celery

__all__ = sorted(
    [
        *_wire.__all__,
        "AsyncResult",
        "Celery",
        "Config",
        "MachineryError",
        "RetryTaskLater",
        "Server",
        "Task",
        "TaskError",
        "Worker",
        "app",
        "current_signature",
        "enable",
        "set_logger",
    ]
)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = Celery("machinery", config=Config.load())
    globals()["app"] = found
    return found
