"""What Celery sends after a task (``link``, the rest of a ``chain``) as Machinery's OnSuccess.

Celery's own way keeps working between Python workers: the followers travel in the header ``celery``
and whoever runs the task sends them. A Go worker reads no such header. So where a step is not one
of this process's own tasks, and may be Go's, the followers go as nested Signatures, which a worker
of either language sends.

Machinery appends the results of a task to the arguments of its follower, Celery puts them first.
The header of a follower says how many Args are its own, so that a Python worker puts the rest in
front; a Go task gets them where every Go task gets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from kombu.utils.uuid import uuid as new_uuid

from machinery_compat import canvas, celery_header
from machinery_compat.celery_header import HEADER
from machinery_compat.wire import Signature

__all__ = ["as_canvas", "is_celerys", "natively"]

#: The options of a step that a nested Signature can say, or that say nothing of the step itself.
PLAIN_OPTIONS = frozenset({"task_id", "reply_to", "root_id", "parent_id", "queue", "priority", "link"})

Step = Mapping[str, Any]


class _NotPlain(Exception):
    """A step needs more than a nested Signature can say."""


def natively(
    embed: Mapping[str, Any],
    headers: Mapping[str, Any],
    parameters_of: Callable[[str], canvas.Parameters | None],
    routing_key_of: Callable[[Step], str],
) -> tuple[list[Signature], bool] | None:
    """The followers of a task as Signatures, and whether the task is Immutable: passes nothing on.

    Args:
        embed: callbacks, errbacks, chain and chord of message protocol 2.
        headers: the message's headers.
        parameters_of: the parameters of a task of this process, None for any other name.
        routing_key_of: where a step is sent.

    Returns:
        None where Celery's own way is the right one.
    """
    callbacks, chain = embed.get("callbacks") or [], embed.get("chain") or []
    if not (callbacks or chain) or embed.get("errbacks") or embed.get("chord"):
        return None
    if all(parameters_of(name) for name in (headers["task"], *_names([*callbacks, *chain]))):
        return None
    maker = _Maker(parameters_of, routing_key_of, headers.get("root_id") or headers["id"])
    try:
        return maker.followers(callbacks, chain, headers["id"])
    except _NotPlain:
        return None


def as_canvas(follower: Signature) -> dict[str, Any]:
    """The step of a Celery canvas that a follower was made of, its own followers as links."""
    _, about = celery_header.read(follower.headers or {})
    args, kwargs = canvas.arguments(follower.args or (), about.get("own"))
    options: dict[str, Any] = {"task_id": follower.uuid, "priority": follower.priority}
    if follower.routing_key:
        options["queue"] = follower.routing_key
    links = [as_canvas(one) for one in follower.on_success or () if is_celerys(one)]
    if links:
        options["link"] = links
    return {
        "task": follower.name,
        "args": args,
        "kwargs": kwargs,
        "options": options,
        "subtask_type": None,
        "immutable": bool(about.get("alone")),
    }


def is_celerys(follower: Signature | None) -> TypeGuard[Signature]:
    """Whether a follower was made of a step of a Celery canvas."""
    return follower is not None and HEADER in (follower.headers or {})


def _names(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        yield step["task"]
        yield from _names(_links(step))


def _links(step: Step) -> list[Step]:
    links = (step.get("options") or {}).get("link") or []
    return list(links) if isinstance(links, (list, tuple)) else [links]


class _Maker:
    """Makes the followers of one message.

    Args:
        parameters_of: see :func:`natively`.
        routing_key_of: see :func:`natively`.
        root_id: the id of the first task of the workflow.
    """

    def __init__(
        self,
        parameters_of: Callable[[str], canvas.Parameters | None],
        routing_key_of: Callable[[Step], str],
        root_id: str,
    ) -> None:
        self.parameters_of = parameters_of
        self.routing_key_of = routing_key_of
        self.root_id = root_id

    def followers(
        self, callbacks: Sequence[Step], chain: Sequence[Step], parent_id: str
    ) -> tuple[list[Signature], bool]:
        """The callbacks and the next step of the chain, of which Celery keeps the last one first."""
        steps: list[tuple[Step, Sequence[Step]]] = [(callback, ()) for callback in callbacks]
        if chain:
            steps.append((chain[-1], chain[:-1]))
        kinds = {bool(step.get("immutable")) for step, _ in steps}
        if len(kinds) > 1:
            # Machinery says for all followers at once whether they get the results.
            raise _NotPlain
        return [self._follower(step, rest, parent_id) for step, rest in steps], kinds == {True}

    def _follower(self, step: Step, rest: Sequence[Step], parent_id: str) -> Signature:
        options = {name: value for name, value in (step.get("options") or {}).items() if value not in (None, [], ())}
        if step.get("subtask_type") or set(options) - PLAIN_OPTIONS:
            raise _NotPlain
        name = step["task"]
        signature = Signature(uuid=options.get("task_id") or new_uuid(), name=name)
        signature.args = self._args(step)
        signature.routing_key = self.routing_key_of(step)
        signature.priority = int(options.get("priority") or 0)
        links = _links(step)
        if links or rest:
            made, signature.immutable = self.followers(links, rest, signature.uuid)
            signature.on_success = list(made)
        about = {"own": len(signature.args), "parent_id": parent_id, "root_id": self.root_id}
        if step.get("immutable"):
            about["alone"] = True
        signature.headers = {HEADER: canvas.json_text(about, f"task {name}")}
        return signature

    def _args(self, step: Step) -> list[Any]:
        parameters = self.parameters_of(step["task"])
        # What is passed on stands before them.
        first = 0 if step.get("immutable") else 1
        args = [
            canvas.arg_of(value, parameters.type_at(index) if parameters else None)
            for index, value in enumerate(step.get("args") or (), first)
        ]
        for name, value in (step.get("kwargs") or {}).items():
            args.append(canvas.arg_of(value, keyword=name))
        return args
