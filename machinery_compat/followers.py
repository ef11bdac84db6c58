"""What Celery sends after a task (``link``, ``link_error``, the rest of a ``chain``, a chord's body) as Machinery's.

Celery keeps what follows in the message's body and lets the worker that ran the task send it. A Go
worker reads no such thing. So everything that follows goes as nested Signatures (OnSuccess, OnError,
ChordCallback), which a worker of either language sends.

Machinery appends the results of a task to the arguments of its follower, Celery puts them first.
The header of a follower says how many Args are its own, so that a Python worker puts the rest in
front; a Go task gets them where every Go task gets them.

What a nested Signature cannot say (a group as a step, a countdown…) is carried by a task of this
package, ``machinery_compat.go_on``, which goes on with it in Celery's own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from kombu.utils.uuid import uuid as new_uuid

from machinery_compat import arguments, canvas, celery_header, errors
from machinery_compat.celery_header import HEADER
from machinery_compat.wire import Signature, outgoing

__all__ = [
    "GO_ON",
    "MEMBERS",
    "STEP_FAILED",
    "Maker",
    "about_of",
    "as_canvas",
    "continuation",
    "is_celerys",
    "is_errback",
    "mark_sent",
    "split",
    "taken_back",
]

#: The task that carries what a nested Signature cannot say.
GO_ON = "machinery_compat.go_on"
#: The task that a Go worker sends when a step of a chain has failed whose last step is a member of a chord.
STEP_FAILED = "machinery_compat.step_failed"
#: The option of a chord's body that names its group: UUID, number of members, whether they are nested.
MEMBERS = "machinery_members"

#: The options of a step that a nested Signature can say.
SAID = frozenset(
    {
        *("task_id", "root_id", "parent_id", "group_id", "group_index", "chord", "chain", "link", "link_error"),
        *("queue", "priority", "eta", "expires", "time_limit", "soft_time_limit", "shadow", "headers"),
        *("ignore_result", "reply_to", "replaced_task_nesting", "stamped_headers", MEMBERS),
    }
)
#: The options that concern the sending process only, or have one value here.
SILENT = frozenset(
    {
        *("serializer", "compression", "delivery_mode", "immediate", "mandatory", "retry", "retry_policy"),
        *("add_to_parent", "producer", "connection"),
    }
)
#: Celery's kinds of steps that are one task.
ONE_TASK = (None, "xmap", "xstarmap")

Step = Mapping[str, Any]


class _NotPlain(Exception):
    """A step needs more than a nested Signature can say."""


def split(embed: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a message's followers can go as Signatures, and what must go in Celery's own way.

    The latter is a chord whose group is not in a result backend of this package.
    """
    native = {name: value for name, value in embed.items() if value}
    chord = native.get("chord")
    if chord and not _has_members(chord):
        return {name: value for name, value in native.items() if name != "chord"}, {"chord": chord}
    return native, {}


def _has_members(chord: Step) -> bool:
    return MEMBERS in (chord.get("options") or {})


class Maker:
    """Makes the followers of one message.

    Args:
        parameters_of: the parameters of a task of this process, None for any other name.
        options_of: the options that a task of this process has by itself.
        routing_key_of: where a step is sent.
        root_id: the id of the first task of the workflow.
        strict: whether a step's arguments must be of Machinery's types.
        ignores_result: whether a task of this process drops its results unless a call says otherwise.
    """

    def __init__(
        self,
        parameters_of: Callable[[str], arguments.Parameters | None],
        options_of: Callable[[str], Mapping[str, Any]],
        routing_key_of: Callable[[Step], str],
        root_id: str,
        strict: bool = False,
        ignores_result: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.parameters_of = parameters_of
        self.options_of = options_of
        self.routing_key_of = routing_key_of
        self.root_id = root_id
        self.strict = strict
        self.ignores_result = ignores_result

    def attach(self, signature: Signature, embed: Mapping[str, Any]) -> None:
        """Gives a Signature what follows it.

        Args:
            signature: the task; what follows it already stays.
            embed: callbacks, errbacks, chain (the last step first) and chord of message protocol 2.

        Raises:
            EncodeError: an argument cannot be sent.
        """
        chord = embed.get("chord")
        self._attach(signature, embed.get("callbacks"), embed.get("chain"), embed.get("errbacks"))
        if chord:
            self._join_chord(signature, chord)

    def body(self, chord: Step) -> Signature:
        """The ChordCallback of a chord's body.

        Raises:
            EncodeError: an argument cannot be sent.
        """
        about = {"pack": list(chord["options"][MEMBERS])}
        rest = _steps(chord["options"].get("chain"))
        return self._follower(chord, rest, None, about, passes=not chord.get("immutable"))

    def _join_chord(self, signature: Signature, chord: Step) -> None:
        signature.group_uuid, signature.group_task_count = chord["options"][MEMBERS][:2]
        signature.chord_callback = self.body(chord)

    def _attach(
        self,
        signature: Signature,
        callbacks: Any,
        chain: Any,
        errbacks: Any,
        passes: bool | None = None,
    ) -> None:
        steps: list[tuple[Step, Sequence[Step]]] = [
            (callback, _steps((callback.get("options") or {}).get("chain"))) for callback in _steps(callbacks)
        ]
        chain = _steps(chain)
        if chain:
            steps.append((chain[-1], chain[:-1]))
        if steps:
            alone = [bool(step.get("immutable")) for step, _ in steps]
            if passes is None:
                passes = not all(alone)
            if not passes and not all(alone):
                # Machinery says for all at once whether they get the results.
                raise _NotPlain
            made = [
                self._go_on(step, rest, signature.uuid, {})
                if passes and is_alone
                else self._follower(step, rest, signature.uuid, {})
                for (step, rest), is_alone in zip(steps, alone, strict=True)
            ]
            signature.on_success = [*(signature.on_success or ()), *made]
        if passes is not None:
            signature.immutable = not passes
        if chain:
            self._report_failure(signature, chain[0])
        if errbacks:
            made = [self._follower(step, (), signature.uuid, {"errback": True}) for step in _steps(errbacks)]
            signature.on_error = [*(signature.on_error or ()), *made]

    def _report_failure(self, signature: Signature, last: Step) -> None:
        """Lets a Go worker that fails here tell the chord whose member the chain's last step is.

        A Python worker fails the steps after the failed one itself.
        """
        options = last.get("options") or {}
        chord = options.get("chord")
        if not chord or not _has_members(chord) or self.parameters_of(signature.name) is not None:
            return
        report = Signature(uuid=new_uuid(), name=STEP_FAILED, args=[arguments.arg_of(options["task_id"])])
        report.headers = {HEADER: arguments.json_text({"ignore_result": True}, "the report of a failure")}
        self._join_chord(report, chord)
        signature.on_error = [*(signature.on_error or ()), report]

    def _follower(
        self,
        step: Step,
        rest: Sequence[Step],
        parent_id: str | None,
        about: dict[str, Any],
        passes: bool | None = None,
    ) -> Signature:
        try:
            return self._plain(step, rest, parent_id, about, passes)
        except _NotPlain:
            return self._go_on(step, rest, parent_id, about)

    def _plain(
        self,
        step: Step,
        rest: Sequence[Step],
        parent_id: str | None,
        about: dict[str, Any],
        passes: bool | None,
    ) -> Signature:
        name = step["task"]
        options = _said({**self.options_of(name), **(step.get("options") or {})})
        if step.get("subtask_type") not in ONE_TASK:
            raise _NotPlain
        if "chord" in options and not _has_members(options["chord"]):
            raise _NotPlain
        stamped = options.get("stamped_headers") or ()
        if set(options) - SAID - set(stamped) or isinstance(options.get("expires"), (int, float)):
            # Such a time counts from when the step is sent.
            raise _NotPlain
        signature = Signature(uuid=options.get("task_id") or new_uuid(), name=name)
        parameters = self.parameters_of(name)
        # What is passed on stands before its own.
        first = 0 if step.get("immutable") else 1
        args, kwargs = step.get("args") or (), step.get("kwargs") or {}
        signature.args = arguments.args_of(args, kwargs, parameters, first=first, strict=self.strict)
        signature.routing_key = self.routing_key_of({**step, "options": options})
        signature.priority = canvas.priority_of(options.get("priority"))
        canvas.set_eta(signature, options.get("eta"))
        self._attach(signature, options.get("link"), rest, options.get("link_error"), passes)
        chord = options.get("chord")
        if chord:
            self._join_chord(signature, chord)
        about = {"own": len(signature.args), **about, **_about(options, signature), "root_id": self.root_id}
        if options.get("ignore_result") is False and self.ignores_result(name):
            about["ignore_result"] = False
        if parent_id:
            about["parent_id"] = parent_id
        if step.get("immutable"):
            about["alone"] = True
        user = options.get("headers") or {}
        plain = {key: value for key, value in user.items() if outgoing.is_header(key, value) and key != HEADER}
        if len(plain) < len(user):
            about["headers"] = {key: value for key, value in user.items() if key not in plain}
        signature.headers = {**plain, HEADER: arguments.json_text(about, f"task {name}")}
        return signature

    def _go_on(self, step: Step, rest: Sequence[Step], parent_id: str | None, about: dict[str, Any]) -> Signature:
        signature = Signature(uuid=new_uuid(), name=GO_ON)
        signature.args = [arguments.arg_of(dict(step)), arguments.arg_of([dict(one) for one in rest])]
        about = {"own": 2, **about, "root_id": self.root_id, "ignore_result": True}
        if parent_id:
            about["parent_id"] = parent_id
        signature.headers = {HEADER: arguments.json_text(about, f"the step {step.get('task')}")}
        return signature


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in options.items()
        if name not in SILENT and value is not None and value != [] and value != () and value != {}
    }


def _steps(steps: Any) -> list[Step]:
    if not steps:
        return []
    return [steps] if isinstance(steps, Mapping) else list(steps)


def _about(options: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    """What the header of a follower says of a step's options."""
    about = {
        name: options[name]
        for name in ("shadow", "reply_to", "replaced_task_nesting", "group_index")
        if name in options
    }
    if options.get("ignore_result"):
        about["ignore_result"] = True
    if options.get("group_id") not in (None, signature.group_uuid):
        about["group"] = options["group_id"]
    if "expires" in options:
        expires = options["expires"]
        about["expires"] = expires if isinstance(expires, str) else expires.isoformat()
    if "time_limit" in options or "soft_time_limit" in options:
        about["timelimit"] = [options.get("time_limit"), options.get("soft_time_limit")]
    stamped = options.get("stamped_headers")
    if stamped:
        about["stamped_headers"] = sorted(stamped)
        about["stamps"] = {name: options[name] for name in stamped if name in options}
    return about


# -- the way back


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
        "options": _said(options),
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
