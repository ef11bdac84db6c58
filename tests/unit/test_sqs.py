"""What SQS is asked for, without a server: regions, names, and ids of messages to FIFO queues."""

from __future__ import annotations

import pytest

from machinery_compat import Celery, Config, new_signature
from machinery_compat.transport import sqs_client
from machinery_compat.transport.sqs_message import LONGEST_ID, body_text, deduplication_id
from machinery_compat.wire import Signature


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.us-east-2.amazonaws.com/1", "us-east-2"),
        ("https://sqs.us-gov-west-1.amazonaws.com/1", "us-gov-west-1"),
        ("https://sqs-fips.us-west-1.amazonaws.com/1", "us-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1", "cn-north-1"),
        ("https://vpce-1a2b-3c4d.sqs.eu-central-1.vpce.amazonaws.com/1", "eu-central-1"),
        ("https://eu-west-1.queue.amazonaws.com/1", "eu-west-1"),
        ("http://127.0.0.1:4566/000000000000", "ap-south-1"),
        ("https://sqs.example.com/1", "ap-south-1"),
    ],
)
def test_the_region_is_that_of_the_url_else_the_environments(
    url: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    assert sqs_client.region_of(url) == region


def test_the_variable_that_go_reads_goes_before_that_of_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
    assert sqs_client.region_of("http://127.0.0.1:4566/000000000000") == "sa-east-1"


def test_celerys_report_shows_the_url() -> None:
    url = "https://sqs.us-east-2.amazonaws.com/123456789012"
    report = Celery(config=Config(broker=url, result_backend="null")).bugreport()
    assert url in report
    assert "boto3:" in report


class Client:
    """A user's own client."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("used_before", [True, False])
def test_a_client_of_the_user_keeps_no_connections_of_the_process_that_was_forked(
    used_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    if used_before:
        assert sqs_client.client_for("https://sqs.example.com/1", client) is client
    assert client.closed == 0

    monkeypatch.setattr("os.getpid", lambda: -1)

    for _ in range(2):
        assert sqs_client.client_for("https://sqs.example.com/1", client) is client
        assert client.closed == 1


@pytest.mark.parametrize(
    ("queue", "dead", "delayed"),
    [
        ("machinery_tasks", "machinery_tasks-dead", "machinery_tasks-delayed"),
        ("orders.fifo", "orders-fifo-dead", "orders-fifo-delayed"),
    ],
)
def test_the_queues_beside_a_queue_have_names_that_sqs_allows(queue: str, dead: str, delayed: str) -> None:
    assert sqs_client.dead_queue(queue) == dead
    assert sqs_client.delayed_queue(queue) == delayed


def test_a_retry_has_an_id_of_its_own_and_the_same_one_when_it_is_sent_twice() -> None:
    signature = new_signature("py_add", 1)
    assert deduplication_id(signature) == signature.uuid
    ids = {deduplication_id(signature)}
    for handle in ("first run", "second run"):
        # A worker fills in the handle of what it has received; a retry carries it.
        again = Signature.decode(signature.encode())
        again.sqs_receipt_handle = handle
        assert deduplication_id(again) == deduplication_id(Signature.decode(again.encode()))
        ids.add(deduplication_id(again))
    assert len(ids) == 3


def test_an_id_is_never_too_long() -> None:
    signature = new_signature("py_add", 1)
    signature.uuid = "u" * 500
    assert 0 < len(deduplication_id(signature)) <= LONGEST_ID


def test_what_sqs_refuses_in_a_text_is_spelled_otherwise() -> None:
    signature = new_signature("py_echo", "\ufffe and \uffff and 😀")
    text = body_text(signature.encode())
    assert "\ufffe" not in text
    assert "\uffff" not in text
    args = Signature.decode(text.encode()).args
    assert args is not None
    assert args[0].value == "\ufffe and \uffff and 😀"
