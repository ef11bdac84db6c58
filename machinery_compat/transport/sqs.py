"""Machinery's SQS broker as a Kombu transport.

A task is the body of an SQS message, its Signature's JSON as Go writes it, in the queue with the URL
``<broker>/<RoutingKey>``. Threads receive, and keep hidden what is being run, so a task may take
longer than the queue's visibility timeout; a message is deleted when it is acknowledged. Nothing
is created but the two queues that Go does not have: ``<queue>-dead`` for messages that nobody can
run, and ``<default queue>-delayed`` for tasks that are due later than SQS can delay.

What Celery sends for itself (remote control, events) cannot be carried: SQS has no fanout. It stays in the process.

Transport options:

``region``              the AWS region, where it is not the one in the host of the URL or in the environment
``wait_time_seconds``   how long one receive waits, 1 to 20 (``sqs.receive_wait_time_seconds``, else 5)
``visibility_timeout``  seconds that others do not see what a worker has (``sqs.receive_visibility_timeout``,
                        else the queue's own); it is extended while the worker lives
``max_message_size``    the largest message in bytes (262144)
"""

from __future__ import annotations

import time
from typing import Any

import botocore.exceptions
from kombu.transport import virtual

from machinery_compat.transport import sqs_client
from machinery_compat.transport.sqs_bell import Bell
from machinery_compat.transport.sqs_channel import Channel
from machinery_compat.transport.sqs_client import Unavailable

__all__ = ["Channel", "Transport"]


class Transport(virtual.Transport):  # type: ignore[misc]
    """Kombu transport for Machinery's SQS URLs."""

    Channel = Channel

    #: The URL is Machinery's and is read as Machinery reads it, not by Kombu.
    can_parse_url = True
    driver_type = "sqs"
    driver_name = "boto3"
    polling_interval = None
    default_port = None
    # Without fanout Celery leaves remote control out.
    implements = virtual.Transport.implements.extend(asynchronous=True, exchange_type=frozenset(["direct", "topic"]))
    connection_errors = (
        *virtual.Transport.connection_errors,
        Unavailable,
        botocore.exceptions.ConnectionError,
        botocore.exceptions.HTTPClientError,
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.base_url = url_of(client)
        self.bell = Bell()

    def driver_version(self) -> str:
        import boto3

        return str(boto3.__version__)

    def establish_connection(self) -> Any:
        connection = super().establish_connection()
        channel = self._avail_channels[-1]
        try:
            channel.addresses.reach(channel.border.default_queue)
        except Unavailable:
            self.close_connection(connection)
            raise
        return connection

    def close_connection(self, connection: Any) -> None:
        super().close_connection(connection)
        self.bell.remove()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self.bell.hang(loop, self._on_tick, self._on_bell)

    def _on_tick(self) -> None:
        for channel in list(self.channels):
            channel.ask()

    def _on_bell(self) -> None:
        self.bell.silence()
        for channel in list(self.channels):
            channel.deliver()

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._on_tick()
            self.bell.silence()
            delivered = [channel.deliver() for channel in list(self.channels)]
            if any(delivered):
                return
            try:
                self.cycle.get(self._deliver, timeout=timeout)
            except virtual.base.Empty:
                left = 1.0 if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError from None
                self.bell.wait(min(left, 1.0))
            else:
                return

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        return sqs_client.base_url(uri)


def url_of(client: Any) -> str:
    """The URL of a Kombu connection, also when Kombu has taken it apart to go on to the next of several."""
    host = str(client.hostname or "")
    if "://" in host:
        return sqs_client.base_url(host)
    scheme = "http" if str(client.transport_cls).endswith("-http") else "https"
    port = f":{client.port}" if client.port else ""
    return sqs_client.base_url(f"{scheme}://{host}{port}/{str(client.virtual_host or '').strip('/')}")
