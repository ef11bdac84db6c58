"""Looks at the end of a group's member once, for stores whose server can run no script.

Go reads all states of a group after each member, which makes a chord of N members cost N * N
reads. A task that has ended stays so: what this process has seen to have ended it does not read
again, and it stops at the first member that has not.
"""

from __future__ import annotations

from typing import Any

from machinery_compat.backends.store import Store
from machinery_compat.wire import FAILURE, SUCCESS

__all__ = ["Frontier"]

#: How many groups are remembered; of one that is forgotten all states are read again.
GROUPS = 500
#: How many states are read at first; each further look reads twice as many.
FIRST_LOOK = 32


class Frontier(Store):
    """Checks groups member by member; goes before the backend in the order of the base classes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: A group and when it was made, since it may be sent again -> its members that were seen to have ended.
        self._ended: dict[tuple[str, str], set[str]] = {}

    def group_completed(self, uuid: str, count: int) -> bool:
        # Read each time, since a group may grow.
        meta = self.known_group(uuid)
        ended = self._ended.setdefault((uuid, meta.created_at), set())
        if len(self._ended) > GROUPS:
            self._ended.pop(next(iter(self._ended)), None)
        left = [member for member in meta.task_uuids or () if member not in ended]
        first, size = 0, FIRST_LOOK
        while first < len(left):
            look = left[first : first + size]
            for member, state in zip(look, self.task_states(look), strict=True):
                if state is None:
                    raise self.member_missing(uuid, member)
                if state.state not in (SUCCESS, FAILURE):
                    return False
                ended.add(member)
            first, size = first + size, size * 2
        return True
