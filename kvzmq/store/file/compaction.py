"""Compaction of the log in a directory, in a child process.

The child does what a server does at its start: it recovers checkpoint and sealed log into a table. Then it writes
that table as the new checkpoint and removes the sealed log (`store.compact`). So compaction uses the code of recovery,
needs no fork, and does not pause the server; in return there is a second table in memory while it runs. The child
holds the sealed log's lock, so that no other process compacts it at the same time.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable

from kvzmq import errors, units
from kvzmq.store.child import Child, attach
from kvzmq.store.file import checkpoint
from kvzmq.store.file.file_log import NAME_SEALED, FileLog
from kvzmq.store.file.files import Directory, DiskDirectory, File
from kvzmq.store.file.frames import HEADER_BYTES
from kvzmq.store.log import SEMANTICS
from kvzmq.store.store import Store, compact

LOG_BYTES_MIN = 64 << 20
"""A log shorter than this is not compacted, unless another threshold is set."""

RETRY_S = 1.0
RETRY_S_MAX = 60.0
"""After what time a compaction that failed is tried again: the first, then twice as long each time up to the second."""

_log = logging.getLogger(__name__)


def compact_sealed(directory: Directory) -> bool:
    """Compact the sealed log of `directory`: write a new checkpoint, remove the log.

    Returns:
        False if there is no sealed log, or another process is compacting it

    Raises:
        CorruptionError: a file is not what was written; nothing was changed
        OSError: try again: the old checkpoint and the sealed log, or the new checkpoint, hold everything
    """
    try:
        sealed = directory.open(NAME_SEALED)
    except FileNotFoundError:
        return False
    try:
        if not sealed.lock(wait=False) or not _is_sealed(directory, sealed):
            return False
        compact(_SealedLog(directory, sealed))
    finally:
        sealed.close()  # only now: its blocks must not be reused while its name is on the disk
    return True


def upgrade(log: FileLog) -> None:
    """Begin a new log if the one that was recovered has earlier semantics (see `store.log.SEMANTICS`).

    All requests of a log have the same semantics. If there is a sealed log it is compacted first, however long that
    takes.

    Raises:
        CorruptionError, OSError, WriteRejected, StorageFatal: as `compact_sealed` and `seal` do
    """
    if log.semantics == SEMANTICS:
        return
    if log.sealed:
        compact_sealed(log.directory)
    log.seal()


def _is_sealed(directory: Directory, opened: File) -> bool:
    """Say whether the file that was opened before it was locked still is the sealed log.

    Another compaction may have removed it meanwhile, and a server may have sealed the next log under the same name.
    Their headers differ, as every log has a salt of its own.
    """
    try:
        present = directory.open(NAME_SEALED)
    except FileNotFoundError:
        return False
    try:
        return present.read(0, HEADER_BYTES) == opened.read(0, HEADER_BYTES)
    finally:
        present.close()


class _SealedLog(FileLog):
    """The checkpoint and the sealed log, without the log that is being appended to."""

    def __init__(self, directory: Directory, sealed: File) -> None:
        super().__init__(directory, read_only=True)
        self._sealed = sealed

    def recover(self):  # type: ignore[no-untyped-def]
        return self.recover_sealed(self._sealed)


class Compactor:
    """Decides when to compact, starts the child process, and starts it again if it fails.

    Args:
        store: kept by `log`
        log: the store's
        after_records: compact when the log holds as many requests
        after_bytes: compact when the log is as long; by default when it is longer than the checkpoint and 64 MiB
        clock: seconds that only grow
    """

    def __init__(
        self,
        store: Store,
        log: FileLog,
        after_records: int | None = None,
        after_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._after_records = after_records
        self._after_bytes = after_bytes
        self._child: Child | None = None
        self._has_sealed_log = log.sealed
        self._began_s = 0.0
        self._sealed_bytes: int | None = None  # the length of the sealed log; None if an earlier server sealed it
        self._rows: int | None = None  # in the new checkpoint; None if an earlier server sealed the log
        self._retry_s = RETRY_S
        self._next_s = 0.0
        self._requested = -1  # the group that somebody wants in a checkpoint
        self.completed = 0
        """Compactions done."""
        self.failed = 0
        """Compactions that failed and were, or will be, tried again."""
        self.trouble: str | None = None
        """Why the latest one failed, or None."""

    @property
    def running(self) -> bool:
        """Whether a child is at work."""
        return self._child is not None

    def request_checkpoint(self) -> Callable[[], File | None]:
        """Have a checkpoint written that holds every group there is now, unless there is one already.

        A compaction that runs, or is still to do, is waited for first: it may have begun with an earlier group.

        Returns:
            what opens that checkpoint, or a later one, when it is there; until then None. It raises BackupFailed when
            a compaction has failed since, and OSError when the file cannot be opened. The file stays the same however
            many compactions follow
        """
        group, failed = self._log.group, self.failed
        self._requested = max(self._requested, group)
        self._next_s = 0.0  # at once, however long after a failure the next try would be

        def open_when_written() -> File | None:
            if self._log.checkpoint_group >= group:
                return self._log.directory.open(checkpoint.NAME)
            if self.failed > failed:
                raise errors.BackupFailed(f"the server could not write a checkpoint: {self.trouble}")
            return None

        return open_when_written

    def describe(self) -> dict[str, int | str | bool | None]:
        """Return what `stats` says of log and compaction."""
        disk = os.statvfs(self._log.directory.path)
        return {
            "disk_bytes": disk.f_blocks * disk.f_frsize,
            "disk_free_bytes": disk.f_bavail * disk.f_frsize,
            "log_bytes": self._log.log_bytes,
            "checkpoint_bytes": self._log.checkpoint_bytes,
            "last_group": self._log.group,
            "compaction_running": self.running,
            "compactions": self.completed,
            "compactions_failed": self.failed,
            "compaction_trouble": self.trouble,
        }

    def poll(self) -> None:
        """Handle the end of the child, or start one if it is time.

        Raises:
            StorageFatal: the rotation failed, and what is on the disk is not known
        """
        if self._child is not None:
            self._reap(self._child)
        elif self._has_sealed_log:
            if self._clock() >= self._next_s:
                self._start()
        elif self._is_due():
            self._rotate()

    def _is_due(self) -> bool:
        if self._requested > self._log.checkpoint_group:
            return True
        if self._after_records is not None:
            return self._store.records >= self._after_records
        if self._after_bytes is not None:
            return self._log.log_bytes >= self._after_bytes
        return self._log.log_bytes > max(LOG_BYTES_MIN, self._log.checkpoint_bytes)

    def _rotate(self) -> None:
        if self._clock() < self._next_s:
            return
        log_bytes = self._log.log_bytes
        try:
            self._store.seal()
        except errors.WriteRejected as error:
            self._fail(str(error))
            return
        self._rows, self._sealed_bytes = self._store.row_count, log_bytes
        self._has_sealed_log = True
        self._start()

    def _start(self) -> None:
        try:
            self._child = Child("kvzmq.store.file.compaction", str(self._log.directory.path))
        except OSError as error:
            self._fail(f"cannot start a process: {error.strerror}")
            return
        self._began_s = self._clock()
        what = "of what an earlier server left"
        if self._rows is not None and self._sealed_bytes is not None:
            what = f"{units.count(self._rows, 'row')}, a log of {units.size(self._sealed_bytes)}"
        _log.info(
            "compaction begins, %s",
            what,
            extra={
                "event": "compaction_begun",
                "rows": self._rows,
                "log_bytes": self._sealed_bytes,
                "checkpoint_bytes": self._log.checkpoint_bytes,
            },
        )

    def _reap(self, child: Child) -> None:
        failure = child.failure()
        if failure is None:
            return
        self._child = None
        if not failure and not self._log.sealed:
            self._has_sealed_log = False
            try:
                self._log.look_at_checkpoint()
            except (errors.CorruptionError, errors.WrittenByNewer) as error:
                self._fail(str(error))
                return
            self._retry_s = RETRY_S
            self.completed += 1
            self.trouble = None
            took_s = self._clock() - self._began_s
            _log.info(
                "compaction done in %s: a checkpoint of %s%s",
                units.duration(took_s),
                units.size(self._log.checkpoint_bytes),
                "" if self._rows is None else f", {units.count(self._rows, 'row')}",
                extra={
                    "event": "compaction_done",
                    "took_s": round(took_s, 3),
                    "rows": self._rows,
                    "checkpoint_bytes": self._log.checkpoint_bytes,
                },
            )
        else:
            self._fail(failure or "the sealed log is still there")

    def _fail(self, reason: str) -> None:
        self.failed += 1
        self.trouble = reason
        self._requested = -1  # its readers get the failure
        self._next_s = self._clock() + self._retry_s
        _log.warning(
            "compaction failed, next try in %.0f s: %s", self._retry_s, reason,
            extra={"event": "compaction_failed", "retry_s": self._retry_s, "reason": reason},
        )  # fmt: skip
        self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)

    def close(self) -> None:
        """Kill the child; the files are consistent at any moment, and the next server compacts the log."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def main(path: str, version: str, parent: str) -> None:
    """Compact the sealed log in `path`: the main function of the child process.

    Args:
        path: the directory
        version, parent: the server's, see `attach`
    """
    attach(version, int(parent))
    gc.disable()  # a compaction makes no cycles, and the process ends with it
    os.nice(10)
    try:
        compact_sealed(DiskDirectory(path, lock=False))
    except (errors.KvzmqError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
