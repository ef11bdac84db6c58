"""Arg and Signature, the message of Machinery, and their way to bytes and back.

A Signature is encoded and decoded by msgspec. Go's own reader and writer are followed to the byte: what
msgspec would read differently goes to `gounmarshal`, and what it would write differently is put right after it.
"""

from __future__ import annotations

import copy
import importlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from machinery_compat.errors import EncodeError
from machinery_compat.wire import gojson, gotime
from machinery_compat.wire.goparse import GoNumber
from machinery_compat.wire.gotypes import encode_value, infer_type
from machinery_compat.wire.gounmarshal import Spec, unmarshal
from machinery_compat.wire.trees import copy_tree, count_chained, count_objects, is_plain, tree_of
from machinery_compat.wire.values import Typed, is_odd, settle

__all__ = ["Arg", "Signature"]


class Arg(Typed, forbid_unknown_fields=True, rename={"name": "Name", "type": "Type", "_raw": "Value"}):
    """One argument: a Machinery type and the JSON text of its value.

    ``Arg("int32", 5)`` encodes and checks the value. Go never reads the name.
    """

    name: str
    type: str
    _raw: msgspec.Raw

    if TYPE_CHECKING:

        def __init__(self, type: str, value: Any, name: str = "") -> None: ...

    @classmethod
    def _new(cls, type: str, value: Any, name: str = "") -> Arg:
        made: Arg = cls._fill(name=name, type=type, _raw=msgspec.Raw(encode_value(type, value)))
        return made

    @classmethod
    def from_raw(cls, type: str, raw: bytes, name: str = "") -> Arg:
        """Make an Arg of JSON text; neither type nor value is checked against the other."""
        made: Arg = cls._fill(name=name, type=type, _raw=msgspec.Raw(gojson.canonical(bytes(raw))))
        return made

    @classmethod
    def infer(cls, value: Any, hint: Any = None, name: str = "") -> Arg:
        """Make an Arg of a Python value, with the type that `infer_type` finds."""
        return cls(infer_type(value, hint), value, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Arg.from_raw, (self.type, self.raw, self.name)


_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Time = Annotated[str, msgspec.Meta(pattern=gotime.CANONICAL_TIME)]

_NAMES = {
    "uuid": "UUID",
    "name": "Name",
    "routing_key": "RoutingKey",
    "eta": "ETA",
    "group_uuid": "GroupUUID",
    "group_task_count": "GroupTaskCount",
    "args": "Args",
    "headers": "Headers",
    "priority": "Priority",
    "immutable": "Immutable",
    "retry_count": "RetryCount",
    "retry_timeout": "RetryTimeout",
    "on_success": "OnSuccess",
    "on_error": "OnError",
    "chord_callback": "ChordCallback",
    "broker_message_group_id": "BrokerMessageGroupId",
    "sqs_receipt_handle": "SQSReceiptHandle",
    "stop_task_deletion_on_error": "StopTaskDeletionOnError",
    "ignore_when_task_not_registered": "IgnoreWhenTaskNotRegistered",
}


class Signature(msgspec.Struct, kw_only=True, gc=False, forbid_unknown_fields=True, rename=_NAMES):
    """A task to be run: its name, arguments and everything Machinery does around it.

    Fields stand in the order of the wire; None is Go's nil.
    `eta` is text in Go's form; set it with `set_eta`.
    """

    uuid: str = ""
    name: str = ""
    routing_key: str = ""
    eta: _Time | None = None
    group_uuid: str = ""
    group_task_count: _Int64 = 0
    args: list[Arg] | None = None
    headers: dict[str, Any] | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    immutable: bool = False
    retry_count: _Int64 = 0
    retry_timeout: _Int64 = 0
    on_success: list[Signature | None] | None = None
    on_error: list[Signature | None] | None = None
    chord_callback: Signature | None = None
    broker_message_group_id: str = ""
    sqs_receipt_handle: str = ""
    stop_task_deletion_on_error: bool = False
    ignore_when_task_not_registered: bool = False

    def set_eta(self, value: datetime | str | None) -> None:
        """Set the time before which the task must not run; a datetime without a zone counts as UTC.

        Raises:
            EncodeError: the text is no time, or Go could not write it.
        """
        self.eta = None if value is None else gotime.time_text(value)

    @property
    def eta_time(self) -> datetime | None:
        """The ETA as an aware UTC datetime, cut to microseconds."""
        return None if self.eta is None else gotime.to_datetime(self.eta)

    @property
    def eta_ns(self) -> int | None:
        """The ETA in nanoseconds since 1970, exactly."""
        return None if self.eta is None else gotime.time_ns(self.eta)

    def copy(self) -> Signature:
        """Return a copy that shares nothing that can be changed."""
        return copy_tree(self)

    def to_celery(self, app: Any = None) -> Any:
        """Return the Celery signature of this one; see :func:`machinery_compat.conversion.to_celery`."""
        return _conversion().to_celery(self, app)

    @staticmethod
    def from_celery(signature: Any, app: Any = None) -> Signature:
        """Make a Signature of a task or a chain of Celery's; see :func:`machinery_compat.conversion.from_celery`."""
        made: Signature = _conversion().from_celery(signature, app)
        return made

    def encode(self) -> bytes:
        """Return the bytes that Go's ``json.Marshal`` gives for this signature.

        Raises:
            EncodeError: a field holds what Go could not read back.
        """
        return _encode_signature(self)

    @staticmethod
    def decode(data: bytes) -> Signature:
        """Read a message body as a Go worker does.

        Raises:
            DecodeError: Go would refuse it; the text is Go's.
        """
        try:
            signature = _decode(data)
        except _REFUSALS:
            return _decode_exactly(data)
        # An object that Go would merge with a repetition of it shows as a brace too many; so do Values and headers
        # that hold one. (Taking a character out is much faster than counting it.)
        expected = 1 if (args := signature.args) is None else 1 + len(args)
        if (headers := signature.headers) is not None:
            expected += 1
        if (braces := len(data) - len(data.replace(b"{", b""))) != expected or headers:
            return _look_closer(signature, data, braces)
        return signature


def _conversion() -> Any:
    # The wire knows nothing of Celery until somebody asks for it.
    return importlib.import_module("machinery_compat.conversion")


def _hook(value: Any) -> Any:
    if isinstance(value, GoNumber):
        return msgspec.Raw(gojson.dumps(value))
    raise TypeError(type(value))


class _Complete(msgspec.Struct, forbid_unknown_fields=True, rename=_NAMES):
    """A signature that must have every member; used to learn that none is missing."""

    uuid: msgspec.Raw
    name: msgspec.Raw
    routing_key: msgspec.Raw
    eta: msgspec.Raw
    group_uuid: msgspec.Raw
    group_task_count: msgspec.Raw
    args: msgspec.Raw
    headers: msgspec.Raw
    priority: msgspec.Raw
    immutable: msgspec.Raw
    retry_count: msgspec.Raw
    retry_timeout: msgspec.Raw
    on_success: list[_Complete | None] | None
    on_error: list[_Complete | None] | None
    chord_callback: _Complete | None
    broker_message_group_id: msgspec.Raw
    sqs_receipt_handle: msgspec.Raw
    stop_task_deletion_on_error: msgspec.Raw
    ignore_when_task_not_registered: msgspec.Raw


_encode: Final = msgspec.json.Encoder(enc_hook=_hook, order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Signature, float_hook=GoNumber).decode
_decode_complete: Final = msgspec.json.Decoder(_Complete).decode

_KINDS: Final = {
    "ETA": "*time",
    "GroupTaskCount": "int",
    "Args": "[]Arg",
    "Headers": "map",
    "Priority": "uint8",
    "Immutable": "bool",
    "RetryCount": "int",
    "RetryTimeout": "int",
    "OnSuccess": "[]*Signature",
    "OnError": "[]*Signature",
    "ChordCallback": "*Signature",
    "StopTaskDeletionOnError": "bool",
    "IgnoreWhenTaskNotRegistered": "bool",
}
_ATTRIBUTES: Final = {wire: attribute for attribute, wire in _NAMES.items()}
# Members whose repetition Go merges; of the others the last counts, for Go and msgspec alike.
_MERGING: Final = (b'"Args"', b'"Headers"', b'"OnSuccess"', b'"OnError"', b'"ChordCallback"')
_CALLBACKS: Final = b'"OnSuccess":null,"OnError":null,"ChordCallback":null'
_MAX_LEVELS: Final = 10_000  # of objects and lists; what Go's decoder reads
_REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**63 - 1
_is_go_time = re.compile(gotime.CANONICAL_TIME).match
_find_escaped_letter = re.compile(rb"\\u00[4-7]").search
_find_minus_zero = re.compile(rb"-0(?<![0-9A-Za-z]-0)(?![0-9.eE])").search
_find_surrogate = re.compile("[\ud800-\udfff]").search


def _build_arg(values: dict[str, Any]) -> Arg:
    return Arg.from_raw(values.get("Type", ""), values.get("Value", b"null"), values.get("Name", ""))


def _build_signature(values: dict[str, Any]) -> Signature:
    return Signature(**{_ATTRIBUTES[name]: value for name, value in values.items()})


_SPECS: Final = {
    "Signature": Spec("Signature", {name: _KINDS.get(name, "string") for name in _ATTRIBUTES}, _build_signature),
    "Arg": Spec("Arg", {"Name": "string", "Type": "string", "Value": "any"}, _build_arg),
}


def _look_closer(signature: Signature, data: bytes, braces: int) -> Signature:
    """Finish the decoding of a document that has callbacks, headers or structured Values, or repeated members."""
    if braces == count_chained(signature):
        return signature  # by far the commonest, and too few where there is more than a chain
    objects, headed = count_objects(signature)
    if braces != objects:
        tree = tree_of(signature)
        if braces != objects + _settle_structured(tree) and _may_repeat(data, tree):
            return _decode_exactly(data)
    if headed and b"-0" in data and _find_minus_zero(data):
        return _decode_exactly(data)  # msgspec would lose the sign
    return signature


def _settle_structured(tree: list[Signature]) -> int:
    """Bring Values with braces into the form in which Go would write them; return how many braces they had."""
    braces = 0
    for item in tree:
        for arg in item.args or ():
            raw = bytes(arg._raw)
            if b"{" in raw:
                braces += raw.count(b"{")
                settle((arg,))
    return braces


def _decode_exactly(data: bytes) -> Signature:
    signature: Signature = unmarshal(bytes(data), "Signature", _SPECS)
    return signature


def _may_repeat(data: bytes, tree: list[Signature]) -> bool:
    """Tell whether some member might stand twice in one object."""
    if 92 in data and _find_escaped_letter(data):
        return True  # a name may be spelled with escapes and so hide from the count
    if len(tree) == 1:
        # An Arg has all its members and msgspec no null for them: nothing is left of what stood there before.
        return data.count(b'"Headers"') > 1
    if any(data.count(name) > len(tree) for name in _MERGING):
        return True
    try:
        _decode_complete(data)  # nothing missing anywhere, so nothing makes up for a repetition
    except msgspec.MsgspecError:
        return True
    return False


def _check(signature: Signature) -> bool:
    """Refuse what Go could not read back; tell whether the ETA had to be brought into Go's form."""
    if not 0 <= signature.priority <= 255:
        raise EncodeError(f"Priority {signature.priority} is out of range; Machinery has 0 to 255")
    if (
        not _MIN_INT <= signature.group_task_count <= _MAX_INT
        or not _MIN_INT <= signature.retry_count <= _MAX_INT
        or not _MIN_INT <= signature.retry_timeout <= _MAX_INT
    ):
        raise EncodeError(_out_of_range(signature))
    if signature.eta is None or _is_go_time(signature.eta) is not None:
        return False
    signature.set_eta(signature.eta)
    return True


def _out_of_range(signature: Signature) -> str:
    for name in ("group_task_count", "retry_count", "retry_timeout"):
        if not _MIN_INT <= getattr(signature, name) <= _MAX_INT:
            break
    return f"{_NAMES[name]} {getattr(signature, name)} is out of range; Go has 64 bits for it"


def _is_flat(headers: dict[str, Any]) -> bool:
    """Tell whether msgspec writes these headers as Go would."""
    for name, value in headers.items():
        if type(name) is not str or not (value is None or type(value) in (str, bool, int)):
            return False
    return True


def _encode_signature(signature: Signature) -> bytes:
    try:
        data = _encode(signature)
        if not is_plain(signature):
            tree = tree_of(signature)
            if sum(map(_check, tree)):  # all of them, not up to the first
                data = _encode(signature)
            if not all(_is_flat(item.headers) for item in tree if item.headers):
                return _encode_exactly(signature)
        if is_odd(data):
            # Blanks, escapes and the like: some decoded Value may not be in Go's form yet.
            settle(arg for item in tree_of(signature) for arg in item.args or ())
            data = gojson.escape(_encode(signature))
    except (RecursionError, TypeError, ValueError):  # ValueError: also text that is no UTF-8
        return _encode_exactly(signature)
    return data


def _encode_exactly(signature: Signature) -> bytes:
    """Encode piece by piece, with headers of any depth, text that is no UTF-8 and any nesting that Go reads."""
    out: list[bytes] = []
    stack: list[tuple[bytes | Signature, int]] = [(signature, 1)]
    while stack:
        part, level = stack.pop()
        if isinstance(part, bytes):
            out.append(part)
            continue
        if level > _MAX_LEVELS:
            raise EncodeError("callbacks are nested deeper than Go reads, 10000 levels; split the chain")
        _check(part)
        settle(part.args or ())
        head, tail = _encode_alone(part).split(_CALLBACKS, 1)
        out.append(head)
        pieces: list[tuple[bytes | Signature, int]] = []
        for name, callbacks in ((b'"OnSuccess":', part.on_success), (b',"OnError":', part.on_error)):
            pieces.append((name + (b"null" if callbacks is None else b"["), level))
            for index, callback in enumerate(callbacks or ()):
                pieces.append((b"," if index else b"", level))
                pieces.append((b"null" if callback is None else callback, level + 2))
            if callbacks is not None:
                pieces.append((b"]", level))
        pieces.append((b',"ChordCallback":', level))
        pieces.append((b"null" if part.chord_callback is None else part.chord_callback, level + 1))
        stack.append((tail, level))
        stack.extend(reversed(pieces))
    return b"".join(out)


def _encode_alone(signature: Signature) -> bytes:
    """Encode a signature without its callbacks."""
    alone: Any = copy.copy(signature)
    alone.on_success = alone.on_error = alone.chord_callback = None
    if alone.headers is not None:
        alone.headers = msgspec.Raw(gojson.dumps(alone.headers))
    for attribute in _NAMES:
        value = getattr(alone, attribute)
        if isinstance(value, str) and _find_surrogate(value):
            setattr(alone, attribute, msgspec.Raw(gojson.quote(value)))
    try:
        return gojson.escape(_encode(alone))
    except (TypeError, ValueError) as error:
        raise EncodeError(f"a field of the signature for {signature.name!r} has no form in JSON: {error}") from None
