"""No password of a URL is in what a user may paste somewhere: reports, logs, errors, representations."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from machinery_compat import Celery, Config, Server
from tests.conftest import Names
from tests.support.python_worker import ROOT, PythonWorker
from tests.support.services import RabbitServer, RedisServer

WORD = "s3cr3tpw"
ADDRESS = "127.0.0.1:1"
#: None of them leads anywhere, some cannot even be read.
URLS = [
    f"redis://{WORD}@{ADDRESS}",
    f"redis://user:{WORD}@{ADDRESS}/1?ssl_keyfile={WORD}&password={WORD}",
    f"rediss://user:{WORD}@{ADDRESS}/1?password={WORD}#{WORD}",
    f"redis+socket://{WORD}@/tmp/none.sock:/1",
    f"redis://user:{WORD}@127.0.0.1:port/1",
    f"redis://user:{WORD}@h1:1,h2:2/1",
    f"amqp://user:{WORD}@{ADDRESS}/v?password={WORD}",
    f"amqps://user:{WORD}@{ADDRESS}/v?auth={WORD}",
    f"amqp://user:{WORD}@{ADDRESS}/;amqp://user:{WORD}@127.0.0.1:2/?password={WORD}",
    f"amqp://user:{WORD}@127.0.0.1:port/",
    f"foo://user:{WORD}@h/?password={WORD}",
    f"mongodb://user:{WORD}@h/?authSource={WORD}",
    f"https://sqs.example/?key={WORD}",
]
#: Those with which a connection is tried: each time takes a second or two.
CONNECTING = (URLS[1], URLS[8])


def application(url: str, by_config: bool) -> Celery:
    backend = url if url.startswith("redis") and ";" not in url else f"redis://:{WORD}@{ADDRESS}"
    if by_config:
        app = Server(Config(broker=url, result_backend=backend, lock=backend, multiple_broker_separator=";")).app
    else:
        app = Celery("secret", broker=url, backend=backend, set_as_current=False)
    app.conf.task_publish_retry_policy = {"max_retries": 0}
    app.conf.redis_socket_connect_timeout = 1
    return app


def shown_by(app: Celery, url: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What shows something, or fails with an error that does."""
    yield "report", app.bugreport
    yield "settings", lambda: app.conf.humanize(with_defaults=True) + repr(app.conf.table())
    yield "app", lambda: repr(app) + repr(app.amqp) + repr(app.pool) + repr(app.producer_pool)
    yield "machinery", lambda: repr(app.machinery) + repr(app.machinery.config) + repr(app.machinery.border)
    yield "workflow", lambda: repr(app.machinery.workflow) + repr(app.machinery.dead_letters())
    yield "server", lambda: repr(Server(app=app)) + repr(Server(app=app).broker)
    yield "connection", lambda: repr(app.connection_for_write()) + app.connection_for_write().as_uri()
    # As ``celery inspect stats`` shows it.
    yield "stats", lambda: {k: v for k, v in app.connection_for_write().info().items() if k != "password"}
    yield "transport", lambda: repr(app.connection_for_write().transport)
    yield "backend", lambda: repr(app.backend) + str(app.backend) + app.backend.as_uri()
    yield "client", lambda: repr(app.backend.client)
    yield "lock", lambda: Server(app=app).lock
    yield "checks", lambda: Config(broker=url, result_backend=url, lock=url).validate()
    if url not in CONNECTING:
        return
    yield "sending", lambda: app.send_task("x")
    yield "reading", lambda: app.AsyncResult("x").state
    yield "dead", lambda: list(app.machinery.dead_letters().entries())


def text_of(show: Callable[[], Any]) -> str:
    try:
        return str(show())
    except Exception as exc:  # noqa: BLE001 - whatever it is, its text is looked at
        # Without the lines of code, which here hold the word.
        return "".join(f"{one!r} {''.join(traceback.format_exception_only(one))}" for one in _chain(exc))


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


@pytest.mark.parametrize(
    ("url", "by_config"),
    [*((url, False) for url in URLS), (URLS[0], True), (URLS[1], True), (URLS[7], True), (URLS[8], True)],
)
def test_nothing_shows_a_password(url: str, by_config: bool) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    shown: dict[str, str] = {}
    try:
        app = application(url, by_config)
        shown = {what: text_of(show) for what, show in shown_by(app, url)}
    except Exception as exc:  # noqa: BLE001 - a URL that is refused at once
        shown["refusal"] = text_of(lambda error=exc: (_ for _ in ()).throw(error))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)

    assert {what: text for what, text in shown.items() if WORD in text} == {}
    assert WORD not in log.getvalue()


def run(tmp_path: Path, *arguments: str, **variables: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "machinery_compat", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return finished.stdout + finished.stderr


def all_of(tmp_path: Path, variables: dict[str, str], *commands: list[str]) -> list[str]:
    """What several commands print, side by side."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda command: run(tmp_path, *command, **variables), commands))


@pytest.mark.redis
def test_the_commands_and_the_log_of_a_worker_on_redis(redis_server: RedisServer, tmp_path: Path, names: Names) -> None:
    with RedisServer(password=WORD) as server:
        url = server.url(1)
        variables = {"BROKER": url, "RESULT_BACKEND": url, "DEFAULT_QUEUE": names.queue}
        with PythonWorker(
            tmp_path, broker=url, backend=url, queue=names.queue, pool="solo", loglevel="DEBUG"
        ) as worker:
            shown = all_of(tmp_path, variables, ["report"], ["inspect", "stats"])
            assert "machinery_compat" in shown[0]
            assert "prefetch_count" in shown[1]
            # Its server goes away, and comes back with another password.
            server.kill()
        log = worker.text()
    lost = run(tmp_path, "inspect", "ping", "-t", "1", **variables)

    assert not any(WORD in text for text in (*shown, log, lost))


@pytest.mark.rabbitmq
@pytest.mark.redis
def test_the_commands_and_the_log_of_a_worker_on_rabbitmq(
    rabbit_server: RabbitServer, redis_db: str, tmp_path: Path, names: Names
) -> None:
    rabbit_server.ctl("add_user", names.queue, WORD)
    rabbit_server.ctl("set_permissions", "-p", "/", names.queue, ".*", ".*", ".*")
    url = f"amqp://{names.queue}:{WORD}@127.0.0.1:{rabbit_server.port}//"
    variables = {
        "BROKER": url,
        "RESULT_BACKEND": redis_db,
        "DEFAULT_QUEUE": names.queue,
        "AMQP_EXCHANGE": names.exchange,
        "AMQP_BINDING_KEY": names.queue,
    }
    with PythonWorker(
        tmp_path,
        broker=url,
        backend=redis_db,
        queue=names.queue,
        pool="solo",
        loglevel="DEBUG",
        AMQP_EXCHANGE=names.exchange,
        AMQP_BINDING_KEY=names.queue,
    ) as worker:
        shown = all_of(tmp_path, variables, ["report"], ["inspect", "stats"])
        assert "machinery_compat" in shown[0]
        assert "prefetch_count" in shown[1]
    log = worker.text()
    rabbit_server.ctl("change_password", names.queue, "another")
    refused = run(tmp_path, "inspect", "ping", "-t", "1", **variables)

    assert not any(WORD in text for text in (*shown, log, refused))
