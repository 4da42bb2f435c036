"""A real etcd cluster on loopback, for tests.

    with EtcdCluster(tmp_path / "etcd") as cluster:
        cluster.addresses               127.0.0.1:P,127.0.0.1:P,127.0.0.1:P
        cluster.leader().kill()         SIGKILL; .start() again, on its ports and data
        cluster.nodes[0].pause()        SIGSTOP; .resume()
        cluster.ctl("get", "--prefix", "") what etcdctl prints

A cluster costs a second to start and three processes, so tests share that of the session (the fixtures `etcd_cluster`
and `etcd_name` of conftest.py) where they do not hurt it, each below a name of its own. Nodes end with the `with`
block, and with the test run, as servers do (see `support.servers`): start them from the main thread. Every wait is
bounded, and a failed one shows what the nodes have logged last.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from support.servers import PATIENCE_S, end_with_the_tests, free_port

START_TIMEOUT_S = PATIENCE_S
"""How long a cluster may take until it has a leader: the machine may be busy."""

STOP_TIMEOUT_S = PATIENCE_S

ROOT_PASSWORD = "open sesame"
"""Of the user root, with auth."""

_LOG_BYTES_SHOWN = 3000
_CTL_TIMEOUT_S = PATIENCE_S


class Tls(NamedTuple):
    """Files of a cluster with TLS.

    authority           the certificate that signed the others
    certificate, key    a client's, which the nodes ask for
    """

    authority: Path
    certificate: Path
    key: Path


class EtcdFailed(AssertionError):
    """Say that the cluster, or etcdctl, did not do what it was told, and what the nodes have logged."""


class EtcdNode:
    """One node: a process that may be killed and started again any number of times.

    Args:
        name: of the node in its cluster
        directory: where its data and its log go
        host: where it listens
        wrapper: put before the command, such as ("ip", "netns", "exec", NAME); it must become etcd by exec
    """

    def __init__(self, name: str, directory: Path, host: str, wrapper: Sequence[str] = ()) -> None:
        self.name = name
        self.data = directory / name
        self.host = host
        self.wrapper = list(wrapper)
        self.client_port, self.peer_port, self.metrics_port = (free_port() for _ in range(3))
        self.options: list[str] = []
        """What every start adds to the command; the cluster sets it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`

    @property
    def address(self) -> str:
        """HOST:PORT for clients."""
        return f"{self.host}:{self.client_port}"

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
        return os.pread(self._log.fileno(), 1 << 24, 0).decode(errors="replace")

    def start(self) -> None:
        """Start it, and do not wait."""
        assert not self.running, "it runs already"
        assert threading.current_thread() is threading.main_thread(), "it would end with this thread"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        self._process = subprocess.Popen(
            [*self.wrapper, "etcd", "--name", self.name, "--data-dir", str(self.data), *self.options],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment,
            preexec_fn=end_with_the_tests,
        )

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it by SIGKILL and wait until it is gone."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """End it by SIGTERM; a leader hands over first."""
        if self._process is not None:
            self.signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def pause(self) -> None:
        """Stop it with SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on, with SIGCONT."""
        self.signal(signal.SIGCONT)

    def metric(self, name: str) -> float | None:
        """Return one of its metrics, or None if it does not answer."""
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
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.metrics_port}/{page}", timeout=2.0) as reply:
                text: str = reply.read().decode()
                return text
        except OSError:
            return None

    def close(self) -> None:
        """Kill it if it runs, and forget what it has logged."""
        self.kill()
        self._log.close()


class EtcdCluster:
    """A cluster, started and healthy when made.

    Args:
        directory: for data, logs and certificates
        hosts: where each node listens; their number is that of the nodes
        wrappers: put before each node's command, see EtcdNode
        options: of etcd, for every node: ("--quota-backend-bytes", "16777216")
        tls: make certificates; nodes ask clients for theirs
        auth: ask for users and passwords; there is the user root with ROOT_PASSWORD
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        hosts: Sequence[str] = ("127.0.0.1",) * 3,
        wrappers: Sequence[Sequence[str]] = (),
        tls: bool = False,
        auth: bool = False,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.tls = make_certificates(directory, hosts) if tls else None
        self._has_auth = False
        wrappers = wrappers or ((),) * len(hosts)
        self.nodes = [
            EtcdNode(f"node{number}", directory, host, wrapper)
            for number, (host, wrapper) in enumerate(zip(hosts, wrappers))
        ]
        for node in self.nodes:
            node.options = [*self._options_of(node), *options]
        try:
            self.start()
            if auth:
                self._enable_auth()
        except BaseException:
            self.close()
            raise

    def _options_of(self, node: EtcdNode) -> list[str]:
        scheme = "http" if self.tls is None else "https"
        clients = f"{scheme}://{node.address}"
        peers = f"http://{node.host}:{node.peer_port}"
        secured = []
        if self.tls is not None:
            directory = self.tls.authority.parent
            secured = [
                "--cert-file", str(directory / "server.pem"), "--key-file", str(directory / "server.key"),
                "--trusted-ca-file", str(self.tls.authority), "--client-cert-auth",
            ]  # fmt: skip
        return [
            "--listen-client-urls", clients, "--advertise-client-urls", clients,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--listen-metrics-urls", f"http://{node.host}:{node.metrics_port}",
            "--initial-cluster", ",".join(f"{n.name}=http://{n.host}:{n.peer_port}" for n in self.nodes),
            "--initial-cluster-state", "new", "--initial-cluster-token", str(self.nodes[0].data.parent),
            "--logger", "zap", "--log-level", "warn", *secured,
        ]  # fmt: skip

    def _enable_auth(self) -> None:
        self.ctl("user", "add", f"root:{ROOT_PASSWORD}")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("auth", "enable")
        self._has_auth = True

    # ---- life

    @property
    def addresses(self) -> str:
        """Every node's HOST:PORT, with commas between."""
        return ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        """Start every node that does not run, and wait until all are healthy."""
        for node in self.nodes:
            if not node.running:
                node.start()
        self.wait_until_healthy()

    def wait_until_healthy(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until every node that runs is healthy and one of them is leader."""
        running = [node for node in self.nodes if node.running]
        self.wait_until(lambda: all(node.healthy for node in running), timeout_s, "a healthy cluster")

    def leader(self, timeout_s: float = START_TIMEOUT_S) -> EtcdNode:
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
                raise EtcdFailed(f"{what} did not come within {timeout_s} s\n{self.logs()}")
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
        return "\n".join(f"---- {node.name}\n{node.log[-_LOG_BYTES_SHOWN:]}" for node in self.nodes)

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    # ---- etcdctl

    def ctl(self, *arguments: str, nodes: Sequence[EtcdNode] = (), data: bytes = b"") -> str:
        """Run etcdctl on the cluster, or on some nodes of it; returns what it printed.

        Raises:
            EtcdFailed: it exited with an error
        """
        done = subprocess.run(
            ["etcdctl", *self._ctl_options(nodes or self.nodes), *arguments],
            input=data,
            capture_output=True,
            env=os.environ | {"ETCDCTL_API": "3"},
            timeout=_CTL_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise EtcdFailed(f"etcdctl {' '.join(arguments)}: {done.stderr.decode()}\n{self.logs()}")
        return done.stdout.decode(errors="replace")

    def _ctl_options(self, nodes: Sequence[EtcdNode]) -> list[str]:
        options = ["--endpoints", ",".join(node.address for node in nodes)]
        if self.tls is not None:
            options += ["--cacert", str(self.tls.authority), "--cert", str(self.tls.certificate)]
            options += ["--key", str(self.tls.key)]
        if self._has_auth:
            options += ["--user", f"root:{ROOT_PASSWORD}"]
        return options

    def __enter__(self) -> EtcdCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(self.logs())
        self.close()


def make_certificates(directory: Path, hosts: Sequence[str]) -> Tls:
    """Make an authority, a certificate of the nodes for `hosts`, and one of a client, in `directory`."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    names = ",".join(["DNS:localhost", *(f"IP:{host}" for host in dict.fromkeys(hosts))])
    for name, extension in (("server", f"subjectAltName={names}"), ("client", "extendedKeyUsage=clientAuth")):
        openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (directory / f"{name}.ext").write_text(f"{extension}\n")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip
    return Tls(directory / "ca.pem", directory / "client.pem", directory / "client.key")
