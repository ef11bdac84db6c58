from celery import shared_task


@shared_task(name="shop.total")
def total(prices: list[float], discount: float) -> float:
    return round(sum(prices) * (1 - discount), 2)
