"""Makes what Machinery expects to find: queue and tables of an AWS emulator, topic and subscription of Pub/Sub's.

Reads Machinery's variables, and AWS_ENDPOINT_URL or PUBSUB_EMULATOR_HOST; for ../../docker-compose.yml.
"""

from __future__ import annotations

import json
import os
from http import HTTPStatus
from http.client import HTTPConnection

from machinery_compat import Config
from machinery_compat.urls import parse_gcppubsub_url


def aws(config: Config) -> None:
    import boto3

    boto3.client("sqs").create_queue(QueueName=config.default_queue)
    tables = config.dynamodb
    assert tables is not None
    client = boto3.client("dynamodb")
    for table, key in ((tables.task_states_table, "TaskUUID"), (tables.group_metas_table, "GroupUUID")):
        try:
            client.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except client.exceptions.ResourceInUseException:
            continue  # it is there
        client.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "TTL"})


def pubsub(config: Config) -> None:
    project, subscription = parse_gcppubsub_url(config.broker)
    topic = f"projects/{project}/topics/{config.default_queue}"
    put(topic, {})
    put(f"projects/{project}/subscriptions/{subscription}", {"topic": topic})


def put(name: str, content: dict[str, str]) -> None:
    connection = HTTPConnection(os.environ["PUBSUB_EMULATOR_HOST"])
    connection.request("PUT", f"/v1/{name}", json.dumps(content), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status not in (HTTPStatus.OK, HTTPStatus.CONFLICT):
        raise SystemExit(f"{name}: {answer.status} {answer.read().decode()}")
    connection.close()


if __name__ == "__main__":
    config = Config.from_env()
    if config.broker.startswith("gcppubsub://"):
        pubsub(config)
    else:
        aws(config)
