"""TLS verifies the certificate and the name of the server, unless the configuration says otherwise."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from machinery_compat import Celery, Config, Server, redis_client
from machinery_compat.config import TLSConfig
from machinery_compat.transport.tls import amqp_options


class TestRedis:
    @pytest.mark.parametrize("tls", [None, True, {}, {"ssl_ca_certs": "ca.pem"}])
    def test_by_default_all_is_verified(self, tls: Any) -> None:
        params = redis_client.connection_params("rediss://h:1", tls=tls)
        connection = params.pop("connection_class")(**params)

        assert isinstance(connection, redis.SSLConnection)
        assert connection.cert_reqs == ssl.CERT_REQUIRED
        assert connection.check_hostname

    @pytest.mark.parametrize("none", ["none", "CERT_NONE", ssl.CERT_NONE])
    def test_nothing_is_verified_when_that_is_said(self, none: Any) -> None:
        for url, tls in (("rediss://h:1", {"ssl_cert_reqs": none}), (f"rediss://h:1?ssl_cert_reqs={none}", None)):
            if tls is None and none is ssl.CERT_NONE:
                continue
            params = redis_client.connection_params(url, tls=tls)
            connection = params.pop("connection_class")(**params)

            assert connection.cert_reqs == ssl.CERT_NONE
            assert not connection.check_hostname

    @pytest.mark.parametrize("url", ["rediss://h:1", "redis://h:1"])
    def test_the_tlsconfig_of_go(self, url: str) -> None:
        tls = TLSConfig(ca_file="ca", cert_file="cert", key_file="key", min_version=0x0303)
        app = Server(Config(broker=url, result_backend=url, tls_config=tls)).app

        for chosen in (app.conf.broker_use_ssl, app.conf.redis_backend_use_ssl):
            params = redis_client.connection_params(url, tls=chosen)
            assert params["connection_class"] is redis.SSLConnection
            assert params["ssl_cert_reqs"] == "required"
            assert params["ssl_check_hostname"] is True
            assert (params["ssl_ca_certs"], params["ssl_certfile"], params["ssl_keyfile"]) == ("ca", "cert", "key")
            assert params["ssl_min_version"] == ssl.TLSVersion.TLSv1_2

    def test_insecure_skip_verify(self) -> None:
        tls = TLSConfig(insecure_skip_verify=True)
        app = Server(Config(broker="rediss://h:1", result_backend="rediss://h:1", tls_config=tls)).app

        assert app.conf.broker_use_ssl["ssl_cert_reqs"] == "none"
        assert app.conf.broker_use_ssl["ssl_check_hostname"] is False


class TestAmqpOptions:
    @pytest.mark.parametrize("chosen", [True, {"ca_certs": "x"}, {"cert_reqs": ssl.CERT_REQUIRED}])
    def test_the_name_is_verified_too(self, chosen: Any) -> None:
        options = amqp_options(chosen, "host")

        assert isinstance(options, dict)
        assert options["cert_reqs"] == ssl.CERT_REQUIRED
        assert options["server_hostname"] == "host"

    def test_what_the_user_says_stays(self) -> None:
        assert amqp_options({"server_hostname": "other"}, "host") == {
            "server_hostname": "other",
            "cert_reqs": ssl.CERT_REQUIRED,
        }
        assert amqp_options({"context": {}}, "host") == {"context": {}}
        assert amqp_options(False, "host") is False
        assert amqp_options({"cert_reqs": ssl.CERT_NONE, "server_hostname": "x"}, "host") == {
            "cert_reqs": ssl.CERT_NONE
        }


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of ``localhost``, its own authority, key and certificate in one file."""
    path = tmp_path_factory.mktemp("tls") / "all.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", f"{path}.key", "-out", f"{path}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(Path(f"{path}.key").read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def port(certificate: Path) -> Iterator[int]:
    """A server that ends every connection after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True):
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def connect(app: Celery) -> BaseException:
    with app.connection_for_write() as connection, pytest.raises(OSError) as caught:
        connection.transport.establish_connection()
    return caught.value


def is_refusal(error: BaseException) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


class TestAmqp:
    """Whether the client goes on after the handshake; the server then hangs up."""

    def test_an_unknown_authority_is_refused(self, port: int) -> None:
        app = Celery("tls", broker=f"amqps://localhost:{port}", backend="null", set_as_current=False)

        assert is_refusal(connect(app))

    @pytest.mark.parametrize("scheme", ["amqps", "amqp"])
    @pytest.mark.parametrize(("host", "is_refused"), [("localhost", False), ("127.0.0.1", True)])
    def test_the_name_must_be_that_of_the_certificate(
        self, port: int, certificate: Path, scheme: str, host: str, is_refused: bool
    ) -> None:
        app = Celery("tls", broker=f"{scheme}://{host}:{port}", backend="null", set_as_current=False)
        app.conf.broker_use_ssl = {"ca_certs": str(certificate)}

        assert is_refusal(connect(app)) is is_refused

    @pytest.mark.parametrize(
        ("tls", "is_refused"),
        [
            (TLSConfig(), True),
            (TLSConfig(server_name="localhost"), True),
            (TLSConfig(insecure_skip_verify=True), False),
            (TLSConfig(insecure_skip_verify=True, server_name="localhost"), False),
        ],
    )
    def test_the_tlsconfig_of_go(self, port: int, tls: TLSConfig, is_refused: bool) -> None:
        config = Config(broker=f"amqps://127.0.0.1:{port}", result_backend="null", tls_config=tls)

        assert is_refusal(connect(Server(config).app)) is is_refused

    def test_server_name_in_place_of_the_host(self, port: int, certificate: Path) -> None:
        tls = TLSConfig(server_name="localhost", ca_file=str(certificate))
        config = Config(broker=f"amqps://127.0.0.1:{port}", result_backend="null", tls_config=tls)

        assert not is_refusal(connect(Server(config).app))
