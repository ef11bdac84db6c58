"""A client: ``python send.py`` calls two tasks, ``python send.py later`` sends one and prints its id."""

import sys

from shop import app

if sys.argv[1:] == ["later"]:
    print(app.send_task("shop.receipt", [{"customer": "Bob"}, 2], countdown=2).id)
else:
    print(app.send_task("shop.total", [[10.5, 17.5], 0.1]).get(timeout=30))
    print(app.send_task("shop.receipt", [{"customer": "Ada"}], {"number": 1}).get(timeout=30))
