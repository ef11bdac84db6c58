"""The way back of what `followers` makes: nested Signatures as the steps of a Celery canvas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from machinery_compat import arguments, celery_header, errors
from machinery_compat.celery_header import HEADER
from machinery_compat.followers import GO_ON, MEMBERS, said
from machinery_compat.wire import Signature

__all__ = [
    "about_of",
    "as_canvas",
    "continuation",
    "is_celerys",
    "is_errback",
    "mark_sent",
    "taken_back",
]


def is_celerys(follower: Signature | None) -> TypeGuard[Signature]:
    """Whether a follower was made of a step of a Celery canvas."""
    return follower is not None and HEADER in (follower.headers or {})


def is_errback(follower: Signature | None) -> TypeGuard[Signature]:
    """Whether a follower was made of a ``link_error``."""
    return is_celerys(follower) and bool(about_of(follower).get("errback"))


def about_of(follower: Signature) -> Mapping[str, Any]:
    """What the header of a follower says.

    Raises:
        DecodeError: it is not the JSON object it should be.
    """
    return celery_header.read(follower.headers or {})[1]


def mark_sent(callback: Signature, parent_id: str) -> None:
    """Says in a chord's body that a Python worker sends it, and so its results with their marks.

    Args:
        callback: the body.
        parent_id: the member that has ended last; empty where nobody knows.
    """
    if is_celerys(callback):
        about = about_of(callback)
        if about.get("pack"):
            told = {"exact": True, **({"parent_id": parent_id} if parent_id else {})}
            text = arguments.json_text({**about, **told}, f"task {callback.name}")
            callback.headers = {**(callback.headers or {}), HEADER: text}


def continuation(follower: Signature) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """The step that a follower carries and the steps after that (the last one first); None for any other.

    Raises:
        DecodeError: it carries none.
    """
    if follower.name != GO_ON:
        return None
    about = about_of(follower)
    given = follower.args or []
    own = about.get("own") or 0
    args, _ = arguments.args_and_kwargs(given[len(given) - own :] if about.get("errback") else given[:own], None)
    if len(args) != 2 or not isinstance(args[0], dict) or not isinstance(args[1], list):
        raise errors.DecodeError(f"a task {GO_ON} carries a step and a list of steps")
    return args[0], args[1]


def as_canvas(follower: Signature) -> dict[str, Any]:
    """The step of a Celery canvas that a follower was made of, with what follows it.

    Raises:
        DecodeError: its header or an argument is not what this package writes.
    """
    user, about = celery_header.read(follower.headers or {})
    carried = continuation(follower)
    if carried is not None:
        step = dict(carried[0])
        step["options"] = {**(step.get("options") or {}), **_members(about)}
        if carried[1]:
            step["options"]["chain"] = carried[1]
        return step
    args, kwargs = arguments.args_and_kwargs(follower.args or (), about.get("own"))
    options: dict[str, Any] = {"task_id": follower.uuid, "headers": user, **_members(about)}
    if follower.priority:
        options["priority"] = follower.priority
    if follower.routing_key:
        options["queue"] = follower.routing_key
    if follower.eta:
        options["eta"] = follower.eta
    for name in ("shadow", "reply_to", "replaced_task_nesting", "group_index", "expires", "ignore_result"):
        if name in about:
            options[name] = about[name]
    options["time_limit"], options["soft_time_limit"] = about.get("timelimit") or (None, None)
    options.update({"stamped_headers": about["stamped_headers"], **about["stamps"]} if about.get("stamps") else {})
    group_id = about.get("group") or follower.group_uuid
    if group_id:
        options["group_id"] = group_id
    options["link"] = [as_canvas(one) for one in follower.on_success or () if is_celerys(one)]
    options["link_error"] = [as_canvas(one) for one in follower.on_error or () if is_errback(one)]
    if is_celerys(follower.chord_callback):
        options["chord"] = as_canvas(follower.chord_callback)
    return {
        "task": follower.name,
        "args": args,
        "kwargs": kwargs,
        "options": said(options),
        "subtask_type": None,
        "immutable": bool(about.get("alone")),
    }


def taken_back(signature: Signature) -> dict[str, Any]:
    """Takes from a Signature what was made of a Celery workflow; returns it in the terms of Celery's request.

    Raises:
        DecodeError: a follower's header or an argument is not what this package writes.
    """
    made: dict[str, Any] = {"callbacks": [], "errbacks": [], "chain": None, "chord": None}
    for follower in filter(is_celerys, signature.on_success or ()):
        carried = continuation(follower)
        if carried is not None and not made["chain"]:
            made["chain"] = [*carried[1], carried[0]]
        else:
            made["callbacks"].append(as_canvas(follower))
    made["errbacks"] = [as_canvas(one) for one in signature.on_error or () if is_errback(one)]
    if made["callbacks"] or made["chain"]:
        signature.on_success = [one for one in signature.on_success or () if not is_celerys(one)]
        signature.immutable = False
    if signature.on_error:
        signature.on_error = [one for one in signature.on_error or () if not is_celerys(one)]
    if is_celerys(signature.chord_callback):
        made["chord"] = as_canvas(signature.chord_callback)
        signature.chord_callback, signature.group_uuid, signature.group_task_count = None, "", 0
    return {name: value for name, value in made.items() if value}


def _members(about: Mapping[str, Any]) -> dict[str, Any]:
    return {MEMBERS: about["pack"]} if about.get("pack") else {}
