"""A small Celery application: ``celery -A shop worker``."""

from celery import Celery

app = Celery("shop", include=["tasks"])
app.config_from_object("celeryconfig")
