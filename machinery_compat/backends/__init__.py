"""Result backends that keep Machinery's documents."""

from __future__ import annotations

import re
from typing import Any

from celery.app.backends import BACKEND_ALIASES
from celery.utils.imports import load_extension_class_names

from machinery_compat import drivers, errors, urls
from machinery_compat.transport.border import NOT_ENABLED

__all__ = ["BACKENDS", "backend_for", "claim"]

#: Kind of URL -> the class, loaded when it is needed so that its driver may be missing.
BACKENDS = {
    "amqp": "machinery_compat.backends.amqp:AMQPBackend",
    "dynamodb": "machinery_compat.backends.dynamodb:DynamoDBBackend",
    "eager": "machinery_compat.backends.eager:EagerBackend",
    "memcache": "machinery_compat.backends.memcache:MemcacheBackend",
    "mongodb": "machinery_compat.backends.mongodb:MongoBackend",
    "null": "machinery_compat.backends.null:NullBackend",
    "redis": "machinery_compat.backends.redis_cluster:backend",
}
_ENTRY_POINTS = "celery.result_backends"
_WORD = re.compile(r"[\w-]+")


def claim(app: Any, url: str) -> None:
    """Makes a URL that nobody knows an error of :func:`backend_for`, whoever gives it to Celery.

    Celery takes each scheme that it does not know for the name of a Python module.
    """
    scheme, separator, _ = url.partition("://")
    if not separator and not _WORD.fullmatch(url):
        return  # the path of a class
    name = scheme.partition("+")[0]
    known = {**BACKEND_ALIASES, **app.loader.override_backends, **dict(load_extension_class_names(_ENTRY_POINTS))}
    if name not in known:
        app.loader.override_backends = {**app.loader.override_backends, name: f"{__name__}:{backend_for.__name__}"}


def backend_for(app: Any, url: str | None = None, **kwargs: Any) -> Any:
    """The result backend of a Machinery URL; what ``machinery+redis://…`` means in any Celery app.

    Raises:
        ConfigError: the application does not speak Machinery, or no backend is known for the URL;
            the text lists those that are; or its driver is not installed.
    """
    if not hasattr(app, "machinery"):
        raise errors.ConfigError(NOT_ENABLED)
    # Celery passes no URL on where there is no "://".
    url = urls.uncut(url or str(app.backend_cls or app.conf.result_backend or ""))
    kind = urls.backend_kind(url)
    if kind not in BACKENDS:
        raise urls.unsupported("result backend", url, sorted(BACKENDS))
    if kind == "amqp":
        urls.check_amqp_url(url)
    return drivers.load(BACKENDS[kind], kind)(app=app, url=url, **kwargs)
