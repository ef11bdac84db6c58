"""What a message holds: reading it, showing it in a log, and keeping what nobody can run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from machinery_compat import errors
from machinery_compat.wire import Signature, now_text

__all__ = [
    "REASON_SHOWN",
    "dead_letter",
    "dead_queue",
    "decode",
    "decode_all",
    "log_buried",
    "one_line",
    "shown",
    "unreadable_delayed",
]

logger = logging.getLogger("machinery_compat.transport")

#: Longest piece of a payload that is shown in a log line.
SHOWN = 200
#: Longest piece of a reason that is shown in a log line; it may quote the payload.
REASON_SHOWN = 500


def unreadable_delayed(exc: Exception) -> str:
    """Why a delayed task is buried that is none."""
    return f"Could not unmarshal a delayed task into a task signature: {exc}"


def shown(body: bytes) -> str:
    """A payload for a log line: its beginning, readable."""
    text = one_line(body[: SHOWN + 1].decode("utf-8", "backslashreplace"), SHOWN)
    return text if len(body) <= SHOWN else f"{text} ({len(body)} bytes)"


def one_line(text: str, longest: int) -> str:
    """The beginning of a stranger's text, which must not begin a log line of its own."""
    cut = text if len(text) <= longest else f"{text[:longest]}…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def decode(body: bytes, limit: int = 0) -> Signature:
    """The Signature in a payload.

    Args:
        body: the payload.
        limit: the most bytes that are looked at; 0 means any number.

    Raises:
        DecodeError: there is none, or one without a Name, which no worker can ever run.
    """
    if limit and len(body) > limit:
        raise errors.DecodeError(f"it has {len(body)} bytes and machinery_max_body_size is {limit}")
    signature = Signature.decode(body)
    if not signature.name:
        raise errors.DecodeError("it has no Name")
    return signature


def decode_all(bodies: Iterable[bytes], where: str) -> list[Signature]:
    """The Signatures in payloads; what is none is logged and left out."""
    found = []
    for body in bodies:
        try:
            found.append(Signature.decode(body))
        except errors.DecodeError as exc:
            logger.warning("%s holds what is no Signature (%s); it begins: %s", where, exc, shown(body))
    return found


def log_buried(body: bytes, reason: str, dead: str) -> None:
    logger.error("%s: kept in %s; it began: %s", one_line(reason, REASON_SHOWN), dead, shown(body))


def dead_letter(body: bytes, reason: str, queue: str) -> bytes:
    """The entry for ``<queue>:dead`` that keeps a payload nobody can run, byte for byte.

    Who puts it back into a queue may cut off the blanks at its end: its redeliveries are then
    counted anew.
    """
    entry: dict[str, Any] = {"reason": reason, "queue": queue, "time": now_text()}
    try:
        entry["body"] = body.decode("utf-8")
    except UnicodeDecodeError:
        entry["body_hex"] = body.hex()
    # Escapes would make it up to three times as long, and RabbitMQ has a limit of its own.
    return json.dumps(entry, ensure_ascii=False).encode()


def dead_queue(queue: str) -> str:
    return f"{queue}:dead"
