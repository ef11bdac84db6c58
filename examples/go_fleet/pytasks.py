"""The Python tasks of the application in ``orders.go``."""

from celery import shared_task

from machinery_compat import RetryTaskLater, current_signature


@shared_task(name="describe")
def describe(customer: str, cents: int) -> str:
    return f"{customer} pays {cents / 100:.2f}"


@shared_task(name="refund")
def refund() -> None:
    raise LookupError("Bob has bought nothing")


@shared_task(name="charge")
def charge() -> str:
    signature = current_signature()
    if signature is not None and signature.retry_count == 3:
        raise ConnectionError("the bank does not answer")
    return "charged"


@shared_task(name="report")
def report() -> None:
    raise RetryTaskLater("not all orders are in", delay=60)


@shared_task(name="sweep")
def sweep() -> None:
    """Sent by whoever gets the lock, see ``periodic.py``."""
