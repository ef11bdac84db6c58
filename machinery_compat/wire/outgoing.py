"""What must hold of a Signature before it leaves, because a Go worker would be hurt by the rest.

In Go an Arg that does not convert fails its task and, beyond that, wedges or restarts the whole
worker; an object in the place of a list ends the process; a header that is no text cannot be sent
again to RabbitMQ. Whoever sends such a thing must learn it, not the fleet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec

from machinery_compat.errors import ArgumentError, EncodeError
from machinery_compat.wire.goconvert import INTEGERS
from machinery_compat.wire.gotypes import check_type, decode_value
from machinery_compat.wire.message import Arg, Signature
from machinery_compat.wire.trees import tree_of

__all__ = ["check", "check_arg", "check_args", "check_fields", "is_header"]

#: From here on a float64 becomes infinite as a float32.
_FLOAT32_END: Final = 3.4028235677973366e38
#: The longest name in an AMQP table, in bytes.
_LONGEST_NAME: Final = 255
#: How much of a Value an error text shows.
_SHOWN: Final = 60

_TEXTS: Final = ("uuid", "name", "routing_key", "group_uuid", "broker_message_group_id", "sqs_receipt_handle")
_KEYS: Final = ("uuid", "name", "routing_key", "group_uuid")
_NUMBERS: Final = ("group_task_count", "priority", "retry_count", "retry_timeout")
_FLAGS: Final = ("immutable", "stop_task_deletion_on_error", "ignore_when_task_not_registered")


def _kinds() -> dict[str, Any]:
    kinds: dict[str, Any] = {
        "bool": bool,
        "float32": Annotated[float, msgspec.Meta(gt=-_FLOAT32_END, lt=_FLOAT32_END)],
        "float64": float,
        "string": str,
    }
    for name, (low, high) in INTEGERS.items():
        # msgspec has no bound above int64; what is beyond uint64 is told by Go's own rules below.
        kinds[name] = Annotated[int, msgspec.Meta(ge=low, le=high if high < 2**63 else None)]
    slices: dict[str, Any] = {
        f"[]{name}": list[kind] | None  # type: ignore[valid-type]
        for name, kind in kinds.items()
    }
    return {**kinds, **slices, "[]byte": slices["[]uint8"]}


#: Reads a Value in its plainest form, in one call; what it refuses is looked at more closely.
_READ: Final[dict[str, Callable[[bytes], Any]]] = {
    name: msgspec.json.Decoder(kind).decode for name, kind in _kinds().items()
}
_CLOSER: Final = frozenset({"uint", "uint64", "[]uint", "[]uint64"})
_UNSIGNED: Final = frozenset(name for name in _READ if "uint" in name or name == "[]byte")


def check_arg(arg: Arg) -> None:
    """Refuse an Arg that a Go worker could not convert, or would silently change.

    Raises:
        EncodeError: the Type is unknown or the Value does not fit it.
    """
    if not isinstance(arg, Arg):
        raise EncodeError(f"{arg!r} is no Arg; make one with Arg(type, value) or Arg.infer(value)")
    kind, raw = arg.type, bytes(arg._raw)
    if type(kind) is not str or type(arg.name) is not str:
        raise EncodeError(f"the Name and the Type of an Arg are texts, not {arg.name!r} and {kind!r}")
    if kind == "int64" and raw.isdigit() and len(raw) < 19:  # by far the commonest
        return
    read = _READ.get(kind)
    if read is None:
        check_type(kind)
        return
    try:
        read(raw)
        # A minus before zero, and what is beyond 64 bits, is for Go to judge.
        if kind not in _CLOSER and (kind not in _UNSIGNED or b"-" not in raw):
            return
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        _refuse_wrapping(kind, raw)
    try:
        decode_value(kind, raw)
    except ArgumentError as error:
        raise EncodeError(f"the value {_shown(raw)} does not fit the type {kind}: {error}") from None


def _refuse_wrapping(kind: str, raw: bytes) -> None:
    """Refuse a number that Go would take and cut to the width of its type."""
    element = kind.removeprefix("[]").replace("byte", "uint8")
    if raw[:1] != b"[" and kind.startswith("[]"):
        return
    wide = "uint64" if element.startswith("uint") else "float64" if element.startswith("float") else "int64"
    if element in ("bool", "string", "int", "int64", "uint", "uint64", "float64"):
        return
    try:
        decode_value(kind.replace(kind.removeprefix("[]"), wide), raw)
    except ArgumentError:
        return  # no number at all: Go refuses it, with its own text
    raise EncodeError(f"the value {_shown(raw)} does not fit the type {kind}: it is out of range")


def _shown(raw: bytes) -> str:
    text = raw[: _SHOWN + 1].decode("utf-8", "backslashreplace")
    return text if len(raw) <= _SHOWN else f"{text[:_SHOWN]}…"


def check_args(signature: Signature) -> None:
    """Refuse a Signature with an Arg that a Go worker could not convert.

    Raises:
        EncodeError: naming the Arg.
    """
    for index, arg in enumerate(signature.args or ()):
        try:
            check_arg(arg)
        except EncodeError as error:
            raise EncodeError(f"argument {index} of {signature.name}: {error}") from None


def check_fields(signature: Signature) -> None:
    """Refuse a field of another kind than Go reads there.

    Raises:
        EncodeError: naming the field.
    """
    s = signature
    if (
        (type(s.uuid) is type(s.name) is type(s.routing_key) is type(s.group_uuid) is str)
        and (type(s.broker_message_group_id) is type(s.sqs_receipt_handle) is str)
        and (type(s.group_task_count) is type(s.priority) is type(s.retry_count) is type(s.retry_timeout) is int)
        and (type(s.immutable) is type(s.stop_task_deletion_on_error) is bool)
        and type(s.ignore_when_task_not_registered) is bool
        and (s.eta is None or type(s.eta) is str)
        and s.name
        and (s.uuid + s.name + s.routing_key + s.group_uuid).isascii()
    ):
        return
    wrong = _wrong_field(signature)
    if wrong:
        raise EncodeError(wrong)


def _wrong_field(signature: Signature) -> str:
    """What is wrong with a field, or an empty text."""
    for kind, names in ((str, _TEXTS), (int, _NUMBERS), (bool, _FLAGS)):
        for name in names:
            value = getattr(signature, name)
            if type(value) is not kind:
                return f"{name} of {signature.name} is a {kind.__name__}, not {value!r}"
    if not signature.name:
        return "a task needs a Name: a Go worker hands one without around for ever"
    if signature.eta is not None and type(signature.eta) is not str:
        return f"eta of {signature.name} is a text; set it with set_eta, not to {signature.eta!r}"
    for name in _KEYS:
        value = getattr(signature, name)
        if not _is_utf8(value):
            return f"{name} is a key at the broker or the result backend, {value!r} cannot be one: it is no UTF-8"
    return ""


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_header(name: Any, value: Any) -> bool:
    """Whether a Go worker can send this member of Headers again to RabbitMQ, in an AMQP table."""
    if type(name) is not str or (len(name) > 63 and len(name.encode("utf-8", "replace")) > _LONGEST_NAME):
        return False
    return value is None or type(value) in (str, bool)


def _check_headers(signature: Signature) -> None:
    for name, value in (signature.headers or {}).items():
        if is_header(name, value):
            continue
        if value is None or type(value) in (str, bool):
            raise EncodeError(f"the name of a header is a text of at most {_LONGEST_NAME} bytes, not {name!r}")
        raise EncodeError(
            f"the header {name!r} of {signature.name} is a {type(value).__name__}; a Go worker could not "
            "send it again to RabbitMQ, pass a str, a bool or None"
        )


def check(signature: Signature) -> None:
    """Refuse what would hurt a Go worker, in a Signature and in those nested in it.

    For what is made here; one that only passes through keeps what its maker wrote.

    Raises:
        EncodeError: saying what and why.
    """
    try:
        lone = not (signature.on_success or signature.on_error or signature.chord_callback)
        tree = [signature] if lone else tree_of(signature)
    except (AttributeError, TypeError) as error:
        raise EncodeError(f"a callback of {signature.name} is no Signature: {error}") from None
    for item in tree:
        check_fields(item)
        if item.headers:
            _check_headers(item)
        if item.args:
            check_args(item)
