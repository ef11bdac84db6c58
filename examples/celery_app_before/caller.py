"""Calls the tasks and prints what they give: ``python caller.py``."""

from shop import app
from tasks import receipt, refund, total

ORDER = {"customer": "Ada", "items": ["pen", "ink"]}


def main() -> None:
    print("total:", total.delay([10.5, 17.5], discount=0.1).get(timeout=30))
    print("receipt:", receipt.apply_async(args=[ORDER], countdown=0.5).get(timeout=30))
    print("charge:", app.send_task("shop.charge", ["Ada", 2520]).get(timeout=30))
    try:
        refund.delay("Bob").get(timeout=30)
    except LookupError as error:
        print("refund:", error)


if __name__ == "__main__":
    main()
