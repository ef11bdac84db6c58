"""Celery's own integration tests, run with this package's application: ``python -m tests.celery_suite``."""
