"""OpenTelemetry's context in the Headers of tasks, and a span for each task that runs.

Go Machinery does the same with OpenTracing. The spans and their attributes have Go's names.

OpenTelemetry is optional, and is never imported on its own account: in a process that has not
imported it nobody has begun a trace, and there is nothing to do.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import signals
from celery import states as celery_states

from machinery_compat import canvas, errors
from machinery_compat.wire import Chain, Chord, Group, Signature, outgoing
from machinery_compat.wire.trees import tree_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

__all__ = ["carry", "connect", "sending_chain", "sending_chord", "sending_group", "sending_task"]

logger = logging.getLogger("machinery_compat.tracing")

#: The name of the tracer.
TRACER = "machinery_compat"
COMPONENT = {"component": "machinery"}
#: The member of OpenTelemetry's context that names the Signatures whose headers are complete.
COMPLETE = "machinery_compat.complete"
#: The instrumentation that makes spans of its own for Celery's tasks.
INSTRUMENTATION = "opentelemetry.instrumentation.celery"
MISSING = (
    "sending with a context needs OpenTelemetry, which is not installed ({}): pip install 'machinery-compat[otel]'"
)


def _is_on(app: Any) -> bool:
    return bool(app.conf.get("machinery_tracing", True))


# -- sending


def carry(app: Any, signature: Signature) -> None:
    """Puts the current context into the Headers of a task that is being sent, and of all that follows it.

    What follows gets it too because a Go worker hands on no more than it finds there. Without a
    current context nothing changes.
    """
    if "opentelemetry.context" not in sys.modules:
        return
    from opentelemetry import context

    current = context.get_current()
    if not current or id(signature) in current.get(COMPLETE, ()) or not _is_on(app):  # type: ignore[operator]
        return
    found = _headers_of(current)
    if found:
        _add(found, tree_of(signature))


def _headers_of(context: Context) -> dict[str, str]:
    from opentelemetry import propagate

    found: dict[str, str] = {}
    try:
        propagate.inject(found, context)
    except Exception:
        # A task is worth more than its trace.
        logger.exception("the trace is not carried on: a propagator failed")
        return {}
    return {name: value for name, value in found.items() if outgoing.is_header(name, value)}


def _add(found: Mapping[str, str], signatures: Sequence[Signature]) -> None:
    from opentelemetry import propagate

    # The tracestate of another trace must not stay.
    ours = propagate.get_global_textmap().fields
    for signature in signatures:
        kept = {name: value for name, value in (signature.headers or {}).items() if name not in ours}
        signature.headers = {**kept, **found}


@contextmanager
def _sending(
    ctx: Context | None,
    name: str,
    signatures: Sequence[Signature],
    attributes: Mapping[str, AttributeValue],
) -> Iterator[None]:
    """Has a producer's span while this lasts, and puts it into the Headers of these Signatures alone.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import context, trace
    except ImportError as exc:
        raise errors.ConfigError(MISSING.format(exc)) from exc

    parent = context.get_current() if ctx is None else ctx
    span = trace.get_tracer(TRACER).start_span(
        name, parent, trace.SpanKind.PRODUCER, attributes={**COMPONENT, **attributes}
    )
    _add(_headers_of(trace.set_span_in_context(span, parent)), signatures)
    token = context.attach(context.set_value(COMPLETE, frozenset(map(id, signatures)), parent))
    try:
        with trace.use_span(span, end_on_exit=True):
            yield
    finally:
        context.detach(token)


@contextmanager
def sending_task(ctx: Context | None, signature: Signature) -> Iterator[None]:
    """Go's span ``SendTask``; its context goes into the Headers of the task.

    Args:
        ctx: the context to send in; None is the current one.
        signature: the task.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    with _sending(ctx, "SendTask", [signature], {}):
        yield


@contextmanager
def sending_chain(ctx: Context | None, chain: Chain) -> Iterator[None]:
    """Go's span ``SendChain``; its context goes into the Headers of all tasks. Otherwise as :func:`sending_task`."""
    attributes: dict[str, AttributeValue] = {"machinery.workflow": "chain", "chain.tasks.length": len(chain.tasks)}
    with _sending(ctx, "SendChain", chain.tasks, attributes):
        yield


@contextmanager
def sending_group(ctx: Context | None, group: Group, concurrency: int) -> Iterator[None]:
    """Go's span ``SendGroup``; its context goes into the Headers of all members. Otherwise as :func:`sending_task`."""
    attributes = {"machinery.workflow": "group", **_of_group(group, concurrency)}
    with _sending(ctx, "SendGroup", group.tasks, attributes):
        yield


@contextmanager
def sending_chord(ctx: Context | None, chord: Chord, concurrency: int) -> Iterator[None]:
    """Go's span ``SendChord``; its context goes into the Headers of all members and of the callback.

    Otherwise as :func:`sending_task`.
    """
    attributes = {
        "machinery.workflow": "chord",
        "chord.callback.uuid": chord.callback.uuid,
        **_of_group(chord.group, concurrency),
    }
    # Each member carries a copy of the callback.
    copies = [member.chord_callback for member in chord.group.tasks if member.chord_callback is not None]
    with _sending(ctx, "SendChord", [*chord.group.tasks, chord.callback, *copies], attributes):
        yield


def _of_group(group: Group, concurrency: int) -> dict[str, AttributeValue]:
    return {
        "group.uuid": group.group_uuid,
        "group.tasks.length": len(group.tasks),
        "group.concurrency": concurrency,
        "group.tasks": json.dumps(group.get_uuids(), separators=(",", ":")),
    }


# -- running


def connect() -> None:
    """Gives each task that runs here a span, and makes the context of its Headers the current one.

    Does nothing where OpenTelemetry is not installed.
    """
    if importlib.util.find_spec("opentelemetry") is not None:
        signals.task_prerun.connect(_begin, weak=False, dispatch_uid="machinery_compat.tracing")
        signals.task_postrun.connect(_end, weak=False, dispatch_uid="machinery_compat.tracing")


def _begin(sender: Any = None, **kwargs: Any) -> None:
    app = sender.app
    if "opentelemetry.trace" not in sys.modules or getattr(app, "machinery", None) is None:
        return
    if not _is_on(app) or _is_instrumented():
        return
    from opentelemetry import context, propagate, trace

    request = sender.request
    raw = getattr(request, "machinery", None)
    carrier = {name: value for name, value in (request.headers or {}).items() if type(value) is str}
    # What arrives in a message owes nothing to what happens to be current in this thread.
    parent = propagate.extract(carrier, context.Context() if raw else context.get_current())
    span = trace.get_tracer(TRACER).start_span(
        sender.name, parent, trace.SpanKind.CONSUMER, attributes=_of_task(sender.name, request, raw)
    )
    request.machinery_span = span, context.attach(trace.set_span_in_context(span, parent))


def _end(sender: Any = None, state: str | None = None, retval: Any = None, **kwargs: Any) -> None:
    begun = getattr(sender.request, "machinery_span", None)
    if begun is None:
        return
    from opentelemetry import context

    span, token = begun
    sender.request.machinery_span = None
    try:
        _describe_end(span, state, retval, tuple(sender.throws or ()))
    finally:
        span.end()
        context.detach(token)


def _is_instrumented() -> bool:
    """Whether Celery's instrumentation listens, which extracts the context and makes spans itself."""
    return INSTRUMENTATION in sys.modules and any(
        str(getattr(receiver, "__module__", "")).startswith(INSTRUMENTATION)
        for _, receiver in signals.task_prerun.receivers
    )


def _of_task(name: str, request: Any, raw: bytes | None) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {**COMPONENT, "signature.name": name, "signature.uuid": request.id}
    signature = Signature.decode(raw) if raw else Signature()
    if signature.group_uuid:
        attributes["signature.group.uuid"] = signature.group_uuid
    if signature.chord_callback is not None:
        attributes["signature.chord.callback.uuid"] = signature.chord_callback.uuid
        attributes["signature.chord.callback.name"] = signature.chord_callback.name
    return attributes


def _describe_end(span: Span, state: str | None, retval: Any, expected: tuple[type[BaseException], ...]) -> None:
    from opentelemetry.trace import Status, StatusCode

    if state not in celery_states.EXCEPTION_STATES or not span.is_recording():
        return
    cause = getattr(retval, "exc", None) if state == celery_states.RETRY else retval
    if not isinstance(cause, BaseException):
        return
    span.record_exception(cause)
    # What a task declares with `throws` is an outcome of it, to Celery too.
    if state == celery_states.FAILURE and not isinstance(cause, expected):
        span.set_status(Status(StatusCode.ERROR, canvas.error_text(cause)))
