"""Which of the tasks that were sent have ended, asked of the store of results."""

from __future__ import annotations

import re
from collections.abc import Iterable

from redis.exceptions import RedisError

from tests.fault.harness.app import OURS
from tests.fault.harness.site import Site

__all__ = ["FAILURE", "SUCCESS", "States"]

SUCCESS, FAILURE = "SUCCESS", "FAILURE"
#: A quote inside the texts before it is escaped, so that the first match is the member.
STATE = re.compile(rb'"(?:State|status)": ?"([A-Z]+)"')
CHUNK = 1000


class States:
    """The states of tasks; what has ended is not asked for again."""

    def __init__(self, site: Site, uuids: Iterable[str]) -> None:
        self.site = site
        self.prefix = "" if site.system == OURS else "celery-task-meta-"
        self.open: dict[str, str] = dict.fromkeys(uuids, "")
        self.ended: dict[str, str] = {}

    def update(self) -> int:
        """Looks once; returns how many have ended. A store that is down tells nothing."""
        uuids = list(self.open)
        client = self.site.store_client()
        try:
            for first in range(0, len(uuids), CHUNK):
                chunk = uuids[first : first + CHUNK]
                for uuid, document in zip(chunk, client.mget([self.prefix + uuid for uuid in chunk]), strict=True):
                    self._see(uuid, document)
        except (RedisError, OSError):
            pass
        finally:
            client.close()
        return len(self.ended)

    def _see(self, uuid: str, document: bytes | None) -> None:
        found = STATE.search(document or b"")
        state = found[1].decode() if found else ""
        if state in (SUCCESS, FAILURE):
            self.ended[uuid] = state
            del self.open[uuid]
        else:
            self.open[uuid] = state
