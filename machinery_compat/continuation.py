"""The tasks of this package: they do in a Python worker what a nested Signature cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machinery_compat.errors import TaskError
from machinery_compat.followers import GO_ON, STEP_FAILED

__all__ = ["go_on", "register"]


def go_on(app: Any, passed: Any, step: dict[str, Any], rest: Sequence[dict[str, Any]], **options: Any) -> Any:
    """Sends the next step of a Celery workflow, as Celery's worker does.

    Args:
        app: the application.
        passed: what is passed on to it.
        step: the step.
        rest: the steps after it, the last one first.
        options: parent_id, root_id and priority.
    """
    if rest:
        options["chain"] = list(rest)
    return app.signature(step).apply_async((passed,), **options)


def register(sender: Any, **kwargs: Any) -> None:
    """Gives an application the tasks; connected to its signal ``on_after_finalize``."""

    def run(self: Any, passed: Any, step: dict[str, Any], rest: Sequence[dict[str, Any]]) -> None:
        request = self.request
        go_on(sender, passed, step, rest, parent_id=request.parent_id, root_id=request.root_id)

    def step_failed(self: Any, error: str, member: str) -> None:
        # The chord itself is looked at when this task has ended: it is as good as the member.
        sender.backend.store_result(member, TaskError(error), "FAILURE")

    sender.task(name=GO_ON, bind=True, ignore_result=True, shared=False)(run)
    sender.task(name=STEP_FAILED, bind=True, ignore_result=True, shared=False)(step_failed)
