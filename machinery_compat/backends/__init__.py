"""Result backends that keep Machinery's documents."""

from __future__ import annotations

import re
from typing import Any

from celery.app.backends import BACKEND_ALIASES
from celery.utils.imports import load_extension_class_names

from machinery_compat import drivers, errors, urls
from machinery_compat.transport.border import NOT_ENABLED

__all__ = ["BACKENDS", "backend_for", "setting_for"]

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
#: Before a URL it means a backend of this package.
PREFIX = "machinery+"
_WORD = re.compile(r"[\w-]+")


def setting_for(app: Any, url: str) -> str:
    """What Celery's ``result_backend`` must say, so that a URL that nobody knows is :func:`backend_for`'s error.

    Celery takes each scheme that it does not know for the name of a Python module.
    """
    scheme, separator, _ = url.partition("://")
    if not separator and not _WORD.fullmatch(url):
        return url  # the path of a class
    name = scheme.partition("+")[0]
    if name in BACKEND_ALIASES or name in app.loader.override_backends:
        return url
    if name in dict(load_extension_class_names("celery.result_backends")):
        return url
    return PREFIX + (url if separator else f"{url}://")


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
