"""The contenders: how each is started, what it promises, which client speaks to it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from benchmarks.results import OVER, PYZMQ, USUAL_TRANSPORT
from benchmarks.run.processes import DidNotStart, Process, accepts, free_port
from benchmarks.run.tables import TABLES

KVZMQ = (sys.executable, "-c", "from kvzmq.cli import main; main(prog_name='kvzmq')")


class NotHere(Exception):
    """A contender cannot take part on this machine; the message says why."""


class Running:
    """A contender's server, ready; or its files alone, for one without a server.

    address    what its clients have to know
    process    None for a library that works on files
    """

    def __init__(self, peer: Peer, process: Process | None, address: Mapping[str, Any], directory: Path) -> None:
        self.peer = peer
        self.process = process
        self.address = dict(address)
        self.directory = directory

    def cpu_s(self) -> float:
        """Return the processor time its server has used."""
        return self.process.cpu_s() if self.process is not None else 0.0

    def pause(self) -> None:
        """Have the server take no processor time, although it has housekeeping to do."""
        if self.process is not None and self.peer.restless:
            self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        if self.process is not None and self.peer.restless:
            self.process.signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the server."""
        if self.process is not None:
            self.resume()
            self.process.stop()


class Peer(NamedTuple):
    """One contender.

    name      in the CSV files; with its transport where that is not the usual one, `kvzmq, pyzmq`
    title     in the report's tables
    short     in its sentences
    promise   what an acknowledged change has survived
    table     its client in TABLES
    start     starts the server in a directory, and gives process and address
    needs     the command it needs, or a Python module
    restless  whether its idle server uses so much of a processor that it would disturb the others
    transport what its client speaks ZMTP over; nothing if it does not speak that
    """

    name: str
    title: str
    short: str
    promise: str
    table: str
    start: Callable[[Path], tuple[Process | None, dict[str, Any]]]
    needs: Sequence[str] = ()
    restless: bool = False
    transport: str = ""

    @property
    def contender(self) -> str:
        """Its name without the transport."""
        return self.name.partition(OVER)[0]

    def over(self, transport: str, table: str) -> Peer:
        """Return the same contender with a client over another transport: `table` in TABLES."""
        return self._replace(name=f"{self.name}{OVER}{transport}", transport=transport, table=table)

    def check(self) -> None:
        """Raises: NotHere, when something is not installed."""
        for need in self.needs:
            kind, _, name = need.partition(":")
            if kind == "command" and shutil.which(name) is None:
                raise NotHere(f"the command {name} is not installed")
            if kind == "module":
                try:
                    __import__(name)
                except ImportError:
                    raise NotHere(f"the Python package {name} is not installed") from None

    def run(self, base: Path) -> Running:
        """Start it in a new directory under `base`. Raises: NotHere, DidNotStart"""
        self.check()
        name = self.name.replace(OVER, "-").replace(" ", "-")
        directory = base / name
        number = 1
        while directory.exists():
            number += 1
            directory = base / f"{name}-{number}"
        directory.mkdir(parents=True)
        process, address = self.start(directory)
        return Running(self, process, address, directory)


def start_kvzmq(directory: Path, *options: str, program: Sequence[str] = KVZMQ) -> tuple[Process, dict[str, Any]]:
    """Start a kvzmq server with its bridge; options are added to the command line."""
    command = [
        *program,
        "server",
        "--data",
        "table",
        "--bind",
        "tcp://127.0.0.1:0",
        "--tcp",
        "127.0.0.1:0",
        "--log-level",
        "warning",
    ]
    process = Process([*command, *options], directory)
    process.wait_ready(lambda: "Listening on port" in process.output)
    lines = [line.rpartition(" ")[2] for line in process.output.splitlines() if line.startswith("Listening on")]
    return process, {"url": lines[0], "bridge": int(lines[1])}


def _start_kvzmq_one_by_one(directory: Path) -> tuple[Process, dict[str, Any]]:
    return start_kvzmq(directory, "--no-group-commit")


def _start_kvzmq_curve(directory: Path) -> tuple[Process, dict[str, Any]]:
    """Start a server with CURVE; the URL says the keys, so that every client of it has them."""
    keys = {name: directory / f"{name}.key_secret" for name in ("server", "client")}
    lines = {
        name: subprocess.run(
            [*KVZMQ, "keygen", name, "--dir", str(directory)], check=True, capture_output=True, text=True
        ).stdout.split()
        for name in keys
    }
    clients = directory / "clients"
    clients.write_text(f"client {lines['client'][1]} read,write,admin\n")
    process, address = start_kvzmq(directory, "--curve-key", str(keys["server"]), "--clients", str(clients))
    parameters = {"server_key": lines["server"][1], "curve_key": str(keys["client"])}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return process, {**address, "url": f"{address['url']}?{query}"}


def _start_kvzmq_unobserved(directory: Path) -> tuple[Process, dict[str, Any]]:
    """Start a server that measures nothing: without the observer behind `stats` and metrics."""
    without = "from kvzmq.cli.serving import building; building.Metrics = lambda: None; "
    return start_kvzmq(directory, program=(*KVZMQ[:-1], without + KVZMQ[-1]))


def _start_kvzmq_with_metrics(directory: Path) -> tuple[Process, dict[str, Any]]:
    """Start a server that also makes the page for Prometheus, every few seconds by itself."""
    return start_kvzmq(directory, "--metrics", "127.0.0.1:0")


def _wait_for_port(process: Process, port: int) -> tuple[Process, dict[str, Any]]:
    process.wait_ready(lambda: accepts(port))
    return process, {"port": port}


def start_redis(directory: Path, *options: str) -> tuple[Process, dict[str, Any]]:
    """Start a Redis server without RDB snapshots; options are added to the command line."""
    port = free_port()
    command = [
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(directory),
        *options,
    ]
    return _wait_for_port(Process(command, directory), port)


def _start_redis_always(directory: Path) -> tuple[Process, dict[str, Any]]:
    return start_redis(directory, "--appendonly", "yes", "--appendfsync", "always")


def _start_redis_memory(directory: Path) -> tuple[Process, dict[str, Any]]:
    return start_redis(directory, "--appendonly", "no")


def _start_memcached(directory: Path) -> tuple[Process, dict[str, Any]]:
    port = free_port()
    return _wait_for_port(
        Process(["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "1024", "-u", "nobody"], directory),
        port,
    )


def _start_etcd(directory: Path) -> tuple[Process, dict[str, Any]]:
    port, peer_port = free_port(), free_port()
    url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    command = [
        "etcd",
        "--data-dir",
        str(directory / "etcd"),
        "--listen-client-urls",
        url,
        "--advertise-client-urls",
        url,
    ]
    command += [
        "--listen-peer-urls",
        peer_url,
        "--initial-advertise-peer-urls",
        peer_url,
        "--initial-cluster",
        f"default={peer_url}",
    ]
    process = Process([*command, "--log-level", "error"], directory)

    def leads() -> bool:
        try:
            TABLES["etcd"]({"port": port}).insert("ready", b"")
        except (OSError, ValueError):
            return False
        return True

    process.wait_ready(leads)
    return process, {"port": port}


def _no_server(directory: Path) -> tuple[None, dict[str, Any]]:
    return None, {"path": str(directory / "table.db")}


def _start_baseline(name: str, *arguments: str) -> Callable[[Path], tuple[Process, dict[str, Any]]]:
    def start(directory: Path) -> tuple[Process, dict[str, Any]]:
        port = free_port()
        process = Process([sys.executable, "-m", "benchmarks.run.baselines", name, str(port), *arguments], directory)
        process.wait_ready(lambda: "ready" in process.output)
        return process, {"port": port, "url": f"tcp://127.0.0.1:{port}"}

    return start


DURABLE = "durable"
MEMORY = "in memory"
NOTHING = "no table"

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("kvzmq", "kvzmq", "kvzmq", DURABLE, "kvzmq", start_kvzmq, transport=USUAL_TRANSPORT),
        Peer("kvzmq-bridge", "kvzmq, bridge", "kvzmq's bridge", DURABLE, "kvzmq-bridge", start_kvzmq),
        Peer(
            "kvzmq-curve",
            "kvzmq with CURVE",
            "kvzmq with CURVE",
            DURABLE,
            "kvzmq-pyzmq",
            _start_kvzmq_curve,
            transport=PYZMQ,
        ),
        Peer(
            "kvzmq-unobserved",
            "kvzmq that measures nothing",
            "kvzmq without measuring itself",
            DURABLE,
            "kvzmq",
            _start_kvzmq_unobserved,
            transport=USUAL_TRANSPORT,
        ),
        Peer(
            "kvzmq-metrics",
            "kvzmq --metrics",
            "kvzmq with a page of metrics",
            DURABLE,
            "kvzmq",
            _start_kvzmq_with_metrics,
            needs=("module:prometheus_client",),
            transport=USUAL_TRANSPORT,
        ),
        Peer(
            "kvzmq-one-by-one",
            "kvzmq --no-group-commit",
            "kvzmq without group commit",
            DURABLE,
            "kvzmq",
            _start_kvzmq_one_by_one,
            transport=USUAL_TRANSPORT,
        ),
        Peer(
            "redis",
            "Redis, appendfsync always",
            "Redis (synced)",
            DURABLE,
            "redis",
            _start_redis_always,
            ("command:redis-server", "module:redis"),
        ),
        Peer(
            "redis-many",
            "Redis, always, MSET and MGET",
            "Redis (synced, MSET and MGET)",
            DURABLE,
            "redis-many",
            _start_redis_always,
            ("command:redis-server", "module:redis"),
        ),
        Peer(
            "redis-memory",
            "Redis, no log",
            "Redis (no log)",
            MEMORY,
            "redis",
            _start_redis_memory,
            ("command:redis-server", "module:redis"),
        ),
        Peer(
            "memcached",
            "memcached",
            "memcached",
            MEMORY,
            "memcached",
            _start_memcached,
            ("command:memcached", "module:pymemcache"),
        ),
        Peer(
            "etcd",
            "etcd, one node, JSON gateway",
            "etcd",
            DURABLE,
            "etcd",
            _start_etcd,
            ("command:etcd",),
            restless=True,
        ),
        Peer("sqlite", "SQLite, WAL, synchronous=FULL", "SQLite", DURABLE, "sqlite", _no_server),
        Peer(
            "diskcache",
            "diskcache, synchronous=FULL",
            "diskcache",
            DURABLE,
            "diskcache",
            _no_server,
            ("module:diskcache",),
        ),
        Peer(
            "manager",
            "multiprocessing Manager().dict()",
            "Manager().dict()",
            MEMORY,
            "manager",
            _start_baseline("manager"),
        ),
        Peer(
            "one-sync",
            "select server, a sync a change",
            "the select server",
            DURABLE,
            "json-lines",
            _start_baseline("one-sync", "table.log"),
        ),
        Peer(
            "one-sync-filled",
            "a scan, in the select server",
            "a scan",
            DURABLE,
            "json-lines",
            _start_baseline("one-sync", "table.log", "100000", "10"),
        ),
        Peer(
            "router-echo",
            "bare ROUTER echo",
            "the ROUTER echo",
            NOTHING,
            "frames",
            _start_baseline("router-echo"),
            transport=USUAL_TRANSPORT,
        ),
        Peer(
            "json-echo",
            "bare epoll JSON echo",
            "the JSON echo",
            NOTHING,
            "json-lines",
            _start_baseline("json-echo", "32"),
        ),
    )
}
"""The contenders by name."""

FRAMES_ALONE = "frames alone"
"""The usual socket with none of kvzmq's client above it."""

OTHER_CLIENTS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        PEERS["kvzmq"].over(PYZMQ, "kvzmq-pyzmq"),
        PEERS["kvzmq"].over(FRAMES_ALONE, "frames"),
        PEERS["router-echo"].over(PYZMQ, "frames-pyzmq"),
    )
}
"""Contenders with another client than their usual one, by name."""

__all__ = [
    "DURABLE",
    "FRAMES_ALONE",
    "MEMORY",
    "NOTHING",
    "OTHER_CLIENTS",
    "PEERS",
    "DidNotStart",
    "NotHere",
    "Peer",
    "Running",
    "start_kvzmq",
    "start_redis",
]
