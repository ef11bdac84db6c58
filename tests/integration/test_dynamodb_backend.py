"""What only DynamoDB has: Go's items and its half of a trigger, batches, tables, a client of the application's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError, CredentialRetrievalError
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from machinery_compat import (
    Celery,
    Config,
    GroupMeta,
    Server,
    Signature,
    TaskError,
    TaskState,
    errors,
    new_signature,
)
from machinery_compat.backends import dynamo_client, dynamodb
from machinery_compat.backends.base import Backend
from machinery_compat.backends.dynamo_client import Unavailable
from machinery_compat.backends.limits import TooLarge
from machinery_compat.cli import machinery
from machinery_compat.config import DynamoDBConfig
from machinery_compat.wire import TaskResult, now_text
from tests.conftest import Names
from tests.support.processes import free_port
from tests.support.services import MotoServer
from tests.support.stores import DYNAMODB, dynamodb_environment

pytestmark = pytest.mark.dynamodb


class Altered:
    """A client some of whose operations are others."""

    def __init__(self, client: Any, **operations: Callable[..., Any]) -> None:
        self._client = client
        self._operations = operations

    def __getattr__(self, name: str) -> Any:
        return self._operations.get(name) or getattr(self._client, name)


@pytest.fixture(scope="module", autouse=True)
def environment(moto_server: MotoServer) -> Iterator[None]:
    with dynamodb_environment(moto_server):
        server = Server(Config(broker="eager", result_backend=DYNAMODB))
        server.backend.create_tables()
        server.app.close()
        yield


@pytest.fixture(scope="module")
def client(moto_server: MotoServer) -> Iterator[Any]:
    client = moto_server.client("dynamodb")
    yield client
    client.close()


@pytest.fixture(scope="module")
def server(environment: None) -> Iterator[Server]:
    server = Server(Config(broker="eager", result_backend=DYNAMODB))
    yield server
    server.app.close()


@pytest.fixture
def backend(server: Server) -> Backend:
    found: Backend = server.backend
    return found


def backend_of(url: str = DYNAMODB, options: dict[str, Any] | None = None, **fields: Any) -> Any:
    app = Celery(config=Config(broker="eager", result_backend=url, **fields), set_as_current=False)
    app.conf.result_backend_transport_options = options or {}
    return app.backend


def task_of(client: Any, uuid: str) -> dict[str, Any]:
    item: dict[str, Any] = client.get_item(TableName="task_states", Key={"TaskUUID": {"S": uuid}})["Item"]
    return item


def go_updates(client: Any, table: str, uuid: str, **attributes: dict[str, Any]) -> None:
    """Writes some attributes, as all of Go's updates do."""
    client.update_item(
        TableName=table,
        Key={"GroupUUID" if table == "group_metas" else "TaskUUID": {"S": uuid}},
        UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in attributes),
        ExpressionAttributeNames={f"#{name}": name for name in attributes},
        ExpressionAttributeValues={f":{name}": value for name, value in attributes.items()},
    )


def refusal(code: str, message: str = "no", status: int = 400) -> Callable[..., Any]:
    def refuse(**_: Any) -> Any:
        raise ClientError(
            {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "x"
        )

    return refuse


def ended(uuid: str, kind: str = "int64", raw: bytes = b"7") -> TaskState:
    return TaskState(task_uuid=uuid, state="SUCCESS", results=[TaskResult.from_raw(kind, raw)])


def made_group(backend: Backend, uuid: str) -> None:
    backend.put_group(GroupMeta(group_uuid=uuid, task_uuids=["a"], created_at=now_text()))


# -- items


def test_the_items_are_gos(backend: Backend, client: Any, names: Names) -> None:
    uuid = names.queue
    backend.put_pending([new_signature("add", uuid=uuid)])
    pending = task_of(client, uuid)
    assert sorted(pending) == ["CreatedAt", "Error", "Results", "State", "TTL", "TaskName", "TaskUUID"]

    backend.update_states([ended(uuid)])
    item = task_of(client, uuid)
    assert 3590 < int(item.pop("TTL")["N"]) - time.time() <= 3600
    assert item.pop("Results") == {"L": [{"M": {"Type": {"S": "int64"}, "Value": {"N": "7"}}}]}
    assert item == {
        "TaskUUID": {"S": uuid},
        "TaskName": {"S": "add"},
        "State": {"S": "SUCCESS"},
        "Error": {"S": ""},
        "CreatedAt": pending["CreatedAt"],
    }


def test_what_go_leaves_behind_is_not_read(backend: Backend, client: Any, names: Names) -> None:
    uuid = names.queue
    backend.put_state(TaskState(task_uuid=uuid, state="FAILURE", error="e", celery='{"traceback": "t"}'))
    for state in ("STARTED", "SUCCESS"):
        go_updates(client, "task_states", uuid, State={"S": state})
        found = backend.task_state(uuid)
        assert (found.state, found.error, found.celery) == (state, "", None)
    go_updates(client, "task_states", uuid, State={"S": "FAILURE"}, Error={"S": "Go's"})
    assert (backend.task_state(uuid).error, backend.task_state(uuid).celery) == ("Go's", None)


def test_a_state_of_a_later_run_stays(backend: Backend, client: Any, names: Names) -> None:
    uuid = names.queue
    second = TaskState(task_uuid=uuid, state="STARTED", celery='{"run": 1}')
    assert backend.update_states([second], run=1) == [True]

    assert backend.update_states([ended(uuid), ended(f"{uuid}-2")], run=0) == [False, True]

    assert backend.task_state(uuid).state == "STARTED"
    assert backend.update_states([ended(uuid)], run=1) == [True]
    # What Go has written since is of no run.
    assert backend.update_states([second], run=1) == [True]
    go_updates(client, "task_states", uuid, State={"S": "RETRY"})
    assert backend.update_states([ended(uuid)], run=0) == [True]


def test_what_has_expired_is_read_until_dynamodb_deletes_it_as_in_go(
    backend: Backend, client: Any, names: Names
) -> None:
    backend.update_states([ended(names.queue)])
    go_updates(client, "task_states", names.queue, TTL={"N": "1000"})
    assert backend.task_state(names.queue).state == "SUCCESS"


def test_a_uuid_that_is_no_key(backend: Backend) -> None:
    for uuid in ("", "\ud800", "x" * 2049):
        for call in (backend.task_state, backend.group_meta, backend.trigger_chord, backend.purge):
            with pytest.raises(errors.BackendError, match="key in DynamoDB"):
                call(uuid)
        with pytest.raises(errors.BackendError, match="key in DynamoDB"):
            backend.put_state(TaskState(task_uuid=uuid, state="STARTED"))
        with pytest.raises(errors.BackendError, match="key in DynamoDB"):
            backend.task_states(["a", uuid])


def test_a_result_that_is_too_large_fails_its_task(server: Server) -> None:
    server.register_task("large", lambda: "x" * 410_000)

    result = server.send_task(new_signature("large"))

    with pytest.raises(TaskError, match="more than the 409600 that DynamoDB takes"):
        result.get_with_timeout(10)


def test_a_failure_that_is_too_large_is_cut(server: Server) -> None:
    def fail() -> None:
        raise ValueError("x" * 500_000)

    server.register_task("fail_large", fail)

    with pytest.raises(TaskError, match=r"^x{50000}… \(500000 characters\)$"):
        server.send_task(new_signature("fail_large")).get_with_timeout(10)


def test_a_document_that_only_the_server_finds_too_large(client: Any) -> None:
    refused = refusal("ValidationException", "Item size to update has exceeded the maximum allowed size")
    backend = backend_of(dynamodb=DynamoDBConfig(client=Altered(client, update_item=refused)))
    with pytest.raises(TooLarge, match="return a reference"):
        backend.update_states([ended("t")])


# -- batches


def test_keys_that_dynamodb_has_not_processed_are_asked_for_again(client: Any, names: Names) -> None:
    def some(RequestItems: dict[str, Any]) -> Any:
        ((table, asked),) = RequestItems.items()
        first = {**asked, "Keys": asked["Keys"][:30]}
        left = {**asked, "Keys": asked["Keys"][30:]}
        answer = client.batch_get_item(RequestItems={table: first})
        return {**answer, "UnprocessedKeys": {table: left} if left["Keys"] else {}}

    def some_writes(RequestItems: dict[str, Any]) -> Any:
        ((table, asked),) = RequestItems.items()
        client.batch_write_item(RequestItems={table: asked[:10]})
        return {"UnprocessedItems": {table: asked[10:]} if asked[10:] else {}}

    altered = Altered(client, batch_get_item=some, batch_write_item=some_writes)
    backend = backend_of(dynamodb=DynamoDBConfig(client=altered))
    uuids = [f"{names.queue}-{number}" for number in range(120)]

    backend.put_pending([Signature(uuid=uuid, name=uuid) for uuid in uuids])

    # Also where one is asked for twice.
    assert [one.task_name for one in backend.task_states([*uuids, uuids[0]])] == [*uuids, uuids[0]]


def test_a_batch_of_which_nothing_is_done_is_throttled(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamo_client, "PAUSES", (0.0, 0.0))
    asked: list[Any] = []

    def nothing(RequestItems: dict[str, Any]) -> Any:
        asked.append(RequestItems)
        return {"Responses": {}, "UnprocessedKeys": RequestItems}

    backend = backend_of(dynamodb=DynamoDBConfig(client=Altered(client, batch_get_item=nothing)))
    with pytest.raises(Unavailable, match="leaves 2 requests for the table 'task_states' undone") as caught:
        backend.task_states(["a", "b"])
    assert backend.exception_safe_to_retry(caught.value)
    assert len(asked) == 3


# -- errors


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ProvisionedThroughputExceededException", 400),
        ("ThrottlingException", 400),
        ("RequestLimitExceeded", 400),
        ("AccessDeniedException", 400),
        ("ExpiredTokenException", 400),
        ("InternalServerError", 500),
        ("AnythingNew", 503),
    ],
)
def test_what_may_be_over_soon_may_be_tried_again(client: Any, code: str, status: int) -> None:
    altered = Altered(client, get_item=refusal(code, status=status), update_item=refusal(code, status=status))
    backend = backend_of(dynamodb=DynamoDBConfig(client=altered))
    for call in (lambda: backend.task_state("t"), lambda: backend.update_states([ended("t")])):
        with pytest.raises(Unavailable, match=code) as caught:
            call()
        assert backend.exception_safe_to_retry(caught.value)


def test_what_dynamodb_refuses_is_one_clear_error(client: Any) -> None:
    altered = Altered(client, get_item=refusal("ValidationException", "The provided key element does not match"))
    backend = backend_of(dynamodb=DynamoDBConfig(client=altered))
    with pytest.raises(errors.BackendError, match=r"'task_states'.*key element") as caught:
        backend.task_state("t")
    assert not backend.exception_safe_to_retry(caught.value)


def test_a_server_that_is_not_there_is_an_error_that_celery_may_retry() -> None:
    options = {"endpoint_url": f"http://127.0.0.1:{free_port()}", "aws_secret_access_key": "secret"}
    options["aws_access_key_id"] = "secret"
    backend = backend_of(options=options)
    with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
        backend.task_state("t")
    assert backend.exception_safe_to_retry(caught.value)
    assert "secret" not in f"{caught.value}{backend.as_uri()}"


def test_credentials_that_cannot_be_had_now_may_come(client: Any) -> None:
    def refuse(**_: Any) -> Any:
        raise CredentialRetrievalError(provider="metadata", error_msg="timed out")

    backend = backend_of(dynamodb=DynamoDBConfig(client=Altered(client, get_item=refuse)))
    with pytest.raises(Unavailable, match="timed out"):
        backend.task_state("t")


def test_no_credentials_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(errors.BackendError, match="credentials"):
        backend_of().task_state("t")


def test_the_region_is_that_of_the_environment_as_in_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert backend_of().client.meta.region_name == "eu-west-1"
    assert "names the region us-east-1 and the AWS environment eu-west-1" in caplog.text
    monkeypatch.delenv("AWS_REGION")
    assert backend_of().client.meta.region_name == "eu-west-3"
    assert backend_of(options={"region_name": "eu-west-2"}).client.meta.region_name == "eu-west-2"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert backend_of("https://dynamodb.ap-southeast-2.amazonaws.com").client.meta.region_name == "ap-southeast-2"
    with pytest.raises(errors.ConfigError, match="no AWS region: set AWS_REGION"):
        backend_of("https://dynamodb").task_state("t")


def test_an_option_that_there_is_not_is_one_clear_error() -> None:
    with pytest.raises(errors.ConfigError, match=r"no 'timeout', only aws_access_key_id, .*, region_name"):
        backend_of(options={"timeout": 5}).task_state("t")
    with pytest.raises(errors.ConfigError, match="dynamodb"):
        backend_of(options={"endpoint_url": "nonsense"}).task_state("t")


def test_an_unused_backend_makes_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamo_client, "connect", lambda *_: pytest.fail("a client is made"))
    assert backend_of().as_uri() == DYNAMODB


# -- chords together with Go


def test_a_lock_of_gos_is_waited_for(backend: Backend, client: Any, names: Names) -> None:
    uuid = names.queue
    made_group(backend, uuid)
    go_updates(client, "group_metas", uuid, Lock={"BOOL": True})
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(backend.trigger_chord, uuid)
        go_updates(client, "group_metas", uuid, ChordTriggered={"BOOL": True})
        go_updates(client, "group_metas", uuid, Lock={"BOOL": False})
        assert ours.result() is False


def test_a_lock_of_a_dead_go_worker_is_passed_over(
    backend: Backend, client: Any, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamodb, "LOCK_LIFE", 0.05)
    made_group(backend, names.queue)
    go_updates(client, "group_metas", names.queue, Lock={"BOOL": True})
    assert backend.trigger_chord(names.queue)
    assert not backend.trigger_chord(names.queue)


def test_a_go_worker_that_read_the_group_before_is_left_to_send(client: Any, names: Names) -> None:
    def marked_and_locked(**arguments: Any) -> Any:
        answer = client.update_item(**arguments)
        go_updates(client, "group_metas", names.queue, Lock={"BOOL": True})
        go_updates(client, "group_metas", names.queue, ChordTriggered={"BOOL": True})
        go_updates(client, "group_metas", names.queue, Lock={"BOOL": False})
        return answer

    backend = backend_of(dynamodb=DynamoDBConfig(client=Altered(client, update_item=marked_and_locked)))
    made_group(backend, names.queue)
    assert not backend.trigger_chord(names.queue)
    assert backend.group_meta(names.queue).chord_triggered


def test_a_mark_whose_answer_was_lost_still_counts(client: Any, names: Names) -> None:
    def twice(**arguments: Any) -> Any:
        # As boto3 sends it again.
        client.update_item(**arguments)
        return client.update_item(**arguments)

    backend = backend_of(dynamodb=DynamoDBConfig(client=Altered(client, update_item=twice)))
    made_group(backend, names.queue)
    assert backend.trigger_chord(names.queue)
    # And a member that is added twice is there once.
    backend.add_member(names.queue, "b", "[]")
    assert backend.group_meta(names.queue).task_uuids == ["a", "b"]


@pytest.mark.parametrize("members", [None, []])
def test_a_group_that_grows_from_nothing(backend: Backend, names: Names, members: list[str] | None) -> None:
    backend.put_group(GroupMeta(group_uuid=names.queue, task_uuids=members, created_at=now_text()))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda member: backend.add_member(names.queue, member, "[]"), "abcd"))
    assert sorted(backend.group_meta(names.queue).task_uuids) == ["a", "b", "c", "d"]


# -- tables


def run_tables(app: Celery) -> Result:
    return CliRunner().invoke(machinery, ["tables"], obj=CLIContext(app, no_color=True, workdir=None, quiet=False))


def test_tables_that_are_missing_are_named_and_made_by_the_command(client: Any, names: Names) -> None:
    config = DynamoDBConfig(task_states_table=f"{names.queue}-t", group_metas_table=f"{names.queue}-g")
    backend = backend_of(dynamodb=config)
    for call, table in (
        (lambda: backend.task_state("t"), config.task_states_table),
        (lambda: backend.task_states(["t", "u"]), config.task_states_table),
        (lambda: backend.put_pending([new_signature("add", uuid="t")]), config.task_states_table),
        (lambda: backend.update_states([ended("t")]), config.task_states_table),
        (lambda: made_group(backend, "g"), config.group_metas_table),
        (lambda: backend.trigger_chord("g"), config.group_metas_table),
    ):
        with pytest.raises(errors.BackendError, match=rf"no table '{table}'.*celery -A APP machinery tables") as caught:
            call()
        # A worker keeps its results until somebody has run it.
        assert backend.exception_safe_to_retry(caught.value)

    made = run_tables(backend.app)
    assert (made.exit_code, made.output) == (
        0,
        f"Created the table {names.queue}-t.\nCreated the table {names.queue}-g.\n",
    )
    again = run_tables(backend.app)
    assert (again.exit_code, again.output) == (
        0,
        f"The table {names.queue}-t is there.\nThe table {names.queue}-g is there.\n",
    )

    for table, key in ((config.task_states_table, "TaskUUID"), (config.group_metas_table, "GroupUUID")):
        found = client.describe_table(TableName=table)["Table"]
        assert found["KeySchema"] == [{"AttributeName": key, "KeyType": "HASH"}]
        assert found["AttributeDefinitions"] == [{"AttributeName": key, "AttributeType": "S"}]
        assert found["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        expiry = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
        assert (expiry["TimeToLiveStatus"], expiry["AttributeName"]) == ("ENABLED", "TTL")
    backend.put_state(TaskState(task_uuid="t", state="STARTED"))
    assert backend.task_state("t").state == "STARTED"


def test_a_table_that_is_another_one(client: Any, names: Names) -> None:
    def made(table: str, key: str, kind: str) -> None:
        client.create_table(
            TableName=table,
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind}],
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )

    made(f"{names.queue}-other", "id", "S")
    told = run_tables(backend_of(dynamodb=DynamoDBConfig(task_states_table=f"{names.queue}-other")).app)
    assert told.exit_code == 1
    assert "Machinery needs 'TaskUUID' of the type S" in told.output

    made(f"{names.queue}-ttl", "TaskUUID", "S")
    client.update_time_to_live(
        TableName=f"{names.queue}-ttl", TimeToLiveSpecification={"Enabled": True, "AttributeName": "until"}
    )
    told = run_tables(backend_of(dynamodb=DynamoDBConfig(task_states_table=f"{names.queue}-ttl")).app)
    assert told.exit_code == 1
    assert "'until' says what has expired" in told.output


def test_tables_elsewhere() -> None:
    told = run_tables(Celery(broker="eager", backend="eager", set_as_current=False))
    assert told.exit_code == 2
    assert "eager, which has no tables" in told.output
    unreachable = backend_of(options={"endpoint_url": f"http://127.0.0.1:{free_port()}"})
    told = run_tables(unreachable.app)
    assert (told.exit_code, told.output.count("\n")) == (1, 1)
    assert "cannot be asked" in told.output


def test_a_client_of_the_applications_own(client: Any) -> None:
    backend = backend_of("https://dynamodb", dynamodb=DynamoDBConfig(client=client))
    backend.put_state(TaskState(task_uuid="own", state="STARTED"))
    assert backend.client is client
    assert task_of(client, "own")["State"] == {"S": "STARTED"}


# -- chords that nobody has sent


@pytest.fixture
def watched(client: Any, names: Names) -> Iterator[tuple[Server, Signature, list[str]]]:
    """A chord of two whose members have ended, in tables of its own; its callback, and how that was called."""
    tables = DynamoDBConfig(task_states_table=f"{names.queue}-t", group_metas_table=f"{names.queue}-g")
    server = Server(Config(broker="eager", result_backend=DYNAMODB, dynamodb=tables))
    server.backend.create_tables()
    sent: list[str] = []
    server.register_task("sum", lambda *numbers: sent.append(f"{numbers}"))
    server.backend.put_group(GroupMeta(group_uuid="g", task_uuids=["a", "b"], created_at=now_text()))
    for member in ("a", "b"):
        server.backend.update_states([ended(member)])
    callback = new_signature("sum", uuid="c")
    server.backend.watch_chord("g", callback)
    yield server, callback, sent
    for table in (tables.task_states_table, tables.group_metas_table):
        client.delete_table(TableName=table)
    server.app.close()


def chords(server: Server) -> list[str]:
    """The keys of the chords that are watched."""
    table = server.config.dynamodb.group_metas_table
    found = server.backend.client.scan(TableName=table)["Items"]
    return [one["GroupUUID"]["S"] for one in found if one["GroupUUID"]["S"].startswith("machinery_compat_chord:")]


def due(server: Server) -> None:
    for key in chords(server):
        server.backend.client.update_item(
            TableName=server.config.dynamodb.group_metas_table,
            Key={"GroupUUID": {"S": key}},
            UpdateExpression="SET Due = :due",
            ExpressionAttributeValues={":due": {"N": "0"}},
        )


def test_where_nobody_looks_nothing_is_written(watched: tuple[Server, Signature, list[str]]) -> None:
    server, callback, _ = watched
    server.backend.unwatch_chord("g")
    server.app.conf.machinery_chord_watch_interval = 0
    server.backend.watch_chord("other", callback)
    server.backend.unwatch_chord("other")
    assert chords(server) == []


def test_an_item_of_a_chord_that_no_worker_has_written_is_forgotten(
    watched: tuple[Server, Signature, list[str]],
) -> None:
    server, callback, _ = watched
    table = server.config.dynamodb.group_metas_table
    server.backend.watch_chord("bad", callback)
    key = {"GroupUUID": {"S": "machinery_compat_chord:bad"}}
    server.backend.client.put_item(TableName=table, Item={**key, "Callback": {"N": "7"}, "Due": {"S": "now"}})
    server.backend.watch_chord("gone", callback)
    server.backend.client.delete_item(TableName=table, Key={"GroupUUID": {"S": "machinery_compat_chord:gone"}})
    due(server)

    assert [one.group_uuid for one in server.backend.overdue_chords()] == ["g"]
    server.backend.unwatch_chord("g")
    assert (chords(server), server.backend.overdue_chords()) == ([], [])
    # Whoever looks late at what was forgotten does not bring it back.
    server.backend.suspect_chord("g")
    assert chords(server) == []
