"""The same application as a member of a Go fleet: ``celery -A shop worker``."""

from machinery_compat import Celery

app = Celery("shop", include=["tasks"])
app.config_from_object("celeryconfig")
