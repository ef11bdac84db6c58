"""The harness itself: a count that cannot be wrong would be worth nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.harness.journal import Journal
from tests.fault.harness.proxy import TO_CLIENT, TO_SERVER, Proxy
from tests.support.waiting import wait_for


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(1024):
                        connection.sendall(data)
                except OSError:
                    pass

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(1024)


def test_a_cut_connection_is_reset_and_a_new_one_works(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        assert ask(client, b"one") == b"one"
        assert proxy.cut() == 2
        with pytest.raises(ConnectionResetError):
            client.recv(1024)
        with connect(proxy) as other:
            assert ask(other, b"two") == b"two"


def test_down_refuses_and_up_takes_the_same_port(echo: int) -> None:
    with Proxy(echo) as proxy:
        proxy.down()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.up()
        with connect(proxy) as client:
            assert ask(client, b"one") == b"one"


def test_nothing_passes_in_a_stall_and_everything_after_it(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        assert ask(client, b"one") == b"one"
        proxy.stall()
        client.sendall(b"two")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1024)
        proxy.flow()
        client.settimeout(5)
        assert client.recv(1024) == b"two"


@pytest.mark.parametrize(("direction", "before"), [(TO_SERVER, True), (TO_CLIENT, True), (TO_SERVER, False)])
def test_a_trap_springs_once_at_its_mark(echo: int, direction: str, before: bool) -> None:
    struck: list[str] = []
    with Proxy(echo) as proxy, connect(proxy) as client:
        trap = proxy.trap(b"ma.k", direction, before, lambda: struck.append(direction))
        assert ask(client, b"nothing m") == b"nothing m"
        assert not trap.sprung.is_set()
        # In two pieces.
        answer = ask(client, b"ark")
        wait_for(trap.sprung.is_set)
        assert answer == (b"" if before else b"ark")
        with connect(proxy) as other:
            assert ask(other, b"mark") == b"mark"
    assert struck == [direction]


def test_a_journal_tells_what_began_again_and_what_is_still_running(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    path.write_text("a begin 1 1.0\na end 1 2.0\nb begin 2 3.0\na begin 3 4.0\nc begin 2 5.")

    journal.update()
    assert len(journal.begins["a"]) == 2
    assert journal.running_in({1, 2, 3}) == {"a", "b"}

    with path.open("a") as file:
        file.write("0\na end 3 6.0\nc end 2 6.5\n")
    journal.update()
    assert journal.running_in({1, 2, 3}) == {"b"}
    assert [line.time for line in journal.ends["a"]] == [2.0, 6.0]
