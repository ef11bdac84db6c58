"""Amazon SQS: where a queue is, the client that talks to it, and what its refusals mean."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import boto3
import botocore.config
import botocore.exceptions

from machinery_compat import errors
from machinery_compat.transport.base import FAILOVER_PREFIX

__all__ = ["Unavailable", "asking", "base_url", "client_for", "dead_queue", "delayed_queue", "is_fifo", "is_missing"]

#: The longest time that SQS lets a receive wait, in seconds.
LONGEST_WAIT = 20
#: How long a connection and an answer may take, in seconds; a receive may wait in between.
CONNECT_TIMEOUT, READ_TIMEOUT = 5, LONGEST_WAIT + 10
#: Where the URL, the environment and the user's AWS files name no region.
DEFAULT_REGION = "us-east-1"
FIFO = ".fifo"

_REGION = re.compile(r"(?:^|\.)sqs(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d+)\.|^([a-z]{2}(?:-[a-z]+)+-\d+)\.queue\.")
_lock = threading.Lock()
_clients: dict[tuple[str, str], Any] = {}
#: The process that has used a user's client.
_users: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
#: The process that has made it, where none has used it here: the first, before any was forked.
_home = os.getpid()


def _after_fork() -> None:
    # Connections are never shared by two processes; the parent may have held the lock.
    global _lock
    _lock = threading.Lock()
    _clients.clear()


os.register_at_fork(after_in_child=_after_fork)


class Unavailable(ConnectionError):
    """SQS does not answer, or not now; what was asked can be asked again."""


def base_url(broker: str) -> str:
    """The part before the queue's name in the URL of each queue, without a slash at its end; no query, no user."""
    parts = urlsplit(broker.removeprefix(FAILOVER_PREFIX))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def region_of(url: str, session: Any = None) -> str:
    """The AWS region of a broker's URL: the one in its host, else that of the environment or the user's files.

    AWS_REGION is what Go's library reads, and boto3 does not.
    """
    found = _REGION.search((urlsplit(url).hostname or "").lower())
    if found:
        return found[1] or found[2]
    return str(os.environ.get("AWS_REGION") or (session or boto3.Session()).region_name or DEFAULT_REGION)


def client_for(url: str, given: Any = None, region: str = "") -> Any:
    """The boto3 client for a broker's URL; each process has one.

    Args:
        url: the broker's URL; its scheme and host are the endpoint.
        given: the user's own client, to be used as it is.
        region: the region, where the user names one.
    """
    if given is not None:
        return _own(given)
    parts = urlsplit(url)
    key = (f"{parts.scheme}://{parts.netloc}", region)
    with _lock:
        client = _clients.get(key)
        if client is None:
            session = boto3.Session()
            _clients[key] = client = session.client(
                "sqs",
                region_name=region or region_of(url, session),
                endpoint_url=key[0],
                config=botocore.config.Config(
                    connect_timeout=CONNECT_TIMEOUT,
                    read_timeout=READ_TIMEOUT,
                    max_pool_connections=50,
                    retries={"mode": "standard", "total_max_attempts": 3},
                ),
            )
    return client


def _own(client: Any) -> Any:
    if _users.get(client, _home) != os.getpid():
        # Its open connections are the parent's; it makes new ones.
        close = getattr(client, "close", None)
        if close is not None:
            close()
    _users[client] = os.getpid()
    return client


def is_fifo(queue: str) -> bool:
    return queue.endswith(FIFO)


def dead_queue(queue: str) -> str:
    """The queue that keeps the dead messages of another one; never a FIFO queue, which could not be listed."""
    return f"{queue.removesuffix(FIFO)}-fifo-dead" if is_fifo(queue) else f"{queue}-dead"


def delayed_queue(queue: str) -> str:
    """The queue in which tasks wait that are due later than SQS can delay; never a FIFO queue, which has no delays."""
    return f"{queue.removesuffix(FIFO)}-fifo-delayed" if is_fifo(queue) else f"{queue}-delayed"


def code_of(exc: botocore.exceptions.ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))


def is_missing(exc: botocore.exceptions.ClientError) -> bool:
    """Whether a refusal says that the queue is not there."""
    code = code_of(exc)
    return "NonExistentQueue" in code or "QueueDoesNotExist" in code


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Says in this package's words what goes wrong while a queue is asked for something.

    Args:
        url: the URL of the queue.

    Raises:
        Unavailable: it may be right again soon.
        BrokerError: SQS refuses it; there is no such queue, or it must not be used.
        ConfigError: there are no credentials, or the request cannot be made.
    """
    try:
        yield
    except botocore.exceptions.ClientError as exc:
        raise _refusal(exc, url) from exc
    except (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError) as exc:
        raise Unavailable(f"SQS cannot be reached: {exc}") from exc
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as exc:
        raise errors.ConfigError(
            f"SQS needs AWS credentials ({exc}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, "
            "as boto3 finds them, or give sqs.client"
        ) from exc
    except botocore.exceptions.BotoCoreError as exc:
        raise errors.ConfigError(f"SQS cannot be asked: {exc}") from exc


def _refusal(exc: botocore.exceptions.ClientError, url: str) -> Exception:
    broker, _, name = url.rpartition("/")
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = code_of(exc)
    if is_missing(exc):
        fifo = " --attributes FifoQueue=true" if is_fifo(name) else ""
        return errors.BrokerError(
            f"there is no SQS queue {name} at {broker}: nobody creates it by itself; correct the name, or create it "
            f"(aws sqs create-queue --queue-name {name}{fifo})"
        )
    if status >= 500 or "Throttl" in code or code == "RequestThrottled":
        return Unavailable(f"SQS does not take this now ({code}): {exc}")
    if "AccessDenied" in code:
        return errors.BrokerError(f"SQS queue {name}: these credentials may not do this ({exc})")
    return errors.BrokerError(f"SQS queue {name}: {exc}")
