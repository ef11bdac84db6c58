"""Calls the tasks, whoever runs them; ``fleet call`` does the same in Go.

MACHINERY_CONFIG=redis.yml python call.py
"""

from __future__ import annotations

from machinery_compat import Chord, Config, Group, Server, TaskError, new_signature

SECONDS = 30

# The file that MACHINERY_CONFIG names, else Machinery's variables.
server = Server(Config.load())

greeting = server.send_task(new_signature("greet", "Ada"))
print("task:", *greeting.get_with_timeout(SECONDS))

# (1 + 2) + (3 + 4), the two sums side by side
sums = Group(new_signature("add", 1, 2), new_signature("add", 3, 4))
total = server.send_chord(Chord(sums, new_signature("add")))
print("chord:", *total.get_with_timeout(SECONDS))

refusal = server.send_task(new_signature("refuse", "not today"))
try:
    refusal.get_with_timeout(SECONDS)
except TaskError as error:
    print("error:", error)
