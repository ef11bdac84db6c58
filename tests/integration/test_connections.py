"""Every way to a server that a URL can name."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from machinery_compat import Config, Server, new_signature, redis_client
from machinery_compat.config import AMQPConfig, TLSConfig
from machinery_compat.transport.lease_keeper import LeaseKeeper
from tests.conftest import Names
from tests.support.processes import Process, free_port
from tests.support.services import RedisServer
from tests.support.waiting import wait_for


def runs_a_task(config: Config) -> bool:
    """Whether a worker and a sender of this configuration find each other."""
    server = Server(config)
    server.register_task("double", lambda number: 2 * number)
    worker = server.new_worker("connected", 1)
    worker.launch_async()
    try:
        return server.send_task(new_signature("double", 21)).get_with_timeout(10) == [42]
    finally:
        worker.quit()


def keeps_a_lease(url: str) -> bool:
    """Whether the process that renews leases reaches this server too."""
    params = redis_client.connection_params(url, {"client_name": "keeper", "socket_connect_timeout": 5})
    with closing(redis.Redis(connection_pool=redis.ConnectionPool(**params))) as client:
        client.zadd("{q}:consumers", {"me": 1})
        keeper = LeaseKeeper(params, lease=0.3, script=redis_client.lua("renew"))
        try:
            keeper.keep([("{q}:consumers", "{q}:concurrency", "other"), ("{q}:consumers", "{q}:concurrency", "me")])
            wait_for(lambda: client.zscore("{q}:consumers", "me") > 1)
        finally:
            keeper.stop()
        # It takes no lease that is not there.
        return client.zcard("{q}:consumers") == 1


def config_of(url: str, **options: object) -> Config:
    return Config(broker=url, result_backend=url, **options)


@pytest.mark.redis
def test_a_unix_socket(redis_server: RedisServer) -> None:
    with RedisServer(unixsocket=True) as server:
        assert runs_a_task(config_of(f"redis+socket://{server.socket_path}:/3"))
        assert keeps_a_lease(f"redis+socket://{server.socket_path}:/4")


@pytest.mark.redis
def test_a_password_and_an_acl_user(redis_server: RedisServer) -> None:
    with RedisServer() as server:
        client = server.client()
        client.acl_setuser(
            "worker", enabled=True, passwords=["+s%cret"], keys=["*"], channels=["*"], categories=["+@all"]
        )
        address = server.url(2).removeprefix("redis://")
        assert runs_a_task(config_of(f"redis://worker:s%25cret@{address}"))
        assert keeps_a_lease(f"redis://worker:s%25cret@{address}")
        client.config_set("requirepass", "only")
        assert runs_a_task(config_of(f"redis://only@{address}"))


@pytest.fixture
def tls_redis(tmp_path: Path, redis_server: RedisServer) -> Iterator[tuple[str, Path]]:
    """A Redis that speaks TLS only, and the file of its authority."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    command = [
        *("redis-server", "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""),
        *("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no"),
    ]
    process = Process(command, tmp_path / "tls-redis.log")
    client = redis.Redis(port=port, ssl=True, ssl_ca_certs=str(certificate))

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    wait_for(answers, message=process.tail)
    yield f"rediss://localhost:{port}/1", certificate
    client.close()
    process.kill()


@pytest.mark.redis
def test_rediss_means_tls_and_verifies(tls_redis: tuple[str, Path]) -> None:
    url, certificate = tls_redis

    assert runs_a_task(config_of(url, tls_config=TLSConfig(ca_file=str(certificate))))
    assert runs_a_task(config_of(f"{url}?ssl_ca_certs={certificate}"))
    assert keeps_a_lease(f"{url}?ssl_ca_certs={certificate}")
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        Server(config_of(url)).backend.task_state("any")


@pytest.mark.redis
@pytest.mark.parametrize("kind", ["redis", pytest.param("amqp", marks=pytest.mark.rabbitmq)])
def test_the_next_broker_is_tried_when_the_first_is_down(
    kind: str, request: pytest.FixtureRequest, redis_db: str, names: Names
) -> None:
    alive = redis_db if kind == "redis" else request.getfixturevalue("rabbit_server").url()
    config = Config(
        broker=f"{kind}://guest:guest@127.0.0.1:{free_port()}/|{alive}",
        multiple_broker_separator="|",
        result_backend=redis_db,
        default_queue=names.queue,
        amqp=AMQPConfig(exchange=names.exchange, binding_key=names.binding_key),
    )

    assert runs_a_task(config)
