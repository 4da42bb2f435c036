"""Several real servers of one table on an etcd cluster, for tests.

with Fleet(tmp_path, etcd, "t", 3) as fleet:
    fleet.servers[0].kill()         see `support.servers`
    fleet.rows()                    of every server, after comparing them
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import kvzmq
from support.etcd_cluster import EtcdCluster
from support.servers import PATIENCE_S, ServerProcess
from support.workload import Rows, Workload, read_rows

SETTLE_S = PATIENCE_S
"""How long clients wait for replies that are due: etcd may be electing a leader, on a busy machine."""


class Fleet:
    """The servers.

    Args:
        directory: theirs are below it
        etcd: the cluster
        name: the table's
        servers: how many
        options: of each server
    """

    def __init__(self, directory: Path, etcd: EtcdCluster, name: str, servers: int, *options: str) -> None:
        self.etcd = etcd
        self.log = etcd.url(name)
        self.servers: list[ServerProcess] = []
        try:
            for number in range(servers):
                self.servers.append(ServerProcess(directory / f"server{number}", "--log", self.log, *options))
        except BaseException:
            self.close()
            raise

    @property
    def urls(self) -> list[str]:
        """The endpoints of the servers that run."""
        return [server.url for server in self.servers if server.running]

    def rows(self) -> Rows:
        """Return the table, after comparing what every server says of it by linearizable reads."""
        found = [read_rows(server.url) for server in self.servers if server.running]
        for number, rows in enumerate(found):
            assert rows == found[0], f"server {number} has another table: {_difference(found[0], rows)}"
        return found[0]

    def judge(self, load: Workload) -> int:
        """Wait for every reply that is due, and judge the table of every server; returns how many rows it has."""
        load.settle(SETTLE_S)
        rows = self.rows()
        assert load.judge(rows) == 0
        return len(rows)

    def stats(self, number: int = 0) -> dict[str, object]:
        """Return what a server says of itself."""
        with kvzmq.connect(self.servers[number].url, timeout=SETTLE_S) as table:
            return table.stats()

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for number, server in enumerate(self.servers):
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write(f"---- standard error of server {number}\n{server.stderr[-6000:]}\n")
        self.close()


def spread(load: Workload, urls: Sequence[str]) -> None:
    """Connect the clients of a load to the servers in turn; they send again what has no reply, wherever they are."""
    for number, client in enumerate(load.clients):
        client.connect(urls[number % len(urls)])


def _difference(one: Rows, other: Rows) -> list[str]:
    keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    return [f"{key}: {one.get(key)!r:.80} and {other.get(key)!r:.80}" for key in sorted(keys)[:5]]
