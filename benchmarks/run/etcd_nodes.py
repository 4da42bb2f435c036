"""A cluster of three etcd nodes on this machine's loopback, and kvzmq servers whose log it keeps."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.run.peers import start_kvzmq
from benchmarks.run.processes import DidNotStart, Process, free_port
from kvzmq.store.etcd.client import EtcdClient, EtcdError

NODES = 3

QUOTA_BYTES = 8 << 30
"""A run puts some 100 MB; etcd's default of 2 GiB would do, if nothing is left of another."""

_READY_S = 60.0


class EtcdNodes:
    """The nodes, started; ended by `stop`.

    Args:
        directory: where their data goes, a directory each: on one disk, where a real cluster has three
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._client_ports = [free_port() for _ in range(NODES)]
        self._peer_ports = [free_port() for _ in range(NODES)]
        self._nodes = [self._start(number) for number in range(NODES)]
        self.addresses = [f"127.0.0.1:{port}" for port in self._client_ports]
        self._client = EtcdClient(self.addresses)
        try:
            self.wait_ready()
        except DidNotStart:
            self.stop()
            raise

    def _start(self, number: int) -> Process:
        client, peer = (f"http://127.0.0.1:{ports[number]}" for ports in (self._client_ports, self._peer_ports))
        members = ",".join(f"n{at}=http://127.0.0.1:{port}" for at, port in enumerate(self._peer_ports))
        options = {
            "name": f"n{number}", "data-dir": "data", "listen-client-urls": client, "advertise-client-urls": client,
            "listen-peer-urls": peer, "initial-advertise-peer-urls": peer, "initial-cluster": members,
            "initial-cluster-state": "new", "quota-backend-bytes": str(QUOTA_BYTES), "log-level": "error",
        }  # fmt: skip
        command = ["etcd", *(word for name, value in options.items() for word in (f"--{name}", value))]
        return Process(command, self._directory / f"node{number}")

    def wait_ready(self) -> None:
        """Return when all nodes run and name the same leader. Raises: DidNotStart"""
        deadline_s = time.monotonic() + _READY_S
        while True:
            told = self._told()
            if len(told) == NODES and len({leader for _, leader in told.values()}) == 1 and self.leader() is not None:
                return
            if time.monotonic() > deadline_s:
                raise DidNotStart(f"etcd has no leader after {_READY_S:g} s: {self._nodes[0].output[-500:]}")
            time.sleep(0.05)

    def leader(self) -> int | None:
        """Return the number of the leading node, as those say that answer; None if it is not among them."""
        told = self._told()
        leaders = {leader for _, leader in told.values()}
        return next((number for number, (own, _) in told.items() if own in leaders), None)

    def _told(self) -> dict[int, tuple[int, int]]:
        """Return, of each node that answers, its own number in the cluster and that of the leader it knows."""
        found = {}
        for number, address in enumerate(self.addresses):
            with contextlib.suppress(EtcdError):
                status = self._client.status(address, timeout_s=1.0)
                found[number] = status.header.member_id, status.leader
        return found

    def kill(self, number: int) -> None:
        """End a node by SIGKILL."""
        self._nodes[number].signal(signal.SIGKILL)
        self._nodes[number].wait()

    def restart(self, number: int) -> None:
        """Start a node that was killed, on its own data, and wait until all agree on a leader."""
        self._nodes[number] = self._start(number)
        self.wait_ready()

    def cpu_s(self) -> float:
        """Return the processor time that the nodes have used."""
        return sum(node.cpu_s() for node in self._nodes)

    def url(self, name: str) -> str:
        """Return what `--log` of a server takes for the table of this name."""
        return f"etcd://{','.join(self.addresses)}/{name}"

    def start_servers(self, name: str, count: int, options: Sequence[str] = ()) -> list[tuple[Process, dict[str, Any]]]:
        """Start servers of one table, each in a directory of its own."""
        return [
            start_kvzmq(self._directory / name / f"server{number}", "--log", self.url(name), *options)
            for number in range(count)
        ]

    def stop(self) -> None:
        """End the nodes."""
        self._client.close()
        for node in self._nodes:
            node.stop()

    def __enter__(self) -> EtcdNodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
