"""Each broker with each store of results, and Go on the other side: one pair of workers does it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from machinery_compat import Arg, Chain, Chord, Config, Group, Server, Signature, TaskError, new_signature
from tests.conftest import Names, go_clients, go_workers
from tests.interop.conftest import Fleet
from tests.interop.test_directions import echo_of, same
from tests.support.golang import AMQP_FLAVORS, PUBSUB_FLAVORS, SQS_FLAVORS, arg, signature
from tests.support.services import MemcachedServer, MotoServer, RedisServer, memcached_stats
from tests.support.stores import DYNAMODB, dynamodb_environment
from tests.support.waiting import wait_for

pytestmark = pytest.mark.go

WAIT = 20
#: Results that each side writes and both read.
VALUES: list[tuple[str, Any]] = [
    ("bool", True),
    *((f"int{bits}", -(2 ** (bits - 1))) for bits in (8, 16, 32, 64)),
    ("int", 2**63 - 1),
    *((f"uint{bits}", 2**bits - 1) for bits in (8, 16, 32)),
    ("uint64", 2**63 - 1),
    ("uint", 7),
    ("float64", 100.0),
    ("float64", 1e21),
    ("float32", 0.1),
    ("string", 'a "quoted" <b>&\u2028 😀'),
    ("[]byte", b"\x00\xff"),
    ("[]bool", [True, False]),
    ("[]int8", [-128, 127]),
    ("[]int64", [-(2**63), 2**63 - 1]),
    ("[]uint16", [0, 65535]),
    ("[]float64", [0.1, 1e-7, 100.0]),
    ("[]float32", [0.5]),
    ("[]string", ["foo", "<b>", ""]),
]


@dataclass(frozen=True)
class Combination:
    """A version of Go's Machinery with its broker, and a store of results."""

    flavor: str
    store: str

    @property
    def is_mongo(self) -> bool:
        return self.store == "mongodb"

    @property
    def is_dynamo(self) -> bool:
        return self.store == "dynamodb"

    def go_reads(self, go_type: str, language: str = "py") -> bool:
        """Whether Go reads a result of this type that a worker of this language has written."""
        if self.is_dynamo:
            # Go writes everything as text, and has no integers when it reads numbers.
            return go_type == "string" if language == "go" else "int" not in go_type
        # No unsigned integers from MongoDB, whoever wrote them; what else Go has written there is not asked for.
        return not (self.is_mongo and "uint" in go_type)


def combination(flavor: str, store: str) -> Any:
    marks = [pytest.mark.redis]
    if store != "socket":
        marks.append(getattr(pytest.mark, store.removesuffix("3")))
    if flavor in AMQP_FLAVORS:
        marks.append(pytest.mark.rabbitmq)
    if flavor in SQS_FLAVORS:
        marks.append(pytest.mark.sqs)
    if flavor in PUBSUB_FLAVORS:
        marks.append(pytest.mark.pubsub)
    return pytest.param(Combination(flavor, store), marks=marks, id=f"{flavor}-{store}")


COMBINATIONS = [
    combination("v2-amqp", "memcache"),
    combination("v1-redis", "memcache3"),
    combination("v2-goredis", "mongodb"),
    combination("v1-amqp", "mongodb"),
    combination("v2-redigo", "dynamodb"),
    combination("v2-sqs", "redis"),
    combination("v1-sqs", "mongodb"),
    combination("v2-sqs", "dynamodb"),
    combination("v2-pubsub", "redis"),
    combination("v2-redigo", "redis"),
    combination("v2-goredis", "redis"),
    combination("v2-amqp", "redis"),
    combination("v1-redis", "socket"),
]


@pytest.fixture(scope="module", params=COMBINATIONS)
def combined(request: pytest.FixtureRequest) -> Combination:
    made: Combination = request.param
    return made


@pytest.fixture(scope="module")
def pair(
    request: pytest.FixtureRequest,
    combined: Combination,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """A Go and a Python worker on one queue."""
    directory = tmp_path_factory.mktemp("pair")
    # The last of 16 databases; the others are emptied by other tests.
    redis = redis_server.url(15)
    unique = f"{combined.flavor}-{combined.store}"
    names = Names(f"queue-{unique}", f"exchange-{unique}", f"key-{unique}")
    with ExitStack() as stack:
        start_go, start_client = stack.enter_context(go_workers(directory)), stack.enter_context(go_clients(directory))
        broker = broker_of(combined, request, names, stack) or redis
        backend = broker if combined.store == "socket" else backend_of(combined, request, stack)
        fleet = Fleet(combined.flavor, broker, backend, names, directory, stack, start_go, start_client, redis)
        if combined.flavor in SQS_FLAVORS:
            work_apart(fleet)
        else:
            fleet.go()
            fleet.python()
        yield fleet
        fleet.server.app.close()


def sqs_broker(moto: MotoServer, queue: str, stack: ExitStack) -> str:
    """Makes the queues, which nobody does by itself, and lets all programs use them."""
    for name in (queue, f"{queue}-go", f"{queue}-py"):
        moto.client("sqs").create_queue(QueueName=name)
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    for name, value in {**moto.ENVIRONMENT, "DISABLE_STRICT_SQS_CHECK": "", "SQS_WAIT_TIME_SECONDS": "1"}.items():
        patch.setenv(name, value)
    return f"{moto.url()}/{moto.ACCOUNT}"


def work_apart(fleet: Fleet) -> None:
    """Gives each language a queue of its own.

    On SQS a Go worker that receives what it does not know hides it until the visibility timeout is over, and
    its old receiver goroutine goes on to take two more messages that nobody runs.
    """

    def queue_of(name: str) -> str:
        return f"{fleet.names.queue}-{'go' if name.startswith('go_') else 'py'}"

    def route(signature: Signature) -> None:
        signature.routing_key = queue_of(signature.name)
        for following in (*(signature.on_success or ()), *(signature.on_error or ())):
            route(following)
        if signature.chord_callback is not None:
            route(signature.chord_callback)

    def routed(command: dict[str, Any]) -> dict[str, Any]:
        for one in (command.get("signature"), command.get("callback"), *command.get("signatures", ())):
            if one is not None:
                one["RoutingKey"] = queue_of(one["Name"])
        return command

    fleet.go(queue=f"{fleet.names.queue}-go")
    fleet.python(queue=f"{fleet.names.queue}-py")
    fleet.server.app.machinery.pre_publish.append(route)
    fleet.client.prepare = routed


def broker_of(combined: Combination, request: pytest.FixtureRequest, names: Names, stack: ExitStack) -> str:
    """The URL of a broker that is not Redis."""
    if combined.flavor in AMQP_FLAVORS:
        return str(request.getfixturevalue("rabbit_server").url())
    if combined.flavor in SQS_FLAVORS:
        return sqs_broker(request.getfixturevalue("moto_server"), names.queue, stack)
    if combined.flavor in PUBSUB_FLAVORS:
        pubsub = request.getfixturevalue("pubsub_server")
        pubsub.make(names.queue)
        return str(pubsub.url(names.queue))
    if combined.store == "socket":
        # The results are there, too: version 1 of Go's Machinery is the one that has URLs for it.
        return stack.enter_context(RedisServer(unixsocket=True)).machinery_socket_url(3)
    return ""


def backend_of(combined: Combination, request: pytest.FixtureRequest, stack: ExitStack) -> str:
    if combined.is_dynamo:
        stack.enter_context(dynamodb_environment(request.getfixturevalue("moto_server")))
        Server(Config(broker="eager", result_backend=DYNAMODB)).backend.create_tables()
        return DYNAMODB
    if combined.store == "redis":
        return str(request.getfixturevalue("redis_server").url(15))
    first = request.getfixturevalue("mongo_server" if combined.is_mongo else "memcached_server")
    if combined.store != "memcache3":
        return str(first.url())
    servers = [first, *(stack.enter_context(MemcachedServer()) for _ in range(2))]
    return "memcache://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


def servers_of(pair: Fleet) -> list[dict[str, str]]:
    """The counters of each Memcached server."""
    return [memcached_stats(int(address.rpartition(":")[2])) for address in pair.backend.split(",")]


def alternating(count: int) -> list[Signature]:
    return [new_signature(f"{('go', 'py')[number % 2]}_add", number) for number in range(count)]


def chord_members(combined: Combination) -> list[Signature]:
    """Ten tasks; on DynamoDB of texts, since nothing else that Go has written there does Go hand on."""
    if not combined.is_dynamo:
        return alternating(10)
    return [new_signature(f"{('go', 'py')[number % 2]}_echo_string", str(number)) for number in range(10)]


def of_go(count: int) -> list[dict[str, object]]:
    return [signature(f"{('py', 'go')[number % 2]}_add", arg("int64", number)) for number in range(count)]


def read_by_go(pair: Fleet, uuid: str, timeout: float = 10) -> list[Any]:
    """What Go's client gets; on DynamoDB, where its AsyncResult refuses each integer, what its GetState has."""
    answer = pair.client.get(uuid, timeout)
    if pair.backend != DYNAMODB:
        return pair.client.values(uuid)
    if "error" not in answer:
        return [result["json"] for result in answer["results"]]
    assert answer["error"].endswith(" is not int64"), answer
    results = pair.client.state(uuid)["Results"]
    return [int(one["Value"]) if one["Type"] == "int64" else one["Value"] for one in results]


def test_a_task_in_each_direction(pair: Fleet, combined: Combination) -> None:
    for name in ("go_add", "py_add"):
        result = pair.server.send_task(new_signature(name, 1, 2))
        assert result.get_with_timeout(WAIT) == [3]
        assert read_by_go(pair, result.signature.uuid) == [3]
        uuid = pair.client.send(signature(name, arg("int64", 20), arg("int64", 22)))
        assert read_by_go(pair, uuid) == [42]
        assert pair.server.app.AsyncResult(uuid).get(timeout=WAIT) == 42
        state = pair.client.state(uuid)
        # On Memcache Go's worker forgets both.
        if name == "py_add" or not combined.store.startswith("memcache"):
            assert (state["State"], state["TaskName"]) == ("SUCCESS", name)
            assert not state["CreatedAt"].startswith("0001")


def test_results_of_each_type(pair: Fleet, combined: Combination) -> None:
    for language in ("go", "py"):
        sent = [
            (kind, value, pair.server.send_task(new_signature(f"{language}_echo_{echo_of(kind)}", Arg(kind, value))))
            for kind, value in VALUES
        ]
        for kind, value, result in sent:
            (got,) = result.get_with_timeout(WAIT)
            assert same(got, value, kind), (language, kind, value, got)
            # What Go has written to MongoDB it can read only in part.
            if language == "py" or combined.is_dynamo:
                answer = pair.client.get(result.signature.uuid)
                assert ("error" not in answer) == combined.go_reads(kind, language), (kind, value, answer)


def test_several_results_and_none(pair: Fleet) -> None:
    app = pair.server.app
    for language in ("go", "py"):
        assert app.send_task(f"{language}_swap", ["a", 1]).get(timeout=WAIT) == (1, "a")
        assert app.send_task(f"{language}_nothing").get(timeout=WAIT) is None
        swapped = pair.client.send(signature(f"{language}_swap", arg("string", "a"), arg("int64", 1)))
        assert read_by_go(pair, swapped) == [1, "a"]
        assert read_by_go(pair, pair.client.send(signature(f"{language}_nothing"))) == []


def test_failures(pair: Fleet) -> None:
    for language in ("go", "py"):
        with pytest.raises(TaskError, match=r"^no luck <&>$"):
            pair.server.send_task(new_signature(f"{language}_fail", "no luck <&>")).get_with_timeout(WAIT)
        uuid = pair.client.send(signature(f"{language}_fail", arg("string", "no luck <&>")))
        assert pair.client.get(uuid)["error"] == "no luck <&>"


def test_a_retry(pair: Fleet) -> None:
    for language in ("go", "py"):
        sent = new_signature(f"{language}_retry_later", f"{pair.names.queue}-{language}", 2, 30)
        assert pair.server.send_task(sent).get_with_timeout(WAIT) == [2]


def test_a_delay(pair: Fleet) -> None:
    for name in ("go_add", "py_add"):
        due = datetime.now(timezone.utc) + timedelta(seconds=0.5)
        assert pair.server.send_task(new_signature(name, 1, eta=due)).get_with_timeout(WAIT) == [1]
        assert datetime.now(timezone.utc) >= due
        eta = (datetime.now(timezone.utc) + timedelta(seconds=0.5)).isoformat()
        assert read_by_go(pair, pair.client.send(signature(name, arg("int64", 2), ETA=eta))) == [2]


def test_groups(pair: Fleet) -> None:
    results = pair.server.send_group(Group(*alternating(20)))
    assert [one.get_with_timeout(WAIT) for one in results] == [[number] for number in range(20)]
    uuids = pair.client.must(op="send_group", signatures=of_go(20))["uuids"]
    assert [read_by_go(pair, uuid) for uuid in uuids] == [[number] for number in range(20)]


def test_chains(pair: Fleet) -> None:
    assert pair.server.send_chain(Chain(*alternating(6))).get_with_timeout(WAIT) == [15]
    uuids = pair.client.must(op="send_chain", signatures=of_go(6))["uuids"]
    assert read_by_go(pair, uuids[-1], timeout=WAIT) == [15]


def test_chords(pair: Fleet, combined: Combination) -> None:
    callback, outcome = ("join", "0123456789") if combined.is_dynamo else ("add", "45")
    chords = [
        Chord(Group(*chord_members(combined)), new_signature(f"{('go', 'py')[n % 2]}_{callback}")) for n in range(4)
    ]
    results = [pair.server.send_chord(chord) for chord in chords]
    for result in results:
        (got,) = result.get_with_timeout(WAIT)
        assert sorted(str(got)) == sorted(outcome)
    for language in ("go", "py"):
        members = [signature(one.name, *(arg(a.type, a.value) for a in one.args)) for one in chord_members(combined)]
        sent = pair.client.must(op="send_chord", signatures=members, callback=signature(f"{language}_{callback}"))
        (got,) = read_by_go(pair, sent["callback_uuid"], timeout=WAIT)
        assert sorted(str(got)) == sorted(outcome)
    runs = Counter(one.uuid for one in pair.executions())
    # Of two members that end together in Go each sends the callback: on MongoDB its TriggerChord is always
    # true, elsewhere it compares nothing. Python's part is test_a_chord_of_python_is_sent_once.
    assert {runs[chord.callback.uuid] for chord in chords} <= {1, 2}


def test_a_chord_of_python_is_sent_once(pair: Fleet) -> None:
    members = [new_signature("py_add", number) for number in range(30)]
    chord = Chord(Group(*members), new_signature("go_add"))
    assert pair.server.send_chord(chord).get_with_timeout(WAIT) == [435]
    last = pair.server.send_task(new_signature("go_add", 1))
    assert last.get_with_timeout(WAIT) == [1]
    assert [one.uuid for one in pair.executions()].count(chord.callback.uuid) == 1


def test_a_failed_member_fails_the_callback(pair: Fleet) -> None:
    for failing in ("py_fail", "go_fail"):
        chord = Chord(Group(new_signature("py_add", 1), new_signature(failing, "no luck")), new_signature("py_add"))
        result = pair.server.send_chord(chord)
        with pytest.raises(TaskError, match=r"^no luck$"):
            result.get_with_timeout(WAIT)


def test_texts_that_hold_json(pair: Fleet, combined: Combination) -> None:
    text = '{"b": [1, 2.5], "a": {"c": null}}'
    uuid = pair.client.send(signature("py_echo_string", arg("string", text)))
    assert pair.client.values(uuid) == [text]
    uuid = pair.client.send(signature("go_echo_string", arg("string", text)))
    wait_for(lambda: pair.server.backend.task_state(uuid).state == "SUCCESS", WAIT)
    value = pair.server.app.AsyncResult(uuid).get(timeout=WAIT)
    if combined.is_mongo:
        # Go stores the members, whose order is lost, and cannot read them.
        assert value == '{"a":{"c":null},"b":[1,2.5]}'
        assert "json is not one of supported types" in pair.client.get(uuid)["error"]
    else:
        assert value == text
        assert pair.client.values(uuid) == [text]


def test_both_find_the_keys_of_the_other(pair: Fleet, combined: Combination) -> None:
    if combined.store != "memcache3":
        return
    uuids = pair.client.must(op="send_group", signatures=of_go(60))["uuids"]
    assert [pair.server.app.AsyncResult(uuid).get(timeout=WAIT) for uuid in uuids] == list(range(60))
    assert all(int(stats["curr_items"]) > 10 for stats in servers_of(pair))


def test_numbers_in_a_chord_that_go_completes(pair: Fleet, combined: Combination) -> None:
    if not combined.is_dynamo:
        return
    # Go hands on the texts that its members have left, as which no task takes them for numbers.
    # The second ends later: of two that end together each would send the callback.
    later = datetime.now(timezone.utc) + timedelta(seconds=0.5)
    members = Group(new_signature("go_add", 1), new_signature("go_add", 2, eta=later))
    with pytest.raises(TaskError, match=r"[12] is not int64$"):
        pair.server.send_chord(Chord(members, new_signature("py_add"))).get_with_timeout(WAIT)
    # Those that Python's members have left are numbers.
    due = datetime.now(timezone.utc) + timedelta(seconds=1)
    last = new_signature("go_nothing", eta=due)
    members = Group(new_signature("py_add", 2, 3), new_signature("py_add", 2**53 - 1), last)
    result = pair.server.send_chord(Chord(members, new_signature("go_add")))
    assert result.get_with_timeout(WAIT) == [2**53 + 4]
    assert datetime.now(timezone.utc) >= due


def test_texts_with_blanks(pair: Fleet, combined: Combination) -> None:
    if not combined.is_dynamo:
        return
    value = ["a b", "c"]
    by_python = pair.server.send_task(new_signature("py_echo_slice_string", Arg("[]string", value)))
    assert by_python.get_with_timeout(WAIT) == [value]
    assert pair.client.values(by_python.signature.uuid) == [value]
    # Where one text ends and the next begins, Go's text of a list does not say.
    by_go = pair.server.send_task(new_signature("go_echo_slice_string", Arg("[]string", value)))
    assert by_go.get_with_timeout(WAIT) == [["a", "b", "c"]]
