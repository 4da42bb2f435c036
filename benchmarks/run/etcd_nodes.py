"""A cluster of three etcd nodes on this machine's loopback, and kvzmq servers whose log it keeps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.run.peers import start_kvzmq
from benchmarks.run.processes import Process

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients"))

import EtcdNodes as etcd
from EtcdNodes import EtcdNode

__all__ = ["EtcdNode", "EtcdNodes"]

QUOTA_BYTES = 8 << 30
"""A run puts some 100 MB; etcd's default of 2 GiB would do, if nothing is left of another."""


class EtcdNodes(etcd.EtcdNodes):
    """The nodes, started; ended with the `with` block.

    Args:
        directory: where their data goes, a directory each: on one disk, where a real cluster has three
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        super().__init__(directory, "--quota-backend-bytes", str(QUOTA_BYTES))

    def start_servers(self, name: str, count: int, options: Sequence[str] = ()) -> list[tuple[Process, dict[str, Any]]]:
        """Start servers of one table, each in a directory of its own."""
        return [
            start_kvzmq(self._directory / name / f"server{number}", "--log", self.url(name), *options)
            for number in range(count)
        ]
