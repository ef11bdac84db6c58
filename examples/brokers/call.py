"""Calls the tasks, whoever runs them; ``fleet call`` and ``fleet check`` do the same in Go.

MACHINERY_CONFIG=redis.yml python call.py
MACHINERY_CONFIG=redis.yml python call.py check     one of them, for health checks
"""

from __future__ import annotations

import sys

from machinery_compat import Chord, Config, Group, Server, TaskError, new_signature

SECONDS = 30


def call(server: Server) -> None:
    greet(server)

    # (1 + 2) + (3 + 4), the two sums side by side
    sums = Group(new_signature("add", 1, 2), new_signature("add", 3, 4))
    total = server.send_chord(Chord(sums, new_signature("add")))
    print("chord:", *total.get_with_timeout(SECONDS))

    refusal = server.send_task(new_signature("refuse", "not today"))
    try:
        refusal.get_with_timeout(SECONDS)
    except TaskError as error:
        print("error:", error)


def greet(server: Server) -> None:
    greeting = server.send_task(new_signature("greet", "Ada"))
    print("task:", *greeting.get_with_timeout(SECONDS))


if __name__ == "__main__":
    # The file that MACHINERY_CONFIG names, else Machinery's variables.
    {"": call, "check": greet}["".join(sys.argv[1:])](Server(Config.load()))
