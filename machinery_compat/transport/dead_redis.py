"""Dead messages on Redis: the list ``<queue>:dead``."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from machinery_compat.redis_client import lua
from machinery_compat.transport import border, dead, payloads

if TYPE_CHECKING:
    import redis

__all__ = ["RedisDeadLetters"]

#: How many entries are read at once; each may be as large as a message.
PAGE = 20


class RedisDeadLetters(dead.DeadLetters):
    """Mixed into the Redis channel."""

    border: border.Border

    if TYPE_CHECKING:

        @property
        def commands(self) -> redis.Redis: ...

        @property
        def url(self) -> str: ...

    def dead_entries(self, queue: str) -> Iterator[dead.DeadEntry]:
        name, first = payloads.dead_queue(queue), 0
        while page := self.commands.lrange(name, first, first + PAGE - 1):
            for number, entry in enumerate(page, first + 1):
                yield dead.DeadEntry.parse(number, entry, queue)
            first += PAGE

    def requeue_dead(self, queue: str, numbers: Collection[int] | None = None, force: bool = False) -> dead.Requeued:
        outcome = dead.Requeued()
        for entry in dead.chosen(self.dead_entries(queue), numbers, queue):
            signature = entry.signature
            if signature is None and not force:
                outcome.unreadable.append(entry)
                continue
            state: list[Any] = []
            if signature is not None:
                # Where the results are elsewhere this writes the state itself.
                self.border.before_publish(signature, self.url, lambda _, *command: state.extend(command))  # noqa: B023
            moved = self._requeue(queue, entry, state)
            (outcome.moved if moved else outcome.gone).append(entry)
        return outcome

    def _requeue(self, queue: str, entry: dead.DeadEntry, state: list[Any]) -> bool:
        """Moves an entry to its queue, with the command that writes its state; False when it is gone."""
        name = payloads.dead_queue(queue)
        return bool(self.commands.eval(lua("requeue_dead"), 2, name, queue, entry.entry, entry.fresh, *state))

    def purge_dead(self, queue: str, numbers: Collection[int] | None = None) -> int:
        name = payloads.dead_queue(queue)
        if numbers is None:
            size, _ = self.commands.pipeline().llen(name).delete(name).execute()
            return int(size)
        entries = dead.chosen(self.dead_entries(queue), numbers, queue)
        with self.commands.pipeline() as pipe:
            for entry in entries:
                pipe.lrem(name, 1, entry.entry)
            return sum(map(int, pipe.execute()))
