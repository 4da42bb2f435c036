"""The two homes of a server's log, a directory or an etcd cluster, and what a server does otherwise for each.

A Home opens the log, checks what was recovered, and makes what looks after the log while the server runs.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kvzmq import errors
from kvzmq.server.loop import Compaction
from kvzmq.store.file.compaction import Compactor, upgrade
from kvzmq.store.file.file_log import NAME, FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.log import Log
from kvzmq.store.offline.reading import NAMES
from kvzmq.store.store import Store

if TYPE_CHECKING:
    from kvzmq.store.etcd.url import EtcdUrl, Security


class Home(Protocol):
    """Where a log is."""

    name: str
    """What people call it: the directory, or the cluster's URL."""

    @property
    def log(self) -> Log:
        """The log, not yet recovered."""

    @property
    def checkpoint_bytes(self) -> int:
        """How long the checkpoint was from which the table was recovered."""

    def check(self, store: Store) -> None:
        """Check what was recovered, before anything is appended.

        Raises:
            KvzmqError, OSError: the table cannot be served
        """

    def compactor(self, store: Store, after_records: int | None, after_bytes: int | None) -> Compaction:
        """Return what looks after the log."""

    def close(self) -> None:
        """Release what the log does not."""


class DirectoryHome:
    """A log in a directory, and nothing else.

    Raises:
        DirectoryInUse, OSError: the directory cannot be used
    """

    def __init__(self, data: Path) -> None:
        self.log = FileLog(DiskDirectory(data))
        self.name = str(data.resolve())

    @property
    def checkpoint_bytes(self) -> int:
        return self.log.checkpoint_bytes

    def check(self, store: Store) -> None:
        """Begin a new log if the one that was recovered is of an earlier version."""
        upgrade(self.log)

    def compactor(self, store: Store, after_records: int | None, after_bytes: int | None) -> Compaction:
        return Compactor(store, self.log, after_records, after_bytes)

    def close(self) -> None:
        """Release nothing: the log closes its directory."""


class ClusterHome:
    """A log on an etcd cluster, and a copy of the checkpoint in a directory.

    Args:
        url: of the table
        security: how etcd lets the server in
        data: the directory
        quota_bytes: of etcd's members, if they do not tell
        margin_s: how long groups are kept that a checkpoint holds
        is_new_epoch: whether to serve a table that has lost what this server has served

    Raises:
        DirectoryInUse, OSError: the directory cannot be used
        CannotListen: the extra is not installed
    """

    def __init__(
        self, url: EtcdUrl, security: Security, data: Path, quota_bytes: int, margin_s: float, is_new_epoch: bool
    ) -> None:
        try:
            from kvzmq.store.etcd.client import EtcdClient
        except ModuleNotFoundError:
            raise errors.CannotListen("--log etcd://... needs grpcio and protobuf: pip install 'kvzmq[etcd]'") from None
        from kvzmq.store.etcd.cluster import Cluster
        from kvzmq.store.etcd.etcd_log import EtcdLog
        from kvzmq.store.etcd.kept import KeptCheckpoints
        from kvzmq.store.etcd.local_copy import LocalCopy
        from kvzmq.store.etcd.upkeep import Settings

        self.name = str(url)
        self._directory = DiskDirectory(data)
        with contextlib.ExitStack() as undone:
            undone.callback(self._directory.close)
            if any((data / name).exists() for name in NAMES):
                raise errors.DirectoryInUse(
                    f"{data} holds a table of its own ({NAME}), and --log says to serve {url}: give another --data, or "
                    "leave out --log"
                )
            self._copy = LocalCopy(data)
            undone.pop_all()
        self._client = EtcdClient(url.addresses, security)
        self._cluster = Cluster(self._client)
        self._kept = KeptCheckpoints(self._cluster, url.name, self._copy)
        self._is_new_epoch = is_new_epoch
        self._generation = ""
        self.log = EtcdLog(EtcdClient(url.addresses, security), url.name, self._kept)
        self._settings = Settings(
            list(url.addresses), url.name, str(data), security.ca, security.certificate, security.key,
            security.user, security.password, quota_bytes, margin_s,
        )  # fmt: skip

    @property
    def checkpoint_bytes(self) -> int:
        return 0 if self._kept.head is None else self._kept.head.bytes

    def check(self, store: Store) -> None:
        """Check that the table has in its history what this server has served; remove what it has left, if killed.

        Raises:
            LogWentBack: it has not
            EtcdError: etcd does not answer
            OSError: the directory cannot be written to
        """
        from kvzmq.store.etcd.former import succeed
        from kvzmq.store.etcd.local_copy import begin_generation, check_index, check_seen, read_generation

        name = self._settings.name
        check_index(self._cluster, name, self._cluster.index_at, self._is_new_epoch)
        begin = begin_generation if self._is_new_epoch else read_generation
        self._generation = begin(self._cluster, name)
        check_seen(self._copy.read_seen(name), self._generation, store.table.epochs, store.revision)
        succeed(self._cluster, name, self.log.server, self._copy.path)

    def compactor(self, store: Store, after_records: int | None, after_bytes: int | None) -> Compaction:
        from kvzmq.store.etcd.poller import Poller
        from kvzmq.store.etcd.upkeep import Upkeep

        poller = Poller(self._cluster, self._cluster, self._settings.name, lambda: self.log.stored_bytes)
        return Upkeep(
            store, self.log, poller, self._copy, self._settings, self._generation, self._kept.head,
            after_records, after_bytes,
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections of the upkeep, and the directory."""
        self._client.close()
        self._directory.close()
