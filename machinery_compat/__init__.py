"""Celery and Kombu on the wire format of the Go task queue Machinery.

``celery -A machinery_compat worker`` finds the attribute ``app`` here: an application configured
from the YAML file that MACHINERY_CONFIG names, or from Machinery's environment variables.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from machinery_compat.application import Celery, Task, enable
from machinery_compat.config import Config
from machinery_compat.errors import MachineryError, RetryTaskLater, TaskError
from machinery_compat.log import set_logger
from machinery_compat.results import AsyncResult
from machinery_compat.server import Server
from machinery_compat.transport.base import current_signature
from machinery_compat.wire import (
    FAILURE,
    PENDING,
    RECEIVED,
    RETRY,
    STARTED,
    SUCCESS,
    TYPES,
    ZERO_TIME,
    Arg,
    Chain,
    Chord,
    Float32,
    Float64,
    GoNumber,
    GoType,
    Group,
    GroupMeta,
    Int,
    Int8,
    Int16,
    Int32,
    Int64,
    Signature,
    TaskResult,
    TaskState,
    Uint,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    decode_value,
    encode_value,
    infer_type,
    new_group_uuid,
    new_signature,
    new_task_uuid,
    now_text,
    type_of_hint,
)
from machinery_compat.worker import Worker

if TYPE_CHECKING:
    app: Celery

__all__ = [
    "FAILURE",
    "PENDING",
    "RECEIVED",
    "RETRY",
    "STARTED",
    "SUCCESS",
    "TYPES",
    "ZERO_TIME",
    "Arg",
    "AsyncResult",
    "Celery",
    "Chain",
    "Chord",
    "Config",
    "Float32",
    "Float64",
    "GoNumber",
    "GoType",
    "Group",
    "GroupMeta",
    "Int",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "MachineryError",
    "RetryTaskLater",
    "Server",
    "Signature",
    "Task",
    "TaskError",
    "TaskResult",
    "TaskState",
    "Uint",
    "Uint8",
    "Uint16",
    "Uint32",
    "Uint64",
    "Worker",
    "app",
    "current_signature",
    "decode_value",
    "enable",
    "encode_value",
    "infer_type",
    "new_group_uuid",
    "new_signature",
    "new_task_uuid",
    "now_text",
    "set_logger",
    "type_of_hint",
]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = Celery("machinery", config=Config.load())
    path = os.environ.get("MACHINERY_CONFIG")
    if path:
        found.machinery.watch(path)
    globals()["app"] = found
    return found
