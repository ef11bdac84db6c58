"""``docker-compose.yml`` and the Dockerfiles: valid, consistent, and what the containers run does run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from docker.utils.build import exclude_paths

from machinery_compat import Config, urls
from tests.conftest import Names, _missing
from tests.support import compose, golang
from tests.support.compose import ROOT
from tests.support.netns import private_network
from tests.support.processes import Process, Unavailable
from tests.support.services import MotoServer

#: Each profile with the kinds of its broker and of its result backend.
PROFILES = {
    "redis": ("redis", "redis"),
    "sentinel": ("redis", "redis"),
    "cluster": ("redis", "redis"),
    "amqp": ("amqp", "amqp"),
    "memcache": ("redis", "memcache"),
    "mongodb": ("amqp", "mongodb"),
    "sqs": ("sqs", "redis"),
    "dynamodb": ("sqs", "dynamodb"),
    "pubsub": ("gcpubsub", "redis"),
}
DOCKERFILES = ["Dockerfile", "examples/brokers/go/Dockerfile", "tests/smoke/Dockerfile"]
CALLED = re.compile(r"task: Hello Ada, says (Go|Python)\nchord: 10\nerror: not today\n")


@pytest.fixture(autouse=True)
def docker_compose() -> None:
    try:
        compose.profiles()
    except Unavailable as error:
        _missing(error)


def workers(profile: str) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose.services(profile).items() if name.endswith(f"-{profile}")}


def test_every_profile_is_known_and_nothing_starts_without_one() -> None:
    assert sorted(compose.profiles()) == sorted(PROFILES)
    assert compose.compose("config", "--services") == ""
    head = compose.FILE.read_text().partition("# Profiles: ")[2].partition(".")[0]
    assert head.split(", ") == list(PROFILES)
    table = (ROOT / "examples/brokers/README.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|.*`python-\1`, `go-\1` \|$", table, re.MULTILINE) == list(PROFILES)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_service_is_healthy_before_others_use_it(profile: str) -> None:
    services = compose.services(profile)

    for name, service in services.items():
        for other, link in (service.get("depends_on") or {}).items():
            once = services[other]["healthcheck"].get("disable", False)
            expected = "service_completed_successfully" if once else "service_healthy"
            assert link["condition"] == expected, f"{name} on {other}"
        assert service["healthcheck"].get("disable") or service["healthcheck"]["test"], name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        if "build" not in service:
            assert re.search(r":v?\d[\w.-]+$", service["image"]), f"{name}: {service['image']} names no version"


@pytest.mark.parametrize("profile", PROFILES)
def test_both_workers_have_one_configuration_that_leads_to_the_servers_they_wait_for(profile: str) -> None:
    python, go = workers(profile)[f"python-{profile}"], workers(profile)[f"go-{profile}"]
    environment = python["environment"]
    config = Config.from_env(environment)

    assert environment == go["environment"]
    assert python["depends_on"] == go["depends_on"]
    config.validate(environment)
    kinds = urls.broker_kind(config.broker, environment), urls.backend_kind(config.result_backend)
    assert kinds == PROFILES[profile]
    named = " ".join(environment.values())
    used = {name for name in python["depends_on"] if not name.endswith("-prepared")}
    assert used == {name for name in compose.services(profile) if re.search(rf"(//|,|@|^| ){name}:\d", named)}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_that_a_dockerfile_copies_is_there(name: str) -> None:
    dockerfile = ROOT / name
    context = dockerfile.parent if name.endswith("go/Dockerfile") else ROOT
    ignore = context / ".dockerignore"
    patterns = (
        [line for line in ignore.read_text().splitlines() if line[:1] not in ("", "#")] if ignore.exists() else []
    )
    # What Docker's own client would send to the daemon, as docker-py reads the same rules.
    sent = exclude_paths(str(context), patterns, name)

    sources = [source for sources, _ in compose.copies(dockerfile) for source in sources]

    assert sources
    for source in sources:
        found = [path.relative_to(context).as_posix() for path in context.glob(source)]
        assert found, f"{source} is not there"
        assert set(found) <= sent, f"{source} is kept away by .dockerignore"
    assert not any(path.startswith((".git/", ".venv/", ".cache/")) for path in sent)


def test_the_dockerfiles_are_those_that_are_built() -> None:
    builds = {
        Path(service["build"]["context"], service["build"]["dockerfile"])
        for profile in PROFILES
        for service in compose.services(profile).values()
        if "build" in service
    }

    assert builds == {ROOT / name for name in DOCKERFILES[:2]}


def test_the_python_image_has_extras_that_exist() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    default = re.search(r"^ARG EXTRAS=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    built = {workers(profile)[f"python-{profile}"]["build"]["args"]["EXTRAS"] for profile in PROFILES}

    assert default
    assert set(default[1].split(",")) <= set(extras)
    assert built == {"all"}


def test_the_go_image_has_a_toolchain_that_is_new_enough() -> None:
    text = (ROOT / "examples/brokers/go/Dockerfile").read_text()
    module = (ROOT / "examples/brokers/go/go.mod").read_text()
    image, needed = re.search(r"FROM golang:1\.(\d+)", text), re.search(r"^go 1\.(\d+)", module, re.MULTILINE)

    assert image
    assert needed
    assert int(image[1]) >= int(needed[1])


@pytest.fixture
def fleet_program() -> Path:
    try:
        return golang.build(".", golang.BROKERS)
    except Unavailable as error:
        _missing(error)


@pytest.fixture
def network(fleet_program: Path) -> Iterator[None]:
    for program in ("redis-server", "redis-cli", "unshare"):
        if shutil.which(program) is None:
            _missing(Unavailable(f"no {program}"))
    try:
        with private_network():
            yield
    except Unavailable as error:
        _missing(error)


@pytest.mark.redis
@pytest.mark.go
@pytest.mark.parametrize("profile", ["redis", "sentinel", "cluster"])
def test_a_fleet_runs_by_the_commands_of_its_containers(
    profile: str, network: None, fleet_program: Path, tmp_path: Path
) -> None:
    with compose.Fleet(profile, tmp_path, fleet_program) as fleet:
        assert CALLED.fullmatch(fleet.execute(f"go-{profile}", "fleet", "call"))
        if profile == "sentinel":
            fleet.stop("redis-master")
        assert CALLED.fullmatch(fleet.execute(f"python-{profile}", "python", "call.py"))


@pytest.mark.sqs
@pytest.mark.dynamodb
@pytest.mark.redis
@pytest.mark.go
def test_what_go_expects_of_amazon_is_prepared(
    fleet_program: Path, moto_server: MotoServer, redis_db: str, names: Names, tmp_path: Path
) -> None:
    """Queue and tables; SQS and its results on Redis by the variables of the Go worker."""
    variables = {**compose.services("sqs")["go-sqs"]["environment"], "DEFAULT_QUEUE": names.queue}
    tables = {"TASK_STATES_TABLE": f"states-{names.queue}", "GROUP_METAS_TABLE": f"metas-{names.queue}"}
    environment = {name: value.replace("http://aws:5000", moto_server.url()) for name, value in variables.items()}
    environment |= {**tables, "RESULT_BACKEND": redis_db, "PYTHONPATH": str(ROOT)}
    prepare = [sys.executable, str(ROOT / "examples" / "brokers" / "prepare.py")]

    # What is there already stays.
    for _ in range(2):
        subprocess.run(prepare, env={**os.environ, **environment}, check=True, timeout=60)

    assert set(tables.values()) <= set(moto_server.client("dynamodb").list_tables()["TableNames"])
    worker = Process([fleet_program, "worker"], tmp_path / "worker.log", environment)
    try:
        printed = subprocess.run(
            [fleet_program, "call"], env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True, timeout=60
        ).stdout.decode()
        assert CALLED.fullmatch(printed)
    finally:
        worker.kill()
        print(worker.tail())
