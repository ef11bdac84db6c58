"""Stores of results are found by their URLs, in every way in which Celery takes one, and show no password."""

from __future__ import annotations

from collections.abc import Callable

import celery
import pytest

from machinery_compat import Celery, Config, enable
from machinery_compat.errors import ConfigError

STORES = {
    "amqp://u:secret@h/vhost": ("AMQPBackend", "amqp://h"),
    "https://dynamodb.us-east-2.amazonaws.com": ("DynamoDBBackend", "https://dynamodb.us-east-2.amazonaws.com"),
    "https://dynamodb": ("DynamoDBBackend", "https://dynamodb"),
    "memcache://h1:1,h2:2": ("MemcacheBackend", "memcache://h1:1,h2:2"),
    "mongodb://u:secret@h1:27017,h2:27018/db?replicaSet=x": ("MongoBackend", "mongodb://h1:27017,h2:27018"),
    "mongodb+srv://u:secret@h.invalid/db": ("MongoBackend", "mongodb+srv://h.invalid"),
}
APPS: dict[str, Callable[[str], celery.Celery]] = {
    "config": lambda url: Celery(config=Config(broker="eager", result_backend=url), set_as_current=False),
    "argument": lambda url: Celery(broker="eager", backend=url, set_as_current=False),
    "enabled": lambda url: enable(
        celery.Celery(broker="memory://", backend=f"machinery+{url}", set_as_current=False),
    ),
}


@pytest.mark.parametrize("make", APPS.values(), ids=APPS)
@pytest.mark.parametrize("url", STORES)
def test_a_url_finds_its_store_and_is_shown_without_its_password(
    url: str, make: Callable[[str], celery.Celery]
) -> None:
    app = make(url)

    name, shown = STORES[url]
    assert (type(app.backend).__name__, app.backend.url, app.backend.as_uri()) == (name, url, shown)
    assert app.backend.as_uri(include_password=True) == url
    assert "secret" not in app.bugreport()


@pytest.mark.parametrize("variable", [None, "CELERY_RESULT_BACKEND"])
@pytest.mark.parametrize("url", ["postgres://u:secret@h/db", "postgres", "postgres+psycopg://h"])
def test_a_url_of_nobody_is_an_error_that_lists_what_there_is(
    url: str, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's command puts RESULT_BACKEND into the variable, which goes before the setting."""
    if variable is not None:
        monkeypatch.setenv(variable, url)
    app = APPS["config"]("null" if variable else url)
    assert app.conf.timezone is None  # configured, as a worker's application is

    with pytest.raises(ConfigError, match=r"Factory failed with result backend: .* \(supported: amqp://") as raised:
        _ = app.backend
    assert "secret" not in str(raised.value)
