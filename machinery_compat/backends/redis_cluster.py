"""Machinery's Redis result backend on a cluster, where each document has a slot of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machinery_compat.backends.frontier import Frontier
from machinery_compat.backends.redis import PIPELINE, RedisBackend
from machinery_compat.redis_client import Servers, lua
from machinery_compat.wire import TaskState

__all__ = ["ClusterBackend", "backend"]


class ClusterBackend(Frontier, RedisBackend):
    """Results on a Redis Cluster. URL: a list of some of its servers, or one and ``redis.cluster_enabled``."""

    def task_states(self, uuids: Sequence[str]) -> list[TaskState | None]:
        documents = self.client.mget_nonatomic(uuids) if uuids else []
        return [
            self.decode_state(uuid, data) if data is not None else None
            for uuid, data in zip(uuids, documents, strict=True)
        ]

    def update_states(self, states: Sequence[TaskState], only_over: str = "", run: int | None = None) -> Sequence[bool]:
        if len(states) == 1:
            return super().update_states(states, only_over, run)
        written: list[bool] = []
        for first in range(0, len(states), PIPELINE):
            with self.client.pipeline() as pipe:
                for state in states[first : first + PIPELINE]:
                    script = lua("store_state")
                    pipe.execute_command("EVAL", script, 1, state.task_uuid, *self._pieces(state, only_over, run))
                written += map(bool, pipe.execute())
        return written

    def _same_server(self, server: str) -> bool:
        # The message must not arrive before its state, and a cluster has no order.
        return False

    def add_member(self, uuid: str, member: str, described: str) -> None:
        # Without the list of members that a script on one server shortens.
        with self.group_lock():
            self.grow(uuid, member, described)


def backend(app: Any, url: str, **kwargs: Any) -> RedisBackend:
    """The result backend of a Redis URL."""
    servers = Servers.of(app.machinery.config.redis_settings, app.conf.result_backend_transport_options)
    kind = ClusterBackend if servers.are_cluster_at(url) else RedisBackend
    return kind(app=app, url=url, **kwargs)
