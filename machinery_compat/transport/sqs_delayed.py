"""Tasks that are due later than SQS can delay them.

They wait in ``<default queue>-delayed``, which Go never reads (a Go worker would run them at once), and
go back into it every 15 minutes until the rest of their delay is short enough.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from machinery_compat import errors
from machinery_compat.transport import payloads, sqs_client
from machinery_compat.transport.sqs_client import Unavailable
from machinery_compat.transport.sqs_custody import BATCH
from machinery_compat.transport.sqs_receiver import Received, receive

if TYPE_CHECKING:
    from machinery_compat.transport.sqs import Channel

__all__ = ["Mover"]

logger = logging.getLogger("machinery_compat.transport")

#: Seconds for which nobody else sees a delayed task that is being moved.
MOVE_TIME = 60
#: Seconds until a queue that is not there is looked for again, and one that could not be read.
MISSING_PAUSE, ERROR_PAUSE = 60.0, 5.0


class Mover(threading.Thread):
    """Moves delayed tasks to their queues, or delays them anew.

    Each is sent before it is deleted: a crash between the two runs it twice, never never.

    Args:
        channel: the channel of a worker.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__(name="machinery-sqs-delayed", daemon=True)
        self.stopped = threading.Event()
        self._channel = channel
        self.queue = sqs_client.delayed_queue(channel.border.default_queue)

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                if self._channel.addresses.exists(self.queue):
                    self._round()
                else:
                    self.stopped.wait(MISSING_PAUSE)
            except (Unavailable, errors.MachineryError) as exc:
                logger.warning("delayed tasks in %s wait: %s", self.queue, exc)
                self.stopped.wait(ERROR_PAUSE)
            except Exception:
                logger.exception("delayed tasks in %s are looked at again in a moment", self.queue)
                self.stopped.wait(ERROR_PAUSE)

    def _round(self) -> None:
        channel = self._channel
        while not self.stopped.is_set():
            url = channel.addresses.url(self.queue)
            for received in receive(channel.client, self.queue, url, BATCH, channel.wait, MOVE_TIME):
                if self.stopped.is_set():
                    channel.client.change_message_visibility(
                        QueueUrl=url, ReceiptHandle=received.held.handle, VisibilityTimeout=0
                    )
                else:
                    self._move(received)

    def _move(self, received: Received) -> None:
        channel = self._channel
        try:
            signature = payloads.decode(received.body)
        except errors.DecodeError as exc:
            received.queue = channel.border.default_queue
            if channel.bury(received, payloads.unreadable_delayed(exc)):
                self._settle(received)
            return
        channel.send_delayed(signature, received.body)
        self._settle(received)

    def _settle(self, received: Received) -> None:
        self._channel.client.delete_message(QueueUrl=received.held.url, ReceiptHandle=received.held.handle)
