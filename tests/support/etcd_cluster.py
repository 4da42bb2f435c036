"""A real etcd cluster on loopback, for tests: the nodes of clients/EtcdNodes.py, with certificates, users and etcdctl.

    with EtcdCluster(tmp_path / "etcd") as cluster:
        cluster.leader().kill()         see EtcdNodes
        cluster.ctl("get", "--prefix", "") what etcdctl prints

A cluster costs a second to start and three processes, so tests share that of the session (the fixtures `etcd_cluster`
and `etcd_name` of conftest.py) where they do not hurt it, each below a name of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients"))

import EtcdNodes as nodes_of_clients
from EtcdNodes import EtcdFailed, EtcdNode, EtcdNodes, Tls

from support.servers import PATIENCE_S, free_port

__all__ = ["ROOT_PASSWORD", "EtcdCluster", "EtcdFailed", "EtcdNode", "Tls", "make_certificates"]

ROOT_PASSWORD = "open sesame"
"""Of the user root, with auth."""

_COMMAND_S = 60
"""How long etcd may take to do what etcdctl asks for: by itself, etcdctl gives a busy machine 5 s."""

_CTL_TIMEOUT_S = PATIENCE_S

nodes_of_clients.free_port = free_port  # others are given no port of a node that is down


class EtcdCluster(EtcdNodes):
    """A cluster, started and healthy when made.

    Args:
        directory: for data, logs and certificates
        options, hosts, wrappers: see EtcdNodes
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
        self._has_auth = False
        certificates = make_certificates(directory, hosts) if tls else None
        super().__init__(directory, *options, hosts=hosts, wrappers=wrappers, tls=certificates)
        if auth:
            try:
                self._enable_auth()
            except BaseException:
                self.close()
                raise

    def _enable_auth(self) -> None:
        self.ctl("user", "add", f"root:{ROOT_PASSWORD}")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("auth", "enable")
        self._has_auth = True

    def ctl(self, *arguments: str, nodes: Sequence[EtcdNode] = (), data: bytes = b"") -> str:
        """Run etcdctl on the cluster, or on some nodes of it; returns what it printed.

        Raises:
            EtcdFailed: it exited with an error
        """
        done = subprocess.run(
            ["etcdctl", "--command-timeout", f"{_COMMAND_S}s", *self._ctl_options(nodes or self.nodes), *arguments],
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(self.logs())
        self.close()


def make_certificates(directory: Path, hosts: Sequence[str]) -> Tls:
    """Make an authority, a certificate of the nodes for `hosts`, and one of a client, in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)

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
    files = ("ca.pem", "client.pem", "client.key", "server.pem", "server.key")
    return Tls(*(directory / name for name in files))
