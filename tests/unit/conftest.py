"""Fixtures of the unit tests: an eager Server and what its tasks were called with."""

from __future__ import annotations

from typing import Any

import pytest

from machinery_compat import Celery, Server
from tests.support.eager import eager_server


@pytest.fixture
def server() -> Server:
    return eager_server()


@pytest.fixture
def app(server: Server) -> Celery:
    return server.app


@pytest.fixture
def calls(server: Server) -> list[tuple[Any, ...]]:
    """What the task `note` was called with."""
    found: list[tuple[Any, ...]] = []

    def note(*args: Any) -> None:
        found.append(args)

    server.register_task("note", note)
    return found
