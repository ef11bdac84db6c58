"""A TCP proxy that hurts: it cuts, stalls and delays connections, and strikes at a chosen moment."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TO_CLIENT", "TO_SERVER", "Proxy", "Trap"]

T = TypeVar("T")

CHUNK = 1 << 16
#: Bytes that are kept of what has passed, so that a mark in two pieces is seen.
OVERLAP = 1024
CALL_SECONDS = 10.0
#: SO_LINGER with no time: closing sends RST, as a broken network or a crashed host does.
RESET = struct.pack("ii", 1, 0)
TO_SERVER, TO_CLIENT = "to server", "to client"


class Trap:
    """Acts once, at the instant at which a mark passes.

    Args:
        mark: what to look for in the bytes.
        direction: of what is looked at.
        before: act before the bytes are handed on, which they then never are; else right after.
        action: what to do; it runs in the proxy's thread and holds everything else up.
    """

    def __init__(self, mark: re.Pattern[bytes], direction: str, before: bool, action: Callable[[], None]) -> None:
        self.mark, self.direction, self.before, self.action = mark, direction, before, action
        self.sprung = threading.Event()

    def sees(self, direction: str, passed: bytes, data: bytes) -> bool:
        """Whether the mark ends in *data*, which follows what has *passed*."""
        if direction != self.direction or self.sprung.is_set():
            return False
        return any(found.end() > len(passed) for found in self.mark.finditer(passed + data))

    def spring(self) -> None:
        self.action()
        self.sprung.set()


class Proxy:
    """Listens on a port of its own and hands everything on to another; usable in ``with``.

    Args:
        target: the server's port on 127.0.0.1.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.latency = 0.0
        self._traps: list[Trap] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._flowing = asyncio.Event()
        self._loop.call_soon_threadsafe(self._flowing.set)
        self.up()

    # -- what goes wrong

    def up(self) -> None:
        """Takes connections, on the same port each time."""
        self._call(self._listen())

    def down(self) -> None:
        """Refuses new connections and cuts the old ones."""
        self._call(self._refuse())
        self.cut()

    def cut(self) -> int:
        """Breaks every connection at once, on both sides; returns how many ends there were."""
        return self._call(self._cut())

    def stall(self) -> None:
        """Connections stay open and nothing passes."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Ends a stall."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def trap(self, mark: bytes, direction: str, before: bool, action: Callable[[], None]) -> Trap:
        """Acts when bytes pass that match the pattern *mark*."""
        trap = Trap(re.compile(mark, re.DOTALL), direction, before, action)
        self._traps.append(trap)
        return trap

    def forget(self, trap: Trap) -> None:
        self._traps.remove(trap)

    def close(self) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- in the thread of the loop

    def _call(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(CALL_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        # What has been accepted just now becomes a connection that can be cut.
        await asyncio.sleep(0)

    async def _cut(self) -> int:
        writers = list(self._writers)
        for writer in writers:
            _reset(writer)
        return len(writers)

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        self._writers.add(answers)
        try:
            server, requests = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self._writers.discard(answers)
            _reset(answers)
            return
        self._writers.add(requests)
        try:
            await asyncio.gather(
                self._pump(client, requests, TO_SERVER),
                self._pump(server, answers, TO_CLIENT),
            )
        finally:
            for writer in (answers, requests):
                self._writers.discard(writer)
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        passed = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.latency:
                    await asyncio.sleep(self.latency)
                await self._flowing.wait()
                sprung = [trap for trap in self._traps if trap.sees(direction, passed, data)]
                if any(trap.before for trap in sprung):
                    for trap in sprung:
                        trap.spring()
                    break
                writer.write(data)
                await writer.drain()
                for trap in sprung:
                    trap.spring()
                passed = (passed + data)[-OVERLAP:] if self._traps else b""
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
