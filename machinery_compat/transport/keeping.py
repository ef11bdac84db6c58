"""What a channel does with delivered messages when it is closed, where the broker does not do it by itself."""

from __future__ import annotations

from typing import Any

from kombu.transport import virtual

__all__ = ["KeepingQoS"]


class KeepingQoS(virtual.QoS):  # type: ignore[misc]
    """Gives back what was delivered and not finished, except what is kept."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        #: The tags of messages that this worker goes on to hold: their tasks are running.
        self.kept: set[str] = set()

    def give_back(self, message: Any) -> None:
        """Lets others have a message that is no longer delivered here."""
        raise NotImplementedError

    def restore_unacked_once(self, stderr: Any = None) -> None:
        self._on_collect.cancel()
        self.restore_unacked()

    def restore_unacked(self) -> list[Any]:
        """Gives back what was delivered and not finished."""
        self._flush()
        for tag in [tag for tag in self._delivered if tag not in self.kept]:
            self.give_back(self._delivered.pop(tag))
        return []
