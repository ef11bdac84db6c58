"""Shares the periodic task of ``orders worker``: ``python periodic.py`` prints the name of its lock."""

from machinery_compat import Config, Server, new_signature

server = Server(Config.from_env(), program_name="orders")
server.register_periodic_task("0 6 * * *", "sweep", new_signature("sweep", routing_key="python_tasks"))

print(server.periodic.lock_name("sweep", "0 6 * * *"))
server.periodic.stop()
