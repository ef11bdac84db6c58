"""Signatures and how they are put together: single tasks, chains, groups and chords.

What a Signature is and how it becomes bytes stands in `message`; this is the module to import from.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from uuid import uuid4

from machinery_compat.wire.message import Arg, Signature

__all__ = ["Arg", "Chain", "Chord", "Group", "Signature", "new_group_uuid", "new_signature", "new_task_uuid"]


def new_task_uuid() -> str:
    """Return a fresh UUID for a task, in Machinery's form."""
    return f"task_{uuid4()}"


def new_group_uuid() -> str:
    """Return a fresh UUID for a group, in Machinery's form."""
    return f"group_{uuid4()}"


def new_signature(name: str, *args: Any, **fields: Any) -> Signature:
    """Make a signature with its UUID filled, like Go's ``tasks.NewSignature``.

    Args:
        name: the name under which the task is registered.
        args: the task's arguments; an Arg stays as it is, the type of anything else is inferred.
        fields: any other field of Signature; `eta` may be a datetime.

    Raises:
        EncodeError: Machinery has no type for an argument.
    """
    eta = fields.pop("eta", None)
    fields.setdefault("uuid", new_task_uuid())
    signature = Signature(name=name, args=[arg if isinstance(arg, Arg) else Arg.infer(arg) for arg in args], **fields)
    signature.set_eta(eta)
    return signature


def _fill_uuids(signatures: tuple[Signature, ...]) -> None:
    for signature in signatures:
        if not signature.uuid:
            signature.uuid = new_task_uuid()


class Chain:
    """Tasks that run one after another; each one's results are appended to the next one's Args.

    Attributes:
        tasks: the signatures in order. Only the first is sent; the others travel nested in its OnSuccess.
    """

    __slots__ = ("tasks",)

    def __init__(self, *signatures: Signature) -> None:
        """Fill missing UUIDs and link each signature to the next, in place of any OnSuccess it had."""
        _fill_uuids(signatures)
        for signature, following in pairwise(signatures):
            signature.on_success = [following]
        self.tasks = list(signatures)


class Group:
    """Tasks that run side by side and know of each other by one GroupUUID.

    Attributes:
        group_uuid: the fresh UUID of the group.
        tasks: the signatures in order.
    """

    __slots__ = ("group_uuid", "tasks")

    def __init__(self, *signatures: Signature) -> None:
        """Fill missing UUIDs and set every signature's GroupUUID and GroupTaskCount."""
        _fill_uuids(signatures)
        self.group_uuid = new_group_uuid()
        self.tasks = list(signatures)
        for signature in signatures:
            signature.group_uuid = self.group_uuid
            signature.group_task_count = len(signatures)

    def get_uuids(self) -> list[str]:
        """Return the UUIDs of the tasks, in order."""
        return [signature.uuid for signature in self.tasks]


class Chord:
    """A group with a callback that runs once, when all members have succeeded.

    Attributes:
        group: the group.
        callback: the callback; every member carries a full copy of it.
    """

    __slots__ = ("callback", "group")

    def __init__(self, group: Group, callback: Signature) -> None:
        """Fill the callback's UUID if it has none and give each member its own copy."""
        if not callback.uuid:
            callback.uuid = f"chord_{uuid4()}"
        self.group = group
        self.callback = callback
        for signature in group.tasks:
            signature.chord_callback = callback.copy()
