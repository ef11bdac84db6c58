"""Python calls Go: ``python caller.py``."""

from machinery_compat import Arg, Config, Server, TaskError, new_signature

server = Server(Config.from_env())

result = server.send_task(new_signature("multiply", 12, 210))
print(result.get_with_timeout(30))

try:
    # Go wants a string there.
    server.send_task(new_signature("shout", Arg("int64", 1))).get_with_timeout(30)
except TaskError as error:
    print("error:", error)
