"""What stands on top of the report: the machine, the versions, the commit that was measured."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.run.measuring import FEW_ROUNDS, Bench, Size
from kvzmq import __version__
from kvzmq.bench import machine

_COMMANDS = {
    "Redis": ["redis-server", "--version"],
    "memcached": ["memcached", "-V"],
    "etcd": ["etcd", "--version"],
}
_PACKAGES = {
    "pyzmq": "pyzmq",
    "msgspec": "msgspec",
    "redis-py": "redis",
    "hiredis": "hiredis",
    "pymemcache": "pymemcache",
    "diskcache": "diskcache",
}
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")


def write_facts(bench: Bench) -> None:
    """Write machine.csv."""
    facts = machine.describe(bench.base)
    facts |= {
        "measured on": time.strftime("%Y-%m-%d"),
        "size of the run": _size_text(bench.size),
        "kvzmq": f"{__version__}{_commit()}",
    }
    facts |= _versions()
    with bench.writer("machine", ("fact", "value")) as writer:
        for fact, value in facts.items():
            writer.add(fact=fact, value=value)


def _size_text(size: Size) -> str:
    few = min(FEW_ROUNDS, size.rounds)
    return (
        f"{size.name}: {size.rounds} rounds of {size.seconds:g} s a measurement, {few} rounds and other"
        " times where one takes long"
    )


def _versions() -> dict[str, str]:
    found = {}
    for name, package in _PACKAGES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    import sqlite3

    import zmq

    found["libzmq"] = zmq.zmq_version()
    found["SQLite"] = sqlite3.sqlite_version
    for name, command in _COMMANDS.items():
        found[name] = _ask(command) if shutil.which(command[0]) else "not installed"
    return found


def _ask(command: Sequence[str]) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    version = _VERSION.search(said)
    return version[0] if version else "unknown"


def _commit() -> str:
    """Return the commit of the sources, and whether they have been changed since; nothing outside a repository."""
    here = Path(__file__).resolve().parents[2]
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", "kvzmq"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return f", commit {commit.stdout.strip()}" + (", with changes" if changed.stdout.strip() else "")
