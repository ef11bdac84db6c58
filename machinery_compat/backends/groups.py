"""Groups and chords in a store, and what becomes of a workflow when a step of it has failed."""

from __future__ import annotations

from functools import partial
from typing import Any

from celery.exceptions import ChordError
from celery.result import GroupResult, result_from_tuple
from kombu.utils import json as kombu_json

from machinery_compat import canvas, errors
from machinery_compat.backends.reading import UNREADABLE, ReadingBackend
from machinery_compat.followers import MEMBERS
from machinery_compat.readback import continuation, is_celerys
from machinery_compat.wire import FAILURE, GroupMeta, Signature, TaskState, now_text

__all__ = ["GroupBackend"]

#: Seconds between two looks at a chord, unless ``machinery_chord_watch_interval`` says otherwise.
WATCH_INTERVAL = 30.0


class GroupBackend(ReadingBackend):
    """What a Celery result backend does for workflows."""

    # -- failures

    def fail_unrunnable(self, signature: Signature, error: str) -> None:
        """Fails a task that cannot be started at all; Go does so when its arguments do not convert."""
        state = TaskState(task_uuid=signature.uuid, state=FAILURE, error=error)
        workflow = self.app.machinery.workflow
        workflow.patiently(partial(self.update_states, [state]), f"the end of {signature.uuid} cannot be stored")
        exc = errors.TaskError(error)
        self._fail_followers(signature, exc, None)
        workflow.failed(signature, error, exc)

    def fail_chord(self, callback: Signature, member: TaskState) -> None:
        """Fails the callback of a chord of which a member has failed: somebody may wait for it.

        Args:
            callback: the callback; of a Machinery chord its error is the member's.
            member: the first failed member of the group.
        """
        if not is_celerys(callback):
            self.fail_unrunnable(callback, member.error)
            return
        cause = self.meta_of(member.task_uuid, member)["result"]
        exc = ChordError(f"Dependency {member.task_uuid} raised {cause!r}")
        exc.__cause__ = cause
        self.fail_step(callback, exc, errbacks=True)

    def fail_step(self, step: Signature, exc: Any, traceback: Any = None, errbacks: bool = False) -> None:
        """Fails a step of a Celery workflow that will never run, and all that would have followed it.

        Args:
            step: the step.
            exc: the exception.
            traceback: its traceback, as text.
            errbacks: whether the step's own error callbacks are called.
        """
        workflow = self.app.machinery.workflow
        carried = continuation(step)
        if carried is None:
            self.store_result(step.uuid, exc, FAILURE, traceback=traceback)
            self._fail_followers(step, exc, traceback)
            if errbacks:
                workflow.failed(step, canvas.error_text(exc), exc, traceback)
            else:
                workflow.check_chord(step)
            return
        # Celery knows how its own steps fail.
        first, rest = carried
        if errbacks and first.get("subtask_type") != "chain":
            try:
                # It describes the exception that is being handled.
                raise exc
            except type(exc):
                self.chord_error_from_stack(self.app.signature(first), exc)
        else:
            rest = [*rest, *reversed((first.get("kwargs") or {}).get("tasks") or [first])]
        self._fail_chain(rest, exc, traceback)

    def _fail_followers(self, signature: Signature, exc: Any, traceback: Any) -> None:
        """Fails what a Celery chain has after a failed step, as Celery does: somebody may wait for it."""
        for follower in signature.on_success or ():
            if is_celerys(follower):
                self.fail_step(follower, exc, traceback)

    # -- chords

    @property
    def watch_interval(self) -> float:
        """Seconds between two looks at a chord whose callback has not been sent; 0 for never."""
        return float(self.app.conf.get("machinery_chord_watch_interval", WATCH_INTERVAL))

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Writes the group of a Celery chord; each member will carry the body as its ChordCallback."""
        self.ensure_chords_allowed()
        header = self.app.GroupResult(*header_result_args)
        members = _leaves(header)
        nested = any(isinstance(one, GroupResult) for one in header.results)
        body.options[MEMBERS] = [header.id, len(members), nested]
        self.begin_group(_group_of(header.id, header))
        # A worker that ends the first member looks at all of them.
        self.put_pending([Signature(uuid=uuid) for uuid in members])
        maker = self.app.machinery.border.maker(body.options.get("root_id") or header.id)
        self.watch_chord(header.id, maker.body(body))

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """A member of a Celery chord has ended that was not sent as a Signature: a step that will never run."""
        chord = request.chord
        if MEMBERS in (chord.get("options") or {}):
            uuid, count, _ = chord["options"][MEMBERS]
            body = self.app.machinery.border.maker(request.root_id or request.id).body(chord)
            self.app.machinery.workflow.check_group(uuid, count, body, request.id)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Makes one more task a member of a group.

        Raises:
            BackendError: the group is not there, or the store cannot do it.
        """
        self.put_pending([Signature(uuid=result.id)])
        self.add_member(chord_id, result.id, kombu_json.dumps(result.as_tuple()))

    # -- groups

    def _save_group(self, group_id: str, result: GroupResult) -> GroupResult:
        self.put_group(_group_of(group_id, result))
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        meta = self.group_meta(group_id)
        if meta is None:
            return None
        if meta.celery:
            try:
                return {"result": result_from_tuple(kombu_json.loads(meta.celery), self.app)}
            except UNREADABLE as exc:
                raise errors.BackendError(f"the group {group_id} cannot be read: {exc}") from exc
        results = [self.app.AsyncResult(uuid) for uuid in meta.task_uuids or ()]
        return {"result": self.app.GroupResult(group_id, results)}

    def _delete_group(self, group_id: str) -> None:
        self.purge(group_id)


def _group_of(group_id: str, result: GroupResult) -> GroupMeta:
    meta = GroupMeta(group_uuid=group_id, task_uuids=_leaves(result), created_at=now_text())
    if any(isinstance(child, GroupResult) or child.parent for child in result.results):
        # Machinery's groups are flat and without parents.
        meta.celery = kombu_json.dumps(result.as_tuple())
    return meta


def _leaves(group: GroupResult) -> list[str]:
    """The UUIDs of a group's members, those of groups within it in their place."""
    found: list[str] = []
    for child in group.results:
        found.extend(_leaves(child) if isinstance(child, GroupResult) else [child.id])
    return found
