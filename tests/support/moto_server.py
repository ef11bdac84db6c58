"""A program: moto's server with its arguments, but as quick as Amazon's.

moto looks for a message that becomes visible once a second, and lets a receive that waits never see that a
FIFO group is free again. Amazon hands out both at once.
"""

from __future__ import annotations

import sys

from moto.server import main
from moto.sqs.models import Queue, SQSBackend

#: Seconds between two looks of a receive that waits.
LOOK = 0.05
#: How long a receive from a FIFO queue waits at most, in seconds.
FIFO_WAIT = 0.1

_wait, _receive = Queue.wait_for_messages, SQSBackend.receive_message


def _wait_for_messages(queue: Queue, timeout: float) -> None:
    _wait(queue, min(timeout, LOOK))


def _receive_message(backend: SQSBackend, queue_name: str, count: int, wait: float, *rest: object) -> object:
    fifo = backend.get_queue(queue_name).fifo_queue
    return _receive(backend, queue_name, count, min(wait, FIFO_WAIT) if fifo else wait, *rest)


if __name__ == "__main__":
    # A thread that has begun with a request goes on until it waits for input: moto looks at the condition of
    # a write and then writes, and would let another thread in between.
    sys.setswitchinterval(60)
    Queue.wait_for_messages = _wait_for_messages
    SQSBackend.receive_message = _receive_message
    main(sys.argv[1:])
