"""Exceptions of machinery_compat, all under one base.

The hierarchy::

    MachineryError
    ├── ConfigError             the configuration says something impossible
    │   └── CronError           a schedule that robfig/cron refuses too
    ├── WireError               bytes or values that Machinery's format cannot carry
    │   ├── EncodeError         a Python value that has no place on the wire
    │   └── DecodeError         bytes that are no Signature, TaskState or GroupMeta
    │       └── ArgumentError   an Arg whose Value does not fit its Type
    ├── BrokerError             the broker cannot be reached or refused a message
    ├── BackendError            the result store refused or lost something
    ├── LockError               a lock could not be taken
    ├── TaskNotRegistered       a name that this process has no function for
    ├── TaskError               a task failed; the text is the one its worker stored
    ├── RetryTaskLater          raised by a task to be run again after a delay
    └── ResultTimeout           a result did not come in time (also a TimeoutError)
"""

from __future__ import annotations

from datetime import timedelta

__all__ = [
    "ArgumentError",
    "BackendError",
    "BrokerError",
    "ConfigError",
    "CronError",
    "DecodeError",
    "EncodeError",
    "LockError",
    "MachineryError",
    "ResultTimeout",
    "RetryTaskLater",
    "TaskError",
    "TaskNotRegistered",
    "WireError",
]


class MachineryError(Exception):
    """Something that machinery_compat cannot do; the message says what and why."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else (self.__doc__ or "").splitlines()[0])


class ConfigError(MachineryError):
    """The configuration cannot be used."""


class CronError(ConfigError):
    """The spec of a schedule cannot be read; the text is that of Go's robfig/cron."""


class WireError(MachineryError):
    """A value or a payload does not fit Machinery's wire format."""


class EncodeError(WireError):
    """A Python value has no place on the wire."""


class DecodeError(WireError):
    """A payload is not what Machinery would have written; the text is Go's."""


class ArgumentError(DecodeError):
    """The Value of an Arg does not fit its Type; the text is Go's."""


class BrokerError(MachineryError):
    """The broker cannot be reached, or has refused a message."""


class BackendError(MachineryError):
    """The result backend refused or lost something."""


class LockError(MachineryError):
    """A lock could not be taken."""


class TaskNotRegistered(MachineryError):
    """No task of that name is registered in this process."""


class TaskError(MachineryError):
    """A task failed. Its text is the error text that the worker stored, Go's or Python's."""


class RetryTaskLater(MachineryError):
    """Raise it in a task to be run again after a delay; mirrors Go's ``tasks.ErrRetryTaskLater``.

    The retry costs nothing of the task's RetryCount.

    Args:
        message: what went wrong, for the log.
        delay: the time to wait, in seconds or as a timedelta.
    """

    def __init__(self, message: str, delay: float | timedelta) -> None:
        self.message = message
        self.delay = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
        super().__init__(message)

    def __reduce__(self) -> tuple[type, tuple[str, timedelta]]:
        return type(self), (self.message, self.delay)


class ResultTimeout(MachineryError, TimeoutError):
    """Timeout reached"""
