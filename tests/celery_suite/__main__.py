"""Fetches the sources of the installed Celery and runs their ``t/integration`` on real servers.

``python -m tests.celery_suite [FILE...] [-k EXPRESSION]`` runs all that concerns an application and a worker,
about 25 minutes, or only some of it; ``--plain`` runs it with plain Celery, and ``--broker amqp`` on RabbitMQ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from tests.support.services import RabbitServer, RedisServer

ROOT = Path(__file__).parents[2]
#: What concerns an application and a worker, and needs nothing but a broker and a store. (What is left out
#: tests Celery's own backends, or runs commands in a checkout of Celery.)
FILES = ("test_canvas.py", "test_tasks.py", "test_inspect.py", "test_group_chains.py", "test_beat.py")


def fetch(directory: Path) -> Path:
    """The folder of Celery's sources."""
    wanted = f"celery=={version('celery')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "celery", wanted]
    subprocess.run([*command, "--dest", str(directory)], check=True)
    (archive,) = directory.glob("celery-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(directory, filter="data")
    return directory / archive.name.removesuffix(".tar.gz")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=FILES, metavar="FILE", help=f"of {', '.join(FILES)}")
    parser.add_argument("-k", dest="expression", default="", help="as of pytest")
    parser.add_argument("--plain", action="store_true", help="plain Celery, to compare with")
    parser.add_argument("--broker", choices=["redis", "amqp"], default="redis")
    options = parser.parse_args()
    with ExitStack() as stack:
        sources = fetch(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        redis = stack.enter_context(RedisServer())
        broker = stack.enter_context(RabbitServer()).url() if options.broker == "amqp" else redis.url(0)
        variables = {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis.port),
            "TEST_BROKER": broker,
            # The tests use the ids of tasks as keys of their own, in database 0.
            "TEST_BACKEND": redis.url(1),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{sources}",
        }
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", "-o", "addopts=", "-rfEXx"]
        command += ["--tb=short", "--show-capture=no", "--rootdir", str(sources), "-c", str(sources / "pyproject.toml")]
        # What Celery's authors expect to fail may pass here.
        command += ["-o", "xfail_strict=false", "-o", "python_classes=test_*", "-k", options.expression]
        if not options.plain:
            command += ["-p", "tests.celery_suite.plugin"]
        files = [f"t/integration/{name}" for name in options.files]
        return subprocess.run([*command, *files], cwd=sources, env={**os.environ, **variables}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
