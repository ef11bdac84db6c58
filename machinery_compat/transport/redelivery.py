"""How often a message has been put back because what ran it had died.

The message itself says it: each time it gets one more blank behind its JSON, which JSON skips, in
Go too. So the count needs no keys of its own, it is there on every broker and in every language's
hands, and a message that is sent anew, such as a retry, begins without it.

A message that its own task has handed back (Celery's ``Reject``) gets one tab before the blanks, once:
the task asks whether it was delivered before, and is not counted.

RabbitMQ puts a changed message behind all others. So there the first time is written down by the
state of the run alone, see ``Channel._next_run``, and only who comes back once more goes there.
"""

from __future__ import annotations

from enum import Enum, auto

from machinery_compat import celery_header
from machinery_compat.wire import FAILURE, STARTED, SUCCESS, Signature

__all__ = [
    "REDELIVERY_LIMIT",
    "Fate",
    "deliveries",
    "fate_of",
    "given_up_reason",
    "handed_back",
    "has_followers",
    "marks",
    "redelivered",
    "was_run",
]

#: How often a message is put back at most; the setting ``machinery_redelivery_limit``.
REDELIVERY_LIMIT = 5
#: What is put behind a message each time.
MARK = b" "
#: What stands before that once its own task has handed the message back.
HANDED_BACK = b"\t"


def deliveries(body: bytes) -> int:
    """How often a message was put back because what ran it had died; 0 when it comes for the first time."""
    return len(body) - len(body.rstrip(MARK))


def redelivered(body: bytes, times: int = 1) -> bytes:
    """A message that is put back because what ran it has died: counted once more, or ``times``."""
    return body + MARK * times


def handed_back(body: bytes) -> bytes:
    """A message that its own task puts back, which counts for nothing."""
    told = body.rstrip(MARK)
    return body if told.endswith(HANDED_BACK) else told + HANDED_BACK + body[len(told) :]


def was_run(body: bytes) -> bool:
    """Whether the message says that a worker has run its task before; ``delivery_info["redelivered"]``."""
    return marks(body) != b""


def marks(body: bytes) -> bytes:
    """What of a message is no part of its JSON but says what has become of it before."""
    return body[len(body.rstrip(MARK + HANDED_BACK)) :]


def given_up_reason(count: int, last: str) -> str:
    """What the dead list and the task's state say of a message that was put back ``count`` times.

    Args:
        count: its :func:`deliveries`.
        last: what became of the process that ran it last.
    """
    return f"given up after {count + 1} runs, each of which ended with its worker process; the last: {last}"


class Fate(Enum):
    """What has become of a message's task, when the message comes again."""

    #: Its end is stored and nothing follows: only the acknowledgement was lost.
    ENDED = auto()
    #: What ran it was lost, or could not do all that follows its end.
    LOST = auto()
    #: Whoever had the message has not begun to run it, as far as can be known.
    WAITING = auto()


def fate_of(signature: Signature, body: bytes, state: str, run: int) -> Fate:
    """What has become of a message's task, where the broker does not know.

    A message also comes again because somebody who did not know its task has handed it back. So it
    is lost only if the store knows of the very run that this delivery would be.

    Args:
        signature: the task.
        body: the message, with what marks its redeliveries.
        state: the task's state in the result store; empty where nobody keeps it.
        run: which run of the task has written that, 0 for the first.
    """
    if state == SUCCESS and not has_followers(signature):
        return Fate.ENDED
    if state in (STARTED, SUCCESS, FAILURE) and run >= deliveries(body):
        return Fate.LOST
    return Fate.WAITING


def has_followers(signature: Signature) -> bool:
    """Whether something follows a task's success, which whoever ran it may not have sent."""
    return bool(signature.on_success or signature.chord_callback or celery_header.HEADER in (signature.headers or ()))
