"""A table's checkpoints in etcd, as the log asks for them: read through the copy on this machine's disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain

from kvzmq.store import sections
from kvzmq.store.etcd.checkpoints import Content, Head, Keys, Lock, Pace, upload
from kvzmq.store.etcd.etcd_log import Found
from kvzmq.store.etcd.local_copy import LocalCopy
from kvzmq.store.file import checkpoint
from kvzmq.store.log import Checkpoint


class KeptCheckpoints:
    """The checkpoints of a table, for a server, which never writes one itself.

    Args:
        keys: of the cluster
        name: the table's
        copy: on the server's disk
    """

    def __init__(self, keys: Keys, name: str, copy: LocalCopy) -> None:
        self.head: Head | None = None
        """Of the checkpoint that was read last."""
        self._keys = keys
        self._name = name
        self._copy = copy

    def newest(self) -> Found | None:
        """Return the newest checkpoint, or None if there is none."""
        found = self._copy.newest(self._keys, self._name)
        if found is None:
            self.head = None
            return None
        self.head, read = found
        return Found(read, self.head.position)

    def write(self, found: Found) -> None:
        """Raise AssertionError: a server has its upkeep write checkpoints."""
        raise AssertionError("a server does not write a checkpoint itself")

    def truncate(self, group: int, position: int) -> None:
        """Leave the groups where they are: they are trimmed later, when no server needs them any more."""


class WrittenCheckpoints(KeptCheckpoints):
    """The checkpoints of a table, for the process that writes one, while it holds their lock.

    Args:
        pace: see `upload`
    """

    def __init__(self, keys: Keys, name: str, copy: LocalCopy, held: Lock, pace: Pace = time.sleep) -> None:
        super().__init__(keys, name, copy)
        self._held = held
        self._pace = pace

    def newest(self) -> Found | None:
        """Return the newest checkpoint; the lock is kept while it is consumed."""
        found = super().newest()
        if found is None:
            return None
        (group, read), position = found
        return Found(Checkpoint(group, self.keep_while(read)), position)

    def keep_while(self, items: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the items, and keep the lock meanwhile."""
        for item in items:
            self._held.keep()
            yield item

    def write(self, found: Found) -> None:
        """Write the checkpoint to this machine's disk, then to etcd.

        Raises:
            LockLost: another server is at work, or has written a later one
            OSError: the disk failed
        """
        (group, dumped), position = found
        first = next(dumped)  # the head of the table
        summary = sections.summarize([first])
        directory = self._copy.directory
        checkpoint.write(directory, group, self.keep_while(chain([first], dumped)))
        file = directory.open(checkpoint.NAME)
        try:
            content = Content(group, position, summary.revision, summary.rows)
            head = upload(self._held, self._keys, self._name, file, content, self._pace)
        finally:
            file.close()
        self._copy.keep(checkpoint.NAME, head)
