"""Machinery's Signatures as Celery's and back, for those who know one vocabulary and hold the other.

``Signature.to_celery`` and ``Signature.from_celery`` are these functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.canvas import Signature as CelerySignature
from celery.canvas import chord as celery_chord
from celery.canvas import group as celery_group

from machinery_compat import arguments, errors, followers, readback
from machinery_compat.transport.base import CONTENT_TYPE, signature_to_send
from machinery_compat.wire import Signature, new_task_uuid

__all__ = ["from_celery", "to_celery"]

#: What Celery has no word for, and what says the like of it there.
UNKNOWN_TO_CELERY = {
    "retry_count": "max_retries and autoretry_for of the task",
    "retry_timeout": "retry_backoff of the task",
    "broker_message_group_id": "a Signature sent through a Server",
    "stop_task_deletion_on_error": "a Signature sent through a Server",
    "ignore_when_task_not_registered": "a Signature sent through a Server",
    "chord_callback": "celery.chord(members, callback), or a Chord sent through a Server",
}


def to_celery(signature: Signature, app: Any = None) -> CelerySignature:
    """The Celery signature of a Machinery Signature, its callbacks as ``link`` and ``link_error``.

    Sent by an application of this package it has the same UUIDs. Mind that Celery puts what a task
    returns *before* the arguments of its callback, and tells an error callback the failed task's id.

    Args:
        signature: the Signature.
        app: the Celery application; by default the current one.

    Raises:
        EncodeError: the Signature says something that Celery has no word for.
        ArgumentError: an Arg does not fit its type.
    """
    step = CelerySignature.from_dict(_step(signature), app=app)
    assert isinstance(step, CelerySignature)
    return step


def _step(signature: Signature, immutable: bool = False) -> dict[str, Any]:
    if readback.is_celerys(signature):
        return readback.as_canvas(signature)
    for name, instead in UNKNOWN_TO_CELERY.items():
        if getattr(signature, name):
            raise errors.EncodeError(f"{signature.name}: Celery's signatures cannot say {name}; use {instead}")
    args, kwargs = arguments.args_and_kwargs(signature.args or (), None)
    options: dict[str, Any] = {"task_id": signature.uuid, "priority": signature.priority}
    options["queue"] = signature.routing_key
    options["eta"] = signature.eta
    options["headers"] = dict(signature.headers or {})
    options["link"] = [_step(one, signature.immutable) for one in signature.on_success or () if one is not None]
    options["link_error"] = [_step(one) for one in signature.on_error or () if one is not None]
    return {
        "task": signature.name,
        "args": args,
        "kwargs": kwargs,
        "options": {name: value for name, value in options.items() if value},
        "subtask_type": None,
        "immutable": immutable,
    }


def from_celery(signature: Mapping[str, Any], app: Any = None) -> Signature:
    """The Machinery Signature of a task or a chain of Celery's, as an application of this package sends it.

    Args:
        signature: the task's signature, or a chain of such.
        app: the application; by default the signature's own.

    Raises:
        ConfigError: the application is not one of this package.
        EncodeError: an argument cannot be sent, or it is a group or a chord, which is more than one message.
    """
    step = CelerySignature.from_dict(signature, app=app) if type(signature) is dict else signature
    assert isinstance(step, CelerySignature)
    if isinstance(step, (celery_group, celery_chord)):
        raise errors.EncodeError(
            f"a {type(step).__name__.strip('_')} is more than one Signature: convert its tasks and "
            "make a Group or a Chord of them"
        )
    app = app or step.app
    machinery = getattr(app, "machinery", None)
    if machinery is None:
        raise errors.ConfigError("the Celery application does not speak Machinery; see machinery_compat.enable(app)")
    first, *rest = list(getattr(step, "tasks", None) or [step]) if step.get("subtask_type") == "chain" else [step]
    if first.get("subtask_type") not in followers.ONE_TASK:
        raise errors.EncodeError(f"a chain that begins with a {first['subtask_type']} is more than one Signature")
    options = {**machinery.border.options_of(first["task"]), **first["options"]}
    uuid = options.pop("task_id", None) or new_task_uuid()
    user, priority = options.pop("headers", None), options.pop("priority", None)
    if rest:
        options["chain"] = rest[::-1]
    message = app.amqp.as_task_v2(
        uuid,
        first["task"],
        first["args"],
        first["kwargs"],
        callbacks=options.pop("link", None),
        errbacks=options.pop("link_error", None),
        **options,
    )
    made = signature_to_send(
        machinery.border,
        message.body,
        {**message.headers, "headers": user or {}},
        message.properties,
        priority,
        CONTENT_TYPE,
    )
    assert made is not None
    made.routing_key = machinery.border.routing_key_of(first)
    return made
