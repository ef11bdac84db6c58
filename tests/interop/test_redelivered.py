"""A message that a Python worker's death has marked is as good as any other to Go."""

from __future__ import annotations

import pytest

from machinery_compat import AsyncResult, new_signature
from machinery_compat.transport.base import redelivered
from tests.interop.conftest import FLAVORS, REDIS_FLAVORS, Fleet

pytestmark = pytest.mark.go


@pytest.mark.parametrize("fleet", FLAVORS[: len(REDIS_FLAVORS)], indirect=True)
def test_go_runs_a_message_that_was_put_back(fleet: Fleet) -> None:
    fleet.go()
    signature = new_signature("go_add", 2, 3)
    signature.routing_key = fleet.names.queue
    later = new_signature("go_add", 3, 4)
    later.routing_key = fleet.names.queue
    client = fleet.server.backend.client

    client.rpush(fleet.names.queue, redelivered(signature.encode(), 3))
    client.zadd("delayed_tasks", {redelivered(later.encode()): 1})

    for sent, result in ((signature, 5), (later, 7)):
        assert AsyncResult(sent, fleet.server.backend).get_with_timeout(10, 0.01) == [result]
