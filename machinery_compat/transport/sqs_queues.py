"""The queues of an SQS broker: their URLs, and what is known of them."""

from __future__ import annotations

from typing import Any

import botocore.exceptions

from machinery_compat import errors
from machinery_compat.transport import sqs_client
from machinery_compat.transport.sqs_client import asking

__all__ = ["Queues"]

#: The visibility timeout of a new queue, for one that nobody may ask, in seconds.
USUAL_VISIBILITY = 30
#: How long the queues that are made here keep a message, in seconds; the longest time of SQS, 14 days.
RETENTION = 1_209_600


class Queues:
    """What a channel knows of its broker's queues.

    Args:
        client: the boto3 client.
        base: the URL before the queue's name.
        visibility: for how many seconds messages are hidden; None is each queue's own time.
    """

    def __init__(self, client: Any, base: str, visibility: int | None) -> None:
        self._client = client
        self._base = base
        self.visibility = visibility
        self._hidden: dict[str, int] = {}
        self._own: set[str] = set()

    def url(self, queue: str) -> str:
        return f"{self._base}/{queue}"

    def hidden(self, queue: str) -> int:
        """For how many seconds a received message of a queue is hidden.

        Raises:
            Unavailable, BrokerError: the queue cannot be asked, or is not there.
        """
        if queue not in self._hidden:
            own = self._attribute(queue, "VisibilityTimeout", USUAL_VISIBILITY)
            self._hidden[queue] = own if self.visibility is None else self.visibility
        return self._hidden[queue]

    def size(self, queue: str) -> int:
        """About how many messages are waiting; 0 where nobody may ask."""
        return self._attribute(queue, "ApproximateNumberOfMessages", 0)

    def reach(self, queue: str) -> None:
        """Asks for something, of which only that there is an answer counts.

        Raises:
            Unavailable: there is none.
            ConfigError: there are no credentials.
        """
        try:
            self.size(queue)
        except errors.BrokerError:
            # A queue that is not there is told when it is used.
            return

    def _attribute(self, queue: str, name: str, unknown: int) -> int:
        url = self.url(queue)
        with asking(url):
            try:
                answer = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
            except botocore.exceptions.ClientError as exc:
                if "AccessDenied" not in sqs_client.code_of(exc):
                    raise
                return unknown
        return int(answer.get("Attributes", {}).get(name, unknown))

    def own(self, queue: str) -> str:
        """The name of a queue of this package, which is made if it is not there.

        Raises:
            BrokerError: it is not there and cannot be made.
        """
        if queue in self._own:
            return queue
        try:
            self._attribute(queue, "ApproximateNumberOfMessages", 0)
        except errors.BrokerError:
            self._make(queue)
        self._own.add(queue)
        return queue

    def exists(self, queue: str) -> bool:
        """Whether a queue is there."""
        try:
            self._attribute(queue, "ApproximateNumberOfMessages", 0)
        except errors.BrokerError:
            return False
        return True

    def _make(self, queue: str) -> None:
        with asking(self.url(queue)):
            made = self._client.create_queue(QueueName=queue, Attributes={"MessageRetentionPeriod": str(RETENTION)})
        if made["QueueUrl"].split("/")[-2:] != self.url(queue).split("/")[-2:]:
            raise errors.BrokerError(
                f"these credentials make queues at {made['QueueUrl']}, and {self.url(queue)} is needed: create it"
            )
