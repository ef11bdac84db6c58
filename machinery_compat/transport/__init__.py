"""Kombu transports that carry Machinery's messages."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, NamedTuple

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.base import Transport as BaseTransport
from kombu.utils.imports import symbol_by_name
from kombu.utils.url import parse_url

from machinery_compat import drivers, errors, urls
from machinery_compat.transport.base import FAILOVER_PREFIX

__all__ = ["FAILOVER_PREFIX", "TRANSPORTS", "Chosen", "Transport", "transport_for"]

#: Kind of URL -> the class, loaded when it is needed so that its driver may be missing.
TRANSPORTS = {
    "amqp": "machinery_compat.transport.amqp:Transport",
    "amqps": "machinery_compat.transport.amqp:SSLTransport",
    "eager": "machinery_compat.transport.memory:Transport",
    "gcpubsub": "machinery_compat.transport.gcpubsub:Transport",
    "redis": "machinery_compat.transport.redis:Transport",
    "rediss": "machinery_compat.transport.redis:TLSTransport",
    "sqs": "machinery_compat.transport.sqs:Transport",
}
#: What Kombu gets to see of every URL that means the eager broker.
EAGER_URL = "eager://"
#: Kind of URL -> the extra that brings its driver.
DRIVERS = {
    "amqp": "amqp",
    "amqps": "amqp",
    "gcpubsub": "gcpubsub",
    "redis": "redis",
    "rediss": "redis",
    "sqs": "sqs",
}
_NEARLY_A_URL = re.compile(r"[A-Za-z][\w+.-]*:/")


class Chosen(NamedTuple):
    """How a URL is connected to: the transport's class and the URL for it."""

    transport: str
    url: str


def transport_for(url: str) -> Chosen:
    """The transport of a Machinery broker URL.

    Raises:
        ConfigError: none is known, and the text lists those that are; or its driver is not installed.
    """
    url = url.removeprefix(FAILOVER_PREFIX)
    # As in Machinery, whatever follows.
    if url.startswith("eager"):
        return Chosen(TRANSPORTS["eager"], EAGER_URL)
    if "://" not in url and not _NEARLY_A_URL.match(url):
        # A bare host name, as Kombu itself passes on what it has parsed.
        return Chosen(TRANSPORTS["amqp"], url)
    url = urls.uncut(url)
    kind = urls.broker_kind(url, os.environ)
    if kind == "amqp":
        urls.check_amqp_url(url)
    if url.startswith(("amqps://", "rediss://")):
        kind = url.partition(":")[0]
    if kind not in TRANSPORTS:
        raise urls.unsupported("broker", url, sorted(TRANSPORTS))
    # Here, since Kombu would say of a missing driver only that some module is not there.
    drivers.load(TRANSPORTS[kind], DRIVERS[kind])
    # Kombu takes what stands before a plus sign for the name of a transport.
    return Chosen(TRANSPORTS[kind], url.removeprefix("redis+"))


def _errors_of(attribute: str) -> tuple[type[BaseException], ...]:
    """What the transports whose drivers are installed raise."""
    found: list[type[BaseException]] = []
    for name in ("amqp", "redis"):
        with contextlib.suppress(errors.ConfigError):
            found.extend(getattr(drivers.load(TRANSPORTS[name], name), attribute))
    return tuple(dict.fromkeys(found))


class Transport(BaseTransport):  # type: ignore[misc]
    """What ``machinery+redis://…`` and its like mean in a bare Kombu connection."""

    can_parse_url = True
    connection_errors = _errors_of("connection_errors")
    channel_errors = _errors_of("channel_errors")

    def __new__(cls, client: Any, **kwargs: Any) -> Any:
        chosen = transport_for(client.hostname)
        transport = symbol_by_name(chosen.transport)
        if transport.can_parse_url:
            client.hostname = chosen.url
        else:
            for name, value in parse_url(chosen.url).items():
                if name != "transport" and value is not None:
                    setattr(client, name, value)
        return transport(client=client, **kwargs)


TRANSPORT_ALIASES["machinery"] = f"{__name__}:Transport"
TRANSPORT_ALIASES["eager"] = TRANSPORTS["eager"]
# Of several URLs Kombu looks at the scheme only, and so does ``celery report`` of the broker's; Kombu itself has none.
for _scheme in ("https", "http"):
    TRANSPORT_ALIASES[f"{FAILOVER_PREFIX}{_scheme}"] = TRANSPORTS["sqs"]
    TRANSPORT_ALIASES.setdefault(_scheme, TRANSPORTS["sqs"])
TRANSPORT_ALIASES.update({f"{FAILOVER_PREFIX}{kind}": transport for kind, transport in TRANSPORTS.items()})
# Go's URLs have one letter more than the name of the extra.
TRANSPORT_ALIASES[f"{FAILOVER_PREFIX}gcppubsub"] = TRANSPORTS["gcpubsub"]
