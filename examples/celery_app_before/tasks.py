from typing import Any

from shop import app


@app.task(name="shop.total")
def total(prices: list[float], discount: float = 0.0) -> float:
    return round(sum(prices) * (1 - discount), 2)


@app.task(name="shop.receipt")
def receipt(order: dict[str, Any]) -> str:
    return f"{order['customer']}: {len(order['items'])} items"


@app.task(name="shop.charge", bind=True, max_retries=3)
def charge(self: Any, customer: str, cents: int) -> str:
    if self.request.retries == 0:
        raise self.retry(exc=ConnectionError("the bank does not answer"), countdown=0.2)
    return f"{customer} has paid {cents} cents after {self.request.retries} retry"


@app.task(name="shop.refund")
def refund(customer: str) -> None:
    raise LookupError(f"{customer} has bought nothing")
