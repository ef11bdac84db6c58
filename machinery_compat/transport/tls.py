"""TLS of AMQP connections: the server's certificate and its name are verified unless somebody says otherwise."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

__all__ = ["amqp_options"]


def amqp_options(chosen: Any, host: str) -> dict[str, Any] | bool:
    """The options of a connection, in py-amqp's terms, for what Celery's ``broker_use_ssl`` says.

    py-amqp verifies a name only if it is told one.

    Args:
        chosen: True, a dict of options, or what means no TLS.
        host: the server's name as the URL has it.
    """
    if not chosen:
        return False
    options = dict(chosen) if isinstance(chosen, Mapping) else {}
    if "context" in options:
        # The user's own rules, see py-amqp.
        return options
    options.setdefault("cert_reqs", ssl.CERT_REQUIRED)
    if options["cert_reqs"] == ssl.CERT_NONE:
        # With a name py-amqp would verify it, and then refuse not to verify the rest.
        options.pop("server_hostname", None)
    elif options.get("server_hostname") is None:
        options["server_hostname"] = host
    return options
