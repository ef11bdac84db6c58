"""Requests to DynamoDB: the client, batches of items, and what errors mean here."""

from __future__ import annotations

import logging
import os
import random
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import boto3.session
from botocore import exceptions as boto_errors
from botocore.config import Config as BotoConfig

from machinery_compat import errors, urls
from machinery_compat.backends.limits import TooLarge

__all__ = ["CONNECTION_ERRORS", "ConditionFailed", "Database", "Item", "Unavailable", "connect"]

logger = logging.getLogger("machinery_compat.backends")

#: Seconds to connect and to wait for an answer, how often a request is made, and connections at most.
CONNECT_TIMEOUT, READ_TIMEOUT, ATTEMPTS, CONNECTIONS = 5, 15, 4, 50
#: How many items DynamoDB reads and writes in one request.
READ_AT_ONCE, WRITTEN_AT_ONCE = 100, 25
#: Seconds before a batch of which nothing was done is sent again; after the last it is an error.
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 1.6)
#: What DynamoDB answers when it is asked too much, beside what has a status from 500 on; the client has tried again.
BUSY = {
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
#: What it answers to credentials that it does not take: until somebody has seen to them a worker keeps its results,
#: as with a Redis whose ACL forbids something.
DENIED = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
}
#: What ``result_backend_transport_options`` may hold: arguments of boto3's session, and of its client.
OF_SESSION = {"profile_name", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
OF_CLIENT = {"region_name", "endpoint_url", "use_ssl", "verify", "config"}
_REGION = re.compile(r"https://dynamodb(?:-fips)?\.([a-z]+(?:-[a-z]+)+-[0-9]+)\.")

Item = dict[str, dict[str, Any]]


class Unavailable(errors.BackendError):
    """DynamoDB does not serve a request now: it is throttled or not well, or somebody has yet to create a table."""


#: What may be over when it is tried again.
CONNECTION_ERRORS: tuple[type[BaseException], ...] = (
    boto_errors.HTTPClientError,
    boto_errors.ConnectionError,
    Unavailable,
    OSError,
)


class ConditionFailed(Exception):
    """The item that is there does not meet the condition of a write.

    Attributes:
        item: that item, where it was asked for; None if there is none.
    """

    def __init__(self, item: Item | None) -> None:
        super().__init__("the condition of a write is not met")
        self.item = item


def connect(url: str, options: Mapping[str, Any]) -> Any:
    """A client of boto3.

    Args:
        url: the URL of the result backend; its region counts where nothing else names one.
        options: arguments of boto3's session and its client.

    Raises:
        ConfigError: no region is known, or an option cannot be used.
    """
    unknown = sorted(set(options) - OF_SESSION - OF_CLIENT)
    if unknown:
        known = ", ".join(sorted(OF_SESSION | OF_CLIENT))
        raise errors.ConfigError(f"result_backend_transport_options: DynamoDB has no {unknown[0]!r}, only {known}")
    config = BotoConfig(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=CONNECTIONS,
    )
    given = {name: value for name, value in options.items() if name in OF_CLIENT}
    try:
        config = config.merge(given.pop("config", BotoConfig()))
        # A session of its own: boto3's default one must not be used by several threads.
        session = boto3.session.Session(**{name: options[name] for name in OF_SESSION & set(options)})
        region = given.pop("region_name", None) or _region(url, session.region_name)
        return session.client("dynamodb", region_name=region, config=config, **given)
    except boto_errors.NoRegionError:
        raise errors.ConfigError(
            f"{urls.redact(url)}: no AWS region: set AWS_REGION, or name it in the URL, "
            "as in https://dynamodb.us-east-2.amazonaws.com"
        ) from None
    except (boto_errors.BotoCoreError, ValueError, TypeError, AttributeError) as exc:
        raise errors.ConfigError(f"{urls.redact(url)}: {exc}") from None


def _region(url: str, of_profile: str | None) -> str | None:
    """The region from where Go takes it, the environment of AWS; the one in the URL is the last resort."""
    match = _REGION.match(url)
    named = match[1] if match else None
    # Go's SDK looks at the first, boto3 at AWS_DEFAULT_REGION only.
    found = os.environ.get("AWS_REGION") or of_profile
    if found and named and found != named:
        logger.warning(
            "the result backend's URL names the region %s and the AWS environment %s: the latter counts, as in Go",
            named,
            found,
        )
    return found or named


class Database:
    """Requests to tables.

    Args:
        make: gives a client; called once in each process.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        #: The process and its client.
        self._client: tuple[int, Any] = (0, None)

    @property
    def client(self) -> Any:
        """The client, in each process its own; it connects at its first use.

        Raises:
            ConfigError: there can be none.
        """
        # Without a lock, which a fork could copy while it is held; a client made twice does no harm.
        process, client = self._client
        if process != os.getpid():
            client = self._make()
            self._client = (os.getpid(), client)
        return client

    def call(self, operation: str, table: str, **arguments: Any) -> dict[str, Any]:
        """Makes one request to a table.

        Raises:
            ConditionFailed: the item that is there does not meet the condition.
            Unavailable: later it may be served.
            TooLarge: an item would be too large.
            BackendError: it refuses.
        """
        if "RequestItems" not in arguments:
            arguments["TableName"] = table
        try:
            answer: dict[str, Any] = getattr(self.client, operation)(**arguments)
        except boto_errors.ClientError as exc:
            raise _meaning(exc, table) from exc
        except (boto_errors.CredentialRetrievalError, boto_errors.MetadataRetrievalError) as exc:
            raise Unavailable(f"there are no credentials for DynamoDB now: {exc}") from exc
        except (boto_errors.NoCredentialsError, boto_errors.ParamValidationError) as exc:
            raise errors.BackendError(f"a request to DynamoDB for the table {table!r} cannot be made: {exc}") from exc
        return answer

    def get(self, table: str, key: str, uuid: str) -> Item | None:
        """The item under a key, or None."""
        check_key(uuid)
        found: Item | None = self.call("get_item", table, Key={key: {"S": uuid}}, ConsistentRead=True).get("Item")
        return found

    def get_many(self, table: str, key: str, uuids: Sequence[str]) -> dict[str, Item]:
        """The items that there are under keys."""
        if len(uuids) == 1:
            item = self.get(table, key, uuids[0])
            return {} if item is None else {uuids[0]: item}
        for uuid in uuids:
            check_key(uuid)
        found: dict[str, Item] = {}
        # A key that comes twice is refused.
        keys = [{key: {"S": uuid}} for uuid in dict.fromkeys(uuids)]
        for first in range(0, len(keys), READ_AT_ONCE):
            asked = {"Keys": keys[first : first + READ_AT_ONCE], "ConsistentRead": True}
            for answer in self._until_done("batch_get_item", table, asked):
                for item in answer.get("Responses", {}).get(table, ()):
                    found[item[key]["S"]] = item
        return found

    def put_many(self, table: str, items: Sequence[Item]) -> None:
        """Writes items, of which no two have the same key, over whatever is there."""
        writes = [{"PutRequest": {"Item": item}} for item in items]
        for first in range(0, len(writes), WRITTEN_AT_ONCE):
            for _ in self._until_done("batch_write_item", table, writes[first : first + WRITTEN_AT_ONCE]):
                pass

    def _until_done(self, operation: str, table: str, asked: Any) -> Iterator[dict[str, Any]]:
        """Sends a batch, and again what DynamoDB has left of it, until all is done."""
        pauses = iter(PAUSES)
        while True:
            answer = self.call(operation, table, RequestItems={table: asked})
            yield answer
            left = (answer.get("UnprocessedKeys") or answer.get("UnprocessedItems") or {}).get(table)
            if not left:
                return
            if _count(left) < _count(asked):
                # It goes on: an answer was full, or only a part was throttled.
                pauses = iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise Unavailable(f"DynamoDB leaves {_count(left)} requests for the table {table!r} undone")
            time.sleep(pause * random.uniform(0.5, 1))
            asked = left

    def update(
        self, table: str, key: Item, change: str, names: Sequence[str], values: Item, condition: str = ""
    ) -> Any:
        """Changes an item in one step; without a condition one that is not there is made.

        Args:
            table: the table.
            key: the item's key.
            change: an update expression, in which ``#Name`` is the attribute ``Name``.
            names: the attributes in both expressions.
            values: what they say for ``:name``.
            condition: a condition expression; ``""`` for none.

        Raises:
            ConditionFailed: the condition is not met.
        """
        given: dict[str, Any] = {}
        if condition:
            given = {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        return self.call(
            "update_item",
            table,
            Key=key,
            UpdateExpression=change,
            ExpressionAttributeNames={f"#{name}": name for name in names},
            ExpressionAttributeValues=values,
            **given,
        )


def close_with(owner: Any, client: Any) -> None:
    """Closes a client when its owner goes."""
    # Not at exit: a forked process has the connections of its parent.
    weakref.finalize(owner, client.close).atexit = False


def check_key(uuid: str) -> None:
    """Refuses a UUID that DynamoDB takes for no key, in words that name it.

    Raises:
        BackendError: it is one.
    """
    try:
        size = len(uuid.encode())
    except UnicodeEncodeError as exc:
        raise errors.BackendError(f"the UUID {uuid!r} cannot be a key in DynamoDB: {exc}") from None
    if not 1 <= size <= 2048:
        raise errors.BackendError(f"the UUID {uuid[:60]!r} has {size} bytes; a key in DynamoDB has 1 to 2048")


def _count(asked: Any) -> int:
    return len(asked["Keys"] if isinstance(asked, dict) else asked)


def _meaning(exc: boto_errors.ClientError, table: str) -> Exception:
    """What an error of DynamoDB's means to the caller."""
    code, text = exc.response["Error"].get("Code", ""), exc.response["Error"].get("Message", "")
    if code == "ConditionalCheckFailedException":
        return ConditionFailed(exc.response.get("Item") or None)
    if code in BUSY or exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return Unavailable(f"DynamoDB does not serve the table {table!r} now ({code}: {text})")
    if code in DENIED:
        return Unavailable(f"DynamoDB does not let this process use the table {table!r} ({code}: {text})")
    if code == "ResourceNotFoundException":
        # Until it is there a worker keeps the results that it has.
        return Unavailable(
            f"DynamoDB has no table {table!r} in this account and region; "
            "create it with: celery -A APP machinery tables"
        )
    if code == "ValidationException" and "size" in text.lower() and "exceeded" in text.lower():
        return TooLarge(f"a document is larger than DynamoDB takes ({text}); return a reference to the data instead")
    return errors.BackendError(f"DynamoDB refuses a request for the table {table!r} ({code}: {text})")
