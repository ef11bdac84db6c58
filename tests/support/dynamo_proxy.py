"""A DynamoDB that answers a batch in part, as a busy one does: in front of a server that never is."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BusyDynamoDB"]

OPERATION = "X-Amz-Target"
#: What goes on from either side; the length is another one after the change, and so is the checksum.
DROPPED = {"content-length", "connection", "transfer-encoding", "x-amz-crc32", "date", "server"}


class BusyDynamoDB:
    """Of each BatchGetItem that asks for several keys it leaves the last one unprocessed.

    Args:
        endpoint: the URL of the server that has the tables.
    """

    def __init__(self, endpoint: str) -> None:
        #: How many requests it has answered in part.
        self.answered_in_part = 0
        outer, address = self, urlsplit(endpoint).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                connection = HTTPConnection(address)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}
                connection.request("POST", self.path, body, headers)
                response = connection.getresponse()
                answer = response.read()
                is_batch = self.headers[OPERATION].endswith(".BatchGetItem")
                if is_batch and response.status == 200:
                    answer = outer.in_part(json.loads(body), json.loads(answer))
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in DROPPED:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                connection.close()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def in_part(self, request: dict[str, Any], answer: dict[str, Any]) -> bytes:
        for table, asked in request["RequestItems"].items():
            *_, left = keys = asked["Keys"]
            if len(keys) > 1:
                ((name, value),) = left.items()
                found = answer["Responses"][table]
                answer["Responses"][table] = [item for item in found if item[name] != value]
                answer["UnprocessedKeys"] = {table: {**asked, "Keys": [left]}}
                self.answered_in_part += 1
        return json.dumps(answer).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
