"""What still waits for Python workers: ``python left.py``."""

from machinery_compat import Config, Server

server = Server(Config.from_env())
print("waiting:", len(server.broker.get_pending_tasks("python_tasks")))
print("delayed:", sum(task.routing_key == "python_tasks" for task in server.broker.get_delayed_tasks()))
