"""A Server without servers, and what its tests look at."""

from __future__ import annotations

from machinery_compat import Config, Server, TaskState

__all__ = ["add", "eager_server", "fail", "history"]


def add(*numbers: int) -> int:
    return sum(numbers)


def fail(text: str = "boom") -> None:
    raise ValueError(text)


class History(dict[str, bytes]):
    """The documents of the eager backend, with each state that was written in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[tuple[str, str]] = []

    def __setitem__(self, uuid: str, data: bytes) -> None:
        super().__setitem__(uuid, data)
        if data.startswith(b'{"TaskUUID"'):
            self.states.append((uuid, TaskState.decode(data).state))

    def of(self, uuid: str) -> list[str]:
        return [state for one, state in self.states if one == uuid]


def eager_server() -> Server:
    server = Server(Config(broker="eager", result_backend="eager"))
    server.app.machinery.documents = History()
    server.register_tasks({"add": add, "fail": fail})
    return server


def history(server: Server, uuid: str) -> list[str]:
    """The states of a task, in the order in which they were written."""
    found: list[str] = server.app.machinery.documents.of(uuid)
    return found
