"""Celery and Kombu on the wire format of the Go task queue Machinery."""
