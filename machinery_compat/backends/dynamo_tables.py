"""The two tables of the DynamoDB backend, as Machinery expects them."""

from __future__ import annotations

from typing import Any

from botocore import exceptions as boto_errors

from machinery_compat import errors

__all__ = ["create_table"]

#: The attribute with the time at which DynamoDB may delete an item.
TTL = "TTL"
#: Seconds between two looks at a table that is being made, and how many there are.
PAUSE, LOOKS = 1, 120


def create_table(client: Any, name: str, key: str) -> bool:
    """Creates a table, paid for by the request, in which expired items are deleted; leaves one that is there.

    Args:
        client: the client.
        name: the table.
        key: its partition key, a text.

    Returns:
        whether there was none.

    Raises:
        ConfigError: there is one with another key, or in which another attribute says what has expired.
        BackendError: DynamoDB refuses.
    """
    try:
        made = _create(client, name, key)
        client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": PAUSE, "MaxAttempts": LOOKS})
        found = client.describe_table(TableName=name)["Table"]
        types = {one["AttributeName"]: one["AttributeType"] for one in found["AttributeDefinitions"]}
        schema = [(one["AttributeName"], one["KeyType"], types[one["AttributeName"]]) for one in found["KeySchema"]]
        if schema != [(key, "HASH", "S")]:
            raise errors.ConfigError(
                f"the table {name!r} has the key {schema}; Machinery needs {key!r} of the type S as its only one"
            )
        _expire(client, name)
    except boto_errors.BotoCoreError as exc:
        raise errors.BackendError(f"DynamoDB cannot be asked for the table {name!r}: {exc}") from exc
    except boto_errors.ClientError as exc:
        raise errors.BackendError(f"the table {name!r} cannot be made ready: {exc}") from exc
    return made


def _create(client: Any, name: str, key: str) -> bool:
    try:
        client.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    except client.exceptions.ResourceInUseException:
        return False
    return True


def _expire(client: Any, name: str) -> None:
    found = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    if found.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
        if found.get("AttributeName") != TTL:
            raise errors.ConfigError(
                f"in the table {name!r} the attribute {found.get('AttributeName')!r} says what has expired; "
                f"in Machinery's it is {TTL!r}"
            )
        return
    client.update_time_to_live(TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL})
