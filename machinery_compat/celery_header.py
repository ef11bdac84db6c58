"""The header ``celery`` as it arrives: the text of a JSON object that any peer may have written.

What it says goes deep into Celery's worker, which trusts its own messages. So each member is looked
at first; one of a wrong kind fails the task instead of the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery.app.task import Context
from celery.utils.time import maybe_iso8601
from kombu.utils import json as kombu_json

from machinery_compat import errors

__all__ = ["BAD_JSON", "HEADER", "RESERVED", "from_json", "read"]

HEADER = "celery"
#: How deep the values of headers may be nested; more than this cannot be handed to a pool's process.
DEEPEST = 100
#: The most retries that a task can have had.
MOST_RETRIES = 1_000_000
#: The longest time limit, in seconds: a century.
LONGEST_LIMIT = 100 * 365 * 86_400
#: What a header of these names would be taken for in Celery's request or Kombu's message; a user's
#: header of such a name is found in ``request.headers`` only.
RESERVED = frozenset(
    {
        *(name for name in dir(Context) if not name.startswith("__")),
        *("machinery", "machinery_about", "machinery_signature", "machinery_error", "machinery_superseded"),
        *("machinery_again", "machinery_ended", "compression"),
    }
)
#: What a decoder of Kombu's may raise on a text of a stranger.
BAD_JSON = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def from_json(text: Any, what: str) -> Any:
    """The Python value of a JSON text.

    Raises:
        DecodeError: it is none.
    """
    try:
        if type(text) is not str:
            raise TypeError(f"it is of the type {type(text).__name__}")
        value = kombu_json.loads(text)
    except BAD_JSON as exc:
        raise errors.DecodeError(f"{what} is not JSON: {type(exc).__name__}: {str(exc)[:200]}") from exc
    check_depth(value, what)
    return value


def check_depth(value: Any, what: str) -> None:
    """Refuse what is nested too deep for Celery.

    Raises:
        DecodeError: it is.
    """
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise errors.DecodeError(f"{what} is nested deeper than {DEEPEST} levels")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_retries(value: Any) -> bool:
    # Celery's backoff takes two to this power.
    return _is_count(value) and value <= MOST_RETRIES


def _is_line(value: Any) -> bool:
    # It stands in Celery's log lines.
    return isinstance(value, str) and value.isprintable()


def _is_time(value: Any) -> bool:
    # The first and the last year are not there in every time zone.
    return isinstance(value, str) and (time := maybe_iso8601(value)) is not None and 1 < time.year < 9999


def _is_limit(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= LONGEST_LIMIT)


def _is_timelimit(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_limit, value))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _are_properties(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(text, str) for text in value.values())


def _is_canvas(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("task"), str)


def _are_canvas(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_canvas, value))


#: What each member must be.
_MEMBERS: dict[str, Callable[[Any], bool]] = {
    "shadow": _is_line,
    "expires": _is_time,
    "group": _is_text,
    "group_index": _is_count,
    "retries": _is_retries,
    "timelimit": _is_timelimit,
    "parent_id": _is_text,
    "root_id": _is_text,
    "reply_to": _is_text,
    "argsrepr": _is_text,
    "kwargsrepr": _is_text,
    "message_properties": _are_properties,
    "ignore_result": lambda value: type(value) is bool,
    "replaced_task_nesting": _is_count,
    "stamped_headers": _are_texts,
    "stamps": _is_mapping,
    "callbacks": _are_canvas,
    "errbacks": _are_canvas,
    "chain": _are_canvas,
    "chord": _is_canvas,
    "headers": _is_mapping,
    # How many Args are the task's own, and whether it gets no more than these.
    "own": _is_count,
    "alone": lambda value: type(value) is bool,
    # The group whose results a chord's body gets in one list; whether each Arg is surely one member's.
    "pack": lambda value: _is_pack(value),
    "exact": lambda value: type(value) is bool,
    # Whether the task is told of a failure.
    "errback": lambda value: type(value) is bool,
}


def read(headers: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The user's headers and what the header ``celery`` says.

    Raises:
        DecodeError: it is not the JSON object it should be, or the headers are nested too deep.
    """
    text = headers.get(HEADER)
    user = {name: value for name, value in headers.items() if name != HEADER}
    check_depth(user, "Headers")
    if text is None:
        return user, {}
    extra = from_json(text, f"the header {HEADER!r}")
    if not isinstance(extra, dict):
        raise errors.DecodeError(f"the header {HEADER!r} is not a JSON object")
    for name, value in extra.items():
        is_right = _MEMBERS.get(name)
        if is_right is not None and value is not None and not _holds(is_right, value):
            raise errors.DecodeError(f"the header {HEADER!r} cannot say {name}={repr(value)[:60]}")
    user.update(extra.get("headers") or {})
    return user, extra


def _is_pack(value: Any) -> bool:
    return isinstance(value, list) and [type(one) for one in value] == [str, int, bool] and 0 <= value[1] < 2**63


def _holds(is_right: Callable[[Any], bool], value: Any) -> bool:
    try:
        return is_right(value)
    except (ValueError, OverflowError):
        return False
