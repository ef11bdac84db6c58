"""The tables of the migration guide: nothing is missing in them, and what they name exists."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import celery
import pytest
from celery.app.defaults import NAMESPACES, flatten

import machinery_compat
from machinery_compat import Celery, Config, RetryTaskLater, Server, backends, transport
from tests.conftest import _missing
from tests.support import golang
from tests.support.processes import Unavailable
from tests.support.python_worker import PythonWorker

GUIDE = Path(__file__).parents[2] / "migration_guide"
CODE = re.compile(r"`([^`]+)`")
#: What in a note is a name of this package.
NAME = re.compile(r"(Worker|Server|Signature|config|celery)\.\w+|[A-Z]\w+(Error|Later)|[A-Z]+|current_\w+")


def rows(page: str) -> Iterator[tuple[list[str], list[str]]]:
    """Each row of a page's tables: the packages that are named before the table, and its cells."""
    packages: list[str] = []
    head = ""
    for line in (GUIDE / page).read_text().splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not head:
                head = cells[0]
            elif head in ("Go", "Setting") and not set(line) <= set("|-"):
                yield packages, cells
        elif line:
            found = re.findall(r"`(machinery[\w/]*)`", line)
            packages = packages + found if not head and line.startswith("`") else found or packages
            head = ""


# -- Machinery's names


@dataclass(frozen=True)
class GoName:
    package: str
    name: str


@pytest.fixture(scope="module")
def go_names() -> dict[GoName, str]:
    """Every exported name of Go Machinery with the versions that have it."""
    try:
        text = golang.output(golang.build("./cmd/api"))
    except Unavailable as error:
        _missing(error)
    found: dict[GoName, str] = {}
    for version, package, name in map(str.split, text.splitlines()):
        key = GoName(package, name)
        found[key] = found.get(key, "") + version
    assert len(found) > 500
    return {key: "" if versions == "v1v2" else versions for key, versions in found.items()}


def table_of_names() -> Iterator[tuple[list[str], list[str], str, str, str]]:
    for packages, cells in rows("machinery-names.md"):
        go, version, python, note = cells
        yield packages, CODE.findall(go), version, python, note


@pytest.mark.go
def test_every_name_of_go_stands_in_the_table_and_no_other(go_names: dict[GoName, str]) -> None:
    said: dict[GoName, str] = {}
    for packages, names, version, _, _ in table_of_names():
        for name in names:
            of_this_row = [GoName(package, name) for package in packages if GoName(package, name) in go_names]
            assert of_this_row, f"Go has no {name} in {packages}"
            for key in of_this_row:
                assert key not in said, f"{key} stands there twice"
                said[key] = version

    assert sorted(map(str, go_names.keys() - said.keys())) == []
    assert said == go_names


def test_every_counterpart_exists_and_where_there_is_none_it_says_why() -> None:
    for _, names, _, python, note in table_of_names():
        counterparts = CODE.findall(python)
        if not counterparts:
            assert python == "none", names
            assert note, f"why is there nothing for {names}?"
        for path in counterparts:
            assert exists(path), f"{names}: there is no {path}"


def test_names_in_the_notes_of_the_table_exist() -> None:
    for _, _, _, _, note in table_of_names():
        for path in CODE.findall(note):
            if NAME.fullmatch(path):
                assert exists(path) or exists(f"errors.{path}"), path


def test_the_table_says_what_is_not_there_yet_as_long_as_it_is_not() -> None:
    text = (GUIDE / "machinery-names.md").read_text()
    for kind, kinds, words in [
        ("amqp", backends.BACKENDS, "results on AMQP are not there yet"),
        ("dynamodb", backends.BACKENDS, "DynamoDB is not there yet"),
        ("sqs", transport.TRANSPORTS, "SQS is not there yet"),
    ]:
        assert (words in text) == (kind not in kinds), words


def exists(path: str) -> bool:
    """Whether a dotted name leads somewhere, in this package or in Celery."""
    server = Server(Config(broker="eager", result_backend="eager"))
    # What only an instance has.
    made = {
        Server: server,
        machinery_compat.Worker: server.new_worker("w"),
        machinery_compat.AsyncResult: machinery_compat.AsyncResult(machinery_compat.new_signature("t"), server.backend),
        RetryTaskLater: RetryTaskLater("later", 1),
    }
    words = path.split(".")
    owner: Any = celery if words[0] == "celery" else machinery_compat
    for word in words[1:] if words[0] == "celery" else words:
        if not hasattr(owner, word):
            with suppress(TypeError):
                owner = made.get(owner, owner)
        if not hasattr(owner, word):
            try:
                importlib.import_module(f"{owner.__name__}.{word}")
            except (ImportError, AttributeError):
                return False
        owner = getattr(owner, word)
    return True


# -- Celery's settings


def table_of_settings() -> dict[str, str]:
    """Setting -> what the table says about it."""
    said: dict[str, str] = {}
    for _, (settings, here, _) in rows("celery-settings.md"):
        for setting in CODE.findall(settings):
            assert setting not in said, f"{setting} stands there twice"
            said[setting] = here
    return said


def test_every_setting_of_celery_stands_in_the_table_and_no_other() -> None:
    assert sorted(table_of_settings()) == sorted(name for name, _ in flatten(NAMESPACES))


def test_the_defaults_are_what_the_table_says() -> None:
    ours, plain = Celery("ours", set_as_current=False), celery.Celery("plain", set_as_current=False)
    for setting, here in table_of_settings().items():
        default = re.fullmatch(r"default `(.+)`", here)
        if default:
            assert ours.conf[setting] == ast.literal_eval(default[1]), setting
            assert ours.conf[setting] != plain.conf[setting], setting
        else:
            assert here in ("same", "differs", "no effect", "its backend"), setting
            if setting != "broker_transport_options":
                assert ours.conf[setting] == plain.conf[setting], setting


#: A value of each setting that has no effect; plain Celery would do something else with it, or fail.
WITHOUT_EFFECT: dict[str, Any] = {
    "accept_content": ["yaml"],
    "broker_host": "nowhere.invalid",
    "broker_native_delayed_delivery_queue_type": "classic",
    "broker_password": "wrong",
    "broker_port": 1,
    "broker_transport": "memory",
    "broker_user": "nobody",
    "broker_vhost": "nowhere",
    "mongodb_backend_settings": {"database": "nowhere"},
    "redis_db": 9,
    "redis_host": "nowhere.invalid",
    "redis_password": "wrong",
    "redis_port": 1,
    "redis_retry_on_timeout": True,
    "redis_username": "nobody",
    "result_accept_content": ["yaml"],
    "result_chord_expires": 1,
    "result_chord_retry_interval": 99,
    "result_compression": "gzip",
    "result_extended": True,
    "result_failure_expires": 1,
    "result_serializer": "pickle",
    "security_cert_store": "/nowhere/*.pem",
    "security_certificate": "/nowhere.crt",
    "security_digest": "sha512",
    "security_key": "/nowhere.key",
    "security_key_password": b"wrong",
    "task_compression": "gzip",
    "task_default_delivery_mode": 1,
    "task_default_queue_type": "quorum",
    "task_protocol": 1,
    "task_serializer": "pickle",
    "worker_eta_task_limit": 1,
}


class OddApp(Protocol):
    def __call__(self, backend: str, **settings: Any) -> AbstractContextManager[Any]: ...


@pytest.fixture
def odd_app(redis_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OddApp:
    """A module ``odd`` with an application that has settings, and a task ``add``; a worker of it runs."""
    monkeypatch.syspath_prepend(str(tmp_path))

    @contextmanager
    def start(backend: str, **settings: Any) -> Iterator[Any]:
        (tmp_path / "odd.py").write_text(
            "from machinery_compat import Celery\n"
            f"app = Celery('odd', broker={redis_db!r}, backend={backend!r}, set_as_current=False)\n"
            f"app.conf.update({settings!r})\n"
            "@app.task(shared=False)\n"
            "def add(a: int, b: int) -> int:\n"
            "    return a + b\n"
        )
        monkeypatch.delitem(sys.modules, "odd", raising=False)
        module = importlib.import_module("odd")
        worker = PythonWorker(
            tmp_path,
            broker=redis_db,
            backend=backend,
            queue="machinery_tasks",
            app="odd",
            tasks="odd",
            pool="solo",
            PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[2]}",
        )
        with worker:
            yield module

    return start


@pytest.mark.redis
@pytest.mark.filterwarnings("ignore:The RedisBackend result backend (cannot store compressed|does not support)")
def test_settings_without_effect_do_nothing(redis_db: str, odd_app: OddApp) -> None:
    assert set(WITHOUT_EFFECT) == {name for name, here in table_of_settings().items() if here == "no effect"}
    with odd_app(redis_db, **WITHOUT_EFFECT) as odd:
        assert odd.add.delay(1, 2).get(timeout=20) == 3
        assert (odd.add.s(1, 2) | odd.add.s(3)).apply_async(countdown=0.1).get(timeout=20) == 6


@pytest.mark.redis
def test_a_result_backend_of_celery_itself_works_between_python_programs(odd_app: OddApp) -> None:
    with odd_app("rpc://") as odd:
        assert odd.add.delay(1, 2).get(timeout=20) == 3


@pytest.mark.redis
def test_queues_of_ones_own_are_lists_with_their_names(redis_db: str, odd_app: OddApp) -> None:
    with odd_app(redis_db, task_queues={"a": {}}, task_default_queue="a") as odd:
        assert odd.add.delay(1, 2).get(timeout=20) == 3
