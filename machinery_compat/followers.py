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
from typing import Any

from kombu.utils.uuid import uuid as new_uuid

from machinery_compat import arguments, canvas
from machinery_compat.celery_header import HEADER
from machinery_compat.wire import Signature, outgoing

__all__ = [
    "GO_ON",
    "MEMBERS",
    "ONE_TASK",
    "STEP_FAILED",
    "Maker",
    "said",
    "split",
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
        options = said({**self.options_of(name), **(step.get("options") or {})})
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


def said(options: Mapping[str, Any]) -> dict[str, Any]:
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
