"""A cluster of etcd nodes on this machine, as the demo, the tests and the measurements start it.

    with EtcdNodes(directory) as cluster:
        cluster.addresses               ["127.0.0.1:P", "127.0.0.1:P", "127.0.0.1:P"]
        cluster.leader().kill()         SIGKILL; .start() again, on its ports and data
        cluster.nodes[0].pause()        SIGSTOP; .resume()

The nodes end with the `with` block, and with this process, even one that is killed: the kernel ends a node with the
thread that started it, so start them from the main thread. Every wait is bounded; a failed one raises EtcdFailed with
what the nodes have logged last. It needs the program etcd (Debian's etcd-server) and nothing beside Python's library.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

NODES = 3

START_S_MAX = 60.0
"""How long a cluster may take until it has a leader: the machine may be busy."""

STOP_S_MAX = 30.0

PAGE_S_MAX = 2.0
"""How long a node may take to tell of itself; one that is stopped never does."""

LOG_BYTES_SHOWN = 3000
"""How much of each node's log is shown with an error: the end."""

_PR_SET_PDEATHSIG = 1

Self = TypeVar("Self", bound="EtcdNodes")


class EtcdFailed(Exception):
    """The nodes did not do what they were told; the message has what they have logged."""


class Tls(NamedTuple):
    """Files of a cluster with TLS; the nodes ask clients for a certificate.

    authority                         the certificate that signed the others
    certificate, key                  a client's
    node_certificate, node_key        of every node
    """

    authority: Path
    certificate: Path
    key: Path
    node_certificate: Path
    node_key: Path


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class EtcdNode:
    """One node: a process that may be killed and started again any number of times.

    Args:
        name: of the node in its cluster
        directory: where its data and its log go
        host: where it listens
        wrapper: put before the command, such as ("ip", "netns", "exec", NAME); it must become etcd by exec
    """

    def __init__(self, name: str, directory: Path, host: str = "127.0.0.1", wrapper: Sequence[str] = ()) -> None:
        self.name = name
        self.data = directory / name
        self.host = host
        self.wrapper = list(wrapper)
        self.client_port, self.peer_port, self.metrics_port = (free_port() for _ in range(3))
        self.options: list[str] = []
        """What every start adds to the command; the cluster sets it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / f"{name}.log"

    @property
    def address(self) -> str:
        """HOST:PORT for clients."""
        return f"{self.host}:{self.client_port}"

    @property
    def peer(self) -> str:
        """The URL for the other nodes."""
        return f"http://{self.host}:{self.peer_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has logged, in all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start it, and do not wait."""
        assert not self.running, "it runs already"
        assert threading.current_thread() is threading.main_thread(), "it would end with this thread"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.wrapper, "etcd", "--name", self.name, "--data-dir", str(self.data), *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith("ETCD")},
                start_new_session=True,  # Ctrl-C is for whoever has started it
                preexec_fn=_end_with_parent,
            )

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it by SIGKILL and wait until it is gone."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(STOP_S_MAX)

    def stop(self) -> None:
        """End it by SIGTERM; a leader hands over first."""
        if self._process is not None:
            self.signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.kill()

    def pause(self) -> None:
        """Stop it with SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on, with SIGCONT."""
        self.signal(signal.SIGCONT)

    def metric(self, name: str) -> float | None:
        """Return one of its metrics, or None if it does not answer at once."""
        for line in (self._get("metrics") or "").splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return None

    @property
    def healthy(self) -> bool:
        """Whether it says so: it has a leader, and a majority answers it."""
        return '"true"' in (self._get("health") or "")

    @property
    def is_leader(self) -> bool:
        return self.metric("etcd_server_is_leader") == 1

    def _get(self, page: str) -> str | None:
        if not self.running:
            return None
        url = f"http://{self.host}:{self.metrics_port}/{page}"
        try:
            with urllib.request.urlopen(url, timeout=PAGE_S_MAX) as reply:
                text: str = reply.read().decode()
                return text
        except (OSError, http.client.HTTPException):
            return None  # one that is killed or stopped may break off anywhere in its answer


class EtcdNodes:
    """The nodes of one cluster, started and healthy when made.

    Args:
        directory: for data and logs, made if it is not there
        options: of etcd, for every node: ("--quota-backend-bytes", "16777216")
        hosts: where each node listens; their number is that of the nodes
        wrappers: put before each node's command, see EtcdNode
        tls: how clients reach the nodes; by default without TLS

    Raises:
        EtcdFailed: they did not become healthy in time
        FileNotFoundError: there is no etcd
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        hosts: Sequence[str] = ("127.0.0.1",) * NODES,
        wrappers: Sequence[Sequence[str]] = (),
        tls: Tls | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.tls = tls
        wrappers = wrappers or ((),) * len(hosts)
        self.nodes = [
            EtcdNode(f"etcd{number}", directory, host, wrapper)
            for number, (host, wrapper) in enumerate(zip(hosts, wrappers), start=1)
        ]
        for node in self.nodes:
            node.options = [*self._options_of(node, str(directory)), *options]
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def _options_of(self, node: EtcdNode, token: str) -> list[str]:
        clients = f"{'http' if self.tls is None else 'https'}://{node.address}"
        secured = []
        if self.tls is not None:
            secured = [
                "--cert-file", str(self.tls.node_certificate), "--key-file", str(self.tls.node_key),
                "--trusted-ca-file", str(self.tls.authority), "--client-cert-auth",
            ]  # fmt: skip
        return [
            "--listen-client-urls", clients, "--advertise-client-urls", clients,
            "--listen-peer-urls", node.peer, "--initial-advertise-peer-urls", node.peer,
            "--listen-metrics-urls", f"http://{node.host}:{node.metrics_port}",
            "--initial-cluster", ",".join(f"{each.name}={each.peer}" for each in self.nodes),
            "--initial-cluster-state", "new", "--initial-cluster-token", token,
            "--logger", "zap", "--log-level", "warn", *secured,
        ]  # fmt: skip

    @property
    def addresses(self) -> list[str]:
        """Every node's HOST:PORT."""
        return [node.address for node in self.nodes]

    def url(self, name: str) -> str:
        """Return what `--log` of a server takes for the table of this name."""
        return f"etcd://{','.join(self.addresses)}/{name}"

    def start(self) -> None:
        """Start every node that does not run, and wait until all are healthy."""
        for node in self.nodes:
            if not node.running:
                node.start()
        self.wait_until_healthy()

    def wait_until_healthy(self, timeout_s: float = START_S_MAX) -> None:
        """Wait until every node that runs is healthy."""
        running = [node for node in self.nodes if node.running]
        self.wait_until(lambda: all(node.healthy for node in running), timeout_s, "a healthy cluster")

    def leader(self, timeout_s: float = START_S_MAX) -> EtcdNode:
        """Return the node that leads, after waiting for one."""
        found: list[EtcdNode] = []

        def look() -> bool:
            found[:] = [node for node in self.nodes if node.is_leader]
            return len(found) == 1

        self.wait_until(look, timeout_s, "one leader")
        return found[0]

    def followers(self) -> list[EtcdNode]:
        """Return the nodes that run and do not lead."""
        leader = self.leader()
        return [node for node in self.nodes if node.running and node is not leader]

    def wait_until(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        """Return when `condition` is true.

        Raises:
            EtcdFailed: it did not become so in time
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise EtcdFailed(f"{what} did not come within {timeout_s:g} s\n{self.logs()}")
            time.sleep(0.03)

    def kill(self) -> None:
        """End all nodes by SIGKILL."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        """Kill every node, start all, and wait until they are healthy."""
        self.kill()
        self.start()

    def logs(self) -> str:
        """Return the end of what each node has logged."""
        return "\n".join(f"---- {node.name}\n{node.log[-LOG_BYTES_SHOWN:]}" for node in self.nodes)

    def close(self) -> None:
        """Kill what runs."""
        self.kill()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
