"""The bytes by which a proxy knows the moment to strike at."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from machinery_compat.redis_client import lua
from tests.fault.harness.app import GATHER, OURS, WORK
from tests.fault.harness.proxy import TO_CLIENT, TO_SERVER, Proxy
from tests.fault.harness.site import AMQP, REDIS, Site

__all__ = ["Moment", "acks", "chord_triggers", "claims", "delayed_moves"]


class Moment(NamedTuple):
    """When a worker dies: a pattern of bytes, which way they go, and whether they still arrive."""

    proxy: Proxy
    mark: bytes
    direction: str
    before: bool


def claims(site: Site) -> list[Moment]:
    """The server hands over a message."""
    mark = re.escape(WORK.encode())
    return [Moment(site.broker_proxy, mark, TO_CLIENT, before) for before in (True, False)]


def acks(site: Site) -> list[Moment]:
    """A worker says that a message has been dealt with."""
    if site.broker_kind == AMQP:
        # A method frame of any channel: class 60, method 80.
        mark = rb"\x01..\x00\x00\x00\x0d\x00\x3c\x00\x50"
    else:
        mark = rb"LREM\r\n" if site.system == OURS else rb"ZREM\r\n\$\d+\r\nunacked_index"
    return [Moment(site.broker_proxy, mark, TO_SERVER, before) for before in (True, False)]


def delayed_moves(site: Site) -> list[Moment]:
    """A worker moves delayed tasks that are due; plain Celery has none of this, its worker holds them."""
    if site.system != OURS:
        return []
    mark = rb"EVALSHA\r\n\$40\r\n" + _sha("move_due")
    return [Moment(site.broker_proxy, mark, TO_SERVER, before) for before in (True, False)]


def chord_triggers(site: Site) -> list[Moment]:
    """The last member has ended: around the flag in the group's document, and around the callback's message."""
    name = re.escape(GATHER.encode())
    if site.system != OURS:
        sent = b'"task": "%b"' % name if site.broker_kind == REDIS else rb"\x04taskS....%b" % name
        return [Moment(site.broker_proxy, sent, TO_SERVER, before) for before in (True, False)]
    # The members name their callback too, and its acknowledgement holds its body.
    sent = rb'(?<!"ChordCallback":)\{"UUID":"[^"]*","Name":"%b"' % name
    if site.broker_kind == REDIS:
        sent = rb"RPUSH\r\n\$\d+\r\n[^\r]*\r\n\$\d+\r\n" + sent
    flag = rb'"ChordTriggered":true'
    return [
        Moment(site.store_proxy, flag, TO_SERVER, before=False),
        Moment(site.broker_proxy, sent, TO_SERVER, before=True),
        Moment(site.broker_proxy, sent, TO_SERVER, before=False),
        Moment(site.store_proxy, flag, TO_SERVER, before=True),
    ]


def _sha(script: str) -> bytes:
    """The name that Redis gives a script."""
    return hashlib.sha1(lua(script).encode()).hexdigest().encode()  # noqa: S324
