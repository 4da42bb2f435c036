"""table.txn: the log on this machine.

The file is the layout of `frames` with the magic `kvzmqLOG`; the header's number is that of the
first group in it. Each frame is one group, numbered consecutively through all logs of the table,
made durable by one sync. So at most the very last frame of the last log can be torn. After the last
frame up to PREPARED_BYTES of zeros may follow: blocks written ahead, because a sync that does not
have to make the file longer takes half the time. Where only zeros follow, the log ends.

While a compaction runs, the groups before it are in `table.txn.sealed` and new ones in a new
`table.txn`. The states of the directory, each of which recovers:

    nothing                      a new table
    [ckpt] txn                   the normal one
    [ckpt] sealed                a rotation was interrupted: a new txn continues the sealed log
    [ckpt] sealed txn            a compaction is running, failed, or has not started yet
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from itertools import count

from kvzmq import errors
from kvzmq.store.file import checkpoint, frames
from kvzmq.store.file.files import Directory, File
from kvzmq.store.log import SEMANTICS, Checkpoint

NAME = "table.txn"
NAME_TMP = "table.txn.tmp"
NAME_SEALED = "table.txn.sealed"
NAME_TORN = "table.txn.torn"
MAGIC = b"kvzmqLOG"

PREPARED_BYTES = 256 << 10
"""How many zeros are written ahead of the groups, together with one of them."""

_WINDOW_BYTES = 4 << 20

_log = logging.getLogger(__name__)


class FileLog:
    """The Log in one directory.

    Args:
        directory: where the files are; closed with the log
        read_only: recover without changing anything, for tools that only read
    """

    block_s_max = math.inf

    def __init__(self, directory: Directory, read_only: bool = False) -> None:
        self.directory = directory
        self.group = 0
        """The number of the last group."""
        self.semantics = SEMANTICS
        """The version of the file that was replayed last; of the log that is appended to, when recovery is done."""
        self.log_bytes = 0
        """The length of table.txn, without the zeros written ahead."""
        self.checkpoint_bytes = 0
        """The length of table.ckpt when it was last read."""
        self.checkpoint_group = -1
        """The last group in table.ckpt when it was last read; -1 if there was none."""
        self.torn_bytes = 0
        """How many bytes of a torn tail recovery truncated, or would truncate if read_only."""
        self._read_only = read_only
        self._file: File | None = None
        self._salt = b""
        self._prepared = 0  # the length of table.txn, with the zeros
        self._failed: str | None = None
        self._sealed_group = 0

    # ---- recovery

    def recover(self) -> Iterator[Checkpoint | bytes]:
        """Yield the checkpoint and the groups after it; see Log.recover."""
        directory = self.directory
        sealed_file = self._wait_for_compaction()
        if not self._read_only:
            # Names that a killed process left may be in the page cache alone. They come first: a new log
            # renamed over the old one's name must not be on the disk before the old one's new name is.
            directory.sync()
        try:
            yield from self.recover_sealed(sealed_file)
        finally:
            if sealed_file is not None:
                sealed_file.close()
        if directory.exists(NAME):
            self._file = directory.open(NAME)
            yield from self._replay(self._file, NAME, last=True)
        elif sealed_file is None and directory.exists(checkpoint.NAME):
            raise errors.CorruptionError(
                f"{directory.path / NAME} is missing beside a checkpoint: restore it from a backup; "
                "starting without it could lose acknowledged changes"
            )
        elif not self._read_only:
            self._start_log()
        self.look_at_checkpoint()

    def recover_sealed(self, sealed_file: File | None) -> Iterator[Checkpoint | bytes]:
        """Yield the checkpoint and the groups of the sealed log after it: what a compaction makes a checkpoint of."""
        found = checkpoint.read(self.directory)
        if found is not None:
            self.group = found.group
            yield found
        if sealed_file is not None:
            yield from self._replay(sealed_file, NAME_SEALED, last=False)
            self._sealed_group = self.group

    def _wait_for_compaction(self) -> File | None:
        """Open the sealed log, if there is one, after waiting for a compaction that works on it."""
        while True:
            try:
                file = self.directory.open(NAME_SEALED)
            except FileNotFoundError:
                return None
            if self._read_only:
                return file
            if not file.lock(wait=False):
                _log.warning("waiting for a compaction that an earlier server left behind")
                file.lock(wait=True)
            if self.directory.exists(NAME_SEALED):
                return file
            file.close()

    def _replay(self, file: File, name: str, last: bool) -> Iterator[bytes]:
        """Yield the groups of one log that come after `self.group`."""
        path = str(self.directory.path / name)
        header = frames.read_header(file, MAGIC, path)
        self.semantics = header.semantics
        expected = header.number
        if expected > self.group + 1:
            raise errors.CorruptionError(
                f"{path}: begins with group {expected}, but the files before it end with group {self.group}: "
                "a log or a checkpoint is missing"
            )
        end = frames.HEADER_BYTES
        start = end
        bad: frames.BadFrame | None = None
        try:
            for frame in frames.scan(file, header.salt):
                if frame.number != expected:
                    raise errors.CorruptionError(
                        f"{path}: offset {frame.offset}: group {frame.number}, expected {expected}"
                    )
                expected += 1
                start, end = frame.offset, frame.end
                if frame.number > self.group:
                    self.group = frame.number
                    yield frame.payload
        except frames.BadFrame as found:
            bad = found
        if bad is not None and not ends_in_zeros(file, end):
            self._handle_bad_frame(file, header.salt, path, bad, expected, last)
        if last and expected <= self.group:
            raise errors.CorruptionError(
                f"{path}: ends with group {expected - 1}, but the files before it end with group {self.group}: "
                "they do not belong together"
            )
        if last:
            self._salt = header.salt
            self.log_bytes = end
            self._prepared = file.size()
            if not self._read_only:
                self._make_tail_durable(file, start, end)

    def _handle_bad_frame(
        self, file: File, salt: bytes, path: str, bad: frames.BadFrame, expected: int, last: bool
    ) -> None:
        """Truncate a torn tail, and raise for anything else: only the last frame of the last log can be torn.

        A valid frame of an earlier number after it proves nothing: a client may have stored a piece of this log as a
        value.

        Raises:
            CorruptionError: it is damage
        """
        after = frames.find_frame(file, salt, bad.offset, expected + 1)
        if after is not None:
            raise errors.CorruptionError(
                f"{path}: {bad}, and a valid frame (group {after.number}) follows at offset {after.offset}: "
                "damage, not a torn tail"
            )
        if not last:
            raise errors.CorruptionError(f"{path}: {bad}: a sealed log has no torn tail")
        self.torn_bytes = file.size() - bad.offset
        if not self._read_only:
            self._cut_torn_tail(file, path, bad)

    def _cut_torn_tail(self, file: File, path: str, bad: frames.BadFrame) -> None:
        name = stem = f"{NAME_TORN}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        for number in count(2):  # a tail that an earlier recovery saved is not overwritten
            if not self.directory.exists(name):
                break
            name = f"{stem}-{number}"
        aside = self.directory.create(name)
        try:
            aside.write(0, file.read(bad.offset, self.torn_bytes))
            aside.sync()
        finally:
            aside.close()
        self.directory.sync()
        file.truncate(bad.offset)
        _log.warning(
            "%s: %s: a torn tail of %d bytes, never acknowledged, was saved to %s and cut",
            path, bad, self.torn_bytes, name,
        )  # fmt: skip

    def _make_tail_durable(self, file: File, start: int, end: int) -> None:
        """Write the last group again, and sync.

        It may be in the page cache alone: the process was killed between write and sync, or the sync failed and the
        kernel marked the pages clean, so that a sync alone would succeed now and write nothing. Every earlier group
        was synced before this one was written.
        """
        if end > start:
            file.write(start, file.read(start, end - start))
        file.sync()

    def look_at_checkpoint(self) -> None:
        """Read the length of the checkpoint, which determines when the next compaction is due, and its last group.

        Raises:
            CorruptionError: its header is not what was written
            WrittenByNewer: it is of a later version
        """
        self.checkpoint_bytes, self.checkpoint_group = 0, -1
        try:
            file = self.directory.open(checkpoint.NAME)
        except FileNotFoundError:
            return
        try:
            header = frames.read_header(file, checkpoint.MAGIC, str(self.directory.path / checkpoint.NAME))
            self.checkpoint_bytes, self.checkpoint_group = file.size(), header.number
        finally:
            file.close()

    # ---- appending

    def append(self, group: bytes) -> Sequence[bytes]:
        """Write `group` and start writing it to the disk; see Log.append. It never raises AppendUnknown."""
        self._check()
        file = self._file
        assert file is not None, "append before recover"
        frame = frames.encode_frame(self._salt, self.group + 1, group)
        self._write(file, frame)
        file.start_sync(self.log_bytes, len(frame))
        self.group += 1
        self.log_bytes += len(frame)
        return ()

    def sync(self) -> None:
        """Return when what was appended is on the disk; see Log.sync."""
        self._check()
        assert self._file is not None, "sync before recover"
        try:
            self._file.sync()
        except OSError as error:
            raise self._fail(f"{self.directory.path / NAME}: sync failed: {error.strerror}") from error

    def resolve(self) -> Sequence[bytes]:
        """Raise AssertionError: `append` never raises AppendUnknown here."""
        raise AssertionError("no append to this log was unknown")

    def _fail(self, why: str) -> errors.StorageFatal:
        self._failed = why
        return errors.StorageFatal(why)

    def _check(self) -> None:
        """Raise after a failure: the kernel may have marked lost pages clean, so that another sync proves nothing."""
        if self._failed is not None:
            raise errors.StorageFatal(self._failed)

    def _write(self, file: File, frame: bytes) -> None:
        end = self.log_bytes + len(frame)
        if end > self._prepared:
            try:
                file.write(self.log_bytes, frame + bytes(PREPARED_BYTES))
            except OSError as error:  # perhaps the disk has room for the group but not for the zeros
                self._cut_back(file, error)
            else:
                self._prepared = end + PREPARED_BYTES
                return
        try:
            file.write(self.log_bytes, frame)
        except OSError as error:
            self._cut_back(file, error)
            raise errors.WriteRejected(f"not applied: the log could not be written: {error.strerror}") from error
        self._prepared = max(self._prepared, end)

    def _cut_back(self, file: File, why: OSError) -> None:
        """Truncate a partly written group, so that the next one follows the last whole one."""
        try:
            file.truncate(self.log_bytes)
            file.sync()
        except OSError as error:
            raise self._fail(
                f"{self.directory.path / NAME}: could not cut back after {why.strerror}: {error.strerror}"
            ) from error
        self._prepared = self.log_bytes

    def barrier(self) -> Sequence[bytes]:
        """Return nothing: no other process appends to this log."""
        self._check()
        return ()

    def receive(self) -> Sequence[bytes]:
        """Return nothing: no other process appends to this log."""
        return ()

    def descriptors(self) -> Sequence[int]:
        """Return nothing: no other process appends to this log."""
        return ()

    # ---- checkpoint and truncation

    @property
    def sealed(self) -> bool:
        """Whether a sealed log waits for its compaction."""
        return self.directory.exists(NAME_SEALED)

    def seal(self) -> int:
        """Rename the log and continue in a new one; see Log.seal.

        The first rename must be on the disk before the second one: without the directory sync in between, a crash
        could keep the second and lose the first.

        Raises:
            WriteRejected: nothing has changed, the old log is still in use
            StorageFatal: what is on the disk is not known
        """
        self._check()
        assert self._file is not None and not self.sealed
        directory = self.directory
        try:
            new = self._write_empty_log()
        except OSError as error:
            raise errors.WriteRejected(f"a new log could not be written: {error.strerror}") from error
        try:
            directory.rename(NAME, NAME_SEALED)
        except OSError as error:
            new[0].close()
            raise errors.WriteRejected(f"the log could not be renamed: {error.strerror}") from error
        try:
            directory.sync()
            directory.rename(NAME_TMP, NAME)
            directory.sync()
        except OSError as error:
            raise self._fail(f"{directory.path}: rotation failed: {error.strerror}") from error
        self._file.close()
        self._file, self._salt = new
        self.semantics = SEMANTICS
        self.log_bytes = self._prepared = frames.HEADER_BYTES
        self._sealed_group = self.group
        return self.group

    def write_checkpoint(self, written: Checkpoint) -> None:
        """Replace table.ckpt; see Log.write_checkpoint."""
        checkpoint.write(self.directory, written.group, written.sections)

    def truncate(self, group: int) -> None:
        """Remove the sealed log if it ends with `group` or before; see Log.truncate. Groups go by whole files."""
        if self.sealed and self._sealed_group <= group:
            self.directory.unlink(NAME_SEALED)
            self.directory.sync()

    def _write_empty_log(self) -> tuple[File, bytes]:
        header = frames.new_header(MAGIC, self.group + 1)
        file = self.directory.create(NAME_TMP)
        try:
            file.write(0, frames.encode_header(header))
            file.sync()
        except OSError:
            file.close()
            raise
        return file, header.salt

    def _start_log(self) -> None:
        file, self._salt = self._write_empty_log()
        self.directory.rename(NAME_TMP, NAME)
        self.directory.sync()
        self._file = file
        self.semantics = SEMANTICS
        self.log_bytes = self._prepared = frames.HEADER_BYTES

    def _drop_prepared(self, file: File) -> None:
        if self._prepared > self.log_bytes:
            file.truncate(self.log_bytes)
            self._prepared = self.log_bytes

    def close(self) -> None:
        """Release files and directory."""
        if self._file is not None:
            if not self._read_only:
                with contextlib.suppress(OSError):  # recovery does not need it
                    self._drop_prepared(self._file)
            self._file.close()
            self._file = None
        self.directory.close()


def write_table(directory: Directory, written: Checkpoint) -> None:
    """Write a table's files into a directory that has none: a checkpoint, and a log after it. Durable on return.

    Raises:
        OSError: they could not be written
    """
    log = directory.create(NAME)
    try:
        log.write(0, frames.encode_header(frames.new_header(MAGIC, written.group + 1)))
        log.sync()
    finally:
        log.close()
    checkpoint.write(directory, written.group, written.sections)


def ends_in_zeros(file: File, offset: int) -> bool:
    """Say whether nothing but zeros comes after `offset`."""
    while window := file.read(offset, _WINDOW_BYTES):
        if window.strip(b"\0"):
            return False
        offset += len(window)
    return True
