from celery import shared_task


@shared_task(name="shop.receipt")
def receipt(order: dict[str, str], number: int) -> str:
    return f"{order['customer']}: receipt {number}"
