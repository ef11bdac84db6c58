"""How Signatures are sent to SQS."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from machinery_compat import errors
from machinery_compat.transport import base, sqs_client
from machinery_compat.transport.sqs_client import asking
from machinery_compat.transport.sqs_message import body_text, deduplication_id
from machinery_compat.wire import Signature

if TYPE_CHECKING:
    from machinery_compat.transport.sqs_queues import Queues
    from machinery_compat.transport.sqs_receiver import Received

__all__ = ["Publishing"]

#: The longest delay of SQS, in seconds.
LONGEST_DELAY = 900
NO_GROUP = "please specify BrokerMessageGroupId attribute for task Signature when submitting a task to FIFO queue"


class Publishing(base.TaskChannel):
    """Mixed into the SQS channel."""

    if TYPE_CHECKING:
        client: Any
        connection: Any
        addresses: Queues
        max_message_size: int

    def prepare_message(self, body: Any, *args: Any, **kwargs: Any) -> Any:
        """As every transport's; Kombu's option ``MessageGroupId`` is Machinery's BrokerMessageGroupId."""
        message = super().prepare_message(body, *args, **kwargs)
        # The sixth argument, where it is not named.
        properties = kwargs.get("properties") or (args[4] if len(args) > 4 else None)
        group = (properties or {}).get("MessageGroupId")
        if group and isinstance(message, Signature) and not message.broker_message_group_id:
            message.broker_message_group_id = str(group)
        return message

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **kwargs: Any) -> Any:
        if not isinstance(message, Signature):
            return super().basic_publish(message, exchange, routing_key, **kwargs)  # type: ignore[misc]
        default = self.border.default_queue
        queue = self.border.queue_of(exchange, routing_key)
        if not message.routing_key and queue != default:
            message.routing_key = queue
        self.border.publishing(message)
        # The default queue's name is not in the body, as in Go.
        body = self.encoded(message)
        message.routing_key = message.routing_key or default
        options = self._options_of(message, body)
        self.border.before_publish(message, self.connection.base_url)
        self._send(**options)
        return None

    def encoded(self, signature: Signature) -> bytes:
        body = super().encoded(signature)
        if len(body) > self.max_message_size:
            raise errors.EncodeError(
                f"task {signature.name}[{signature.uuid}] has {len(body)} bytes and SQS takes {self.max_message_size}; "
                "send a reference to the data (a chain carries all that follows it in each message)"
            )
        return body

    def _options_of(self, signature: Signature, body: bytes) -> dict[str, Any]:
        """How a Signature is sent.

        Raises:
            EncodeError: a FIFO queue needs its BrokerMessageGroupId.
        """
        queue = signature.routing_key
        options: dict[str, Any] = {"MessageBody": body_text(body)}
        if sqs_client.is_fifo(queue):
            if not signature.broker_message_group_id:
                raise errors.EncodeError(NO_GROUP)
            # A FIFO queue has no delays of single messages: the ETA is ignored, as in Go.
            options["MessageGroupId"] = signature.broker_message_group_id
            options["MessageDeduplicationId"] = deduplication_id(signature)
        else:
            delay = delay_of(signature)
            if delay > LONGEST_DELAY:
                queue, delay = self.addresses.own(sqs_client.delayed_queue(self.border.default_queue)), LONGEST_DELAY
            if delay:
                options["DelaySeconds"] = delay
        return {"QueueUrl": self.addresses.url(queue), **options}

    def _send(self, **options: Any) -> None:
        with asking(options["QueueUrl"]):
            self.client.send_message(**options)

    def send_delayed(self, signature: Signature, body: bytes) -> None:
        """Sends a task that has waited in the queue of delayed ones; with a long delay left it goes back there.

        Raises:
            Unavailable: SQS does not answer now.
            MachineryError: it refuses, or the task cannot go there.
        """
        signature.routing_key = signature.routing_key or self.border.default_queue
        self._send(**self._options_of(signature, body))

    def send_copy(self, received: Received, body: bytes) -> None:
        """Sends a message of a queue to it once more, with another body.

        Raises:
            Unavailable, BrokerError: SQS has not taken it.
        """
        options = {"QueueUrl": received.held.url, "MessageBody": body.decode("utf-8")}
        if sqs_client.is_fifo(received.queue):
            options.update(MessageGroupId=received.group, MessageDeduplicationId=uuid4().hex)
        self._send(**options)


def delay_of(signature: Signature) -> int:
    """How long a Signature has to wait, in whole seconds; 0 when it is due. Never too short, as Go's is."""
    if signature.eta_ns is None:
        return 0
    return max(math.ceil((signature.eta_ns - time.time_ns()) / 1e9), 0)
