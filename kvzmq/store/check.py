"""Reads a table's files and says what is in them. Changes nothing, not even a lock.

`Reading` opens the files as they are at one moment, also beside a server that rotates and compacts,
so that everything below can look at them through the store's own code. `look` goes through every
frame of every file, past damage too, and then does what a server would: recover.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn
from zlib import crc32

import msgspec

from kvzmq import codec, errors
from kvzmq.store import Store, checkpoint, frames
from kvzmq.store.file_log import MAGIC, NAME, NAME_SEALED, FileLog, ends_in_zeros
from kvzmq.store.files import DiskFile, File
from kvzmq.store.frames import Frame

NAMES = (checkpoint.NAME, NAME_SEALED, NAME)
"""The files of a table, in the order of what they hold."""


class NoTable(errors.KvzmqError):
    """Say that a directory holds no table."""


class _OpenFile(DiskFile):
    """A file that stays open until its Reading is closed, and cannot be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDONLY)
        status = os.fstat(self._fd)
        self.inode = status.st_dev, status.st_ino

    def close(self) -> None:
        pass

    def close_for_good(self) -> None:
        super().close()


class Reading:
    """A Directory of the files as they were at one moment, for reading only.

    Args:
        path: the table's directory

    Raises:
        NoTable: there are no files of a table in it
        OSError: it cannot be read
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.in_use = _in_use(self.path)
        """Whether a server has the directory: its last group may be half written."""
        self._files = _open_all(self.path)
        if not self._files:
            raise NoTable(f"{self.path} holds no table: neither {NAME} nor {checkpoint.NAME} is there")

    def exists(self, name: str) -> bool:
        return name in self._files

    def open(self, name: str) -> File:
        try:
            return self._files[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path / name)) from None

    def create(self, name: str) -> NoReturn:
        raise self._refusal()

    def rename(self, old: str, new: str) -> None:
        raise self._refusal()

    def unlink(self, name: str) -> None:
        raise self._refusal()

    def sync(self) -> None:
        raise self._refusal()

    def _refusal(self) -> OSError:
        return OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.path))

    def close(self) -> None:
        for file in self._files.values():
            file.close_for_good()
        self._files = {}

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _in_use(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back at once: a server may start meanwhile
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _open_all(path: Path) -> dict[str, _OpenFile]:
    """Open the files, again if a rotation or a compaction renamed one of them meanwhile."""
    while True:
        files = {name: file for name in NAMES if (file := _open(path / name)) is not None}
        if {name: file.inode for name, file in files.items()} == _inodes(path):
            return files
        for file in files.values():
            file.close_for_good()


def _open(path: Path) -> _OpenFile | None:
    try:
        return _OpenFile(path)
    except FileNotFoundError:
        return None


def _inodes(path: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for name in NAMES:
        try:
            status = os.stat(path / name)
        except FileNotFoundError:
            continue
        found[name] = status.st_dev, status.st_ino
    return found


class Gap(NamedTuple):
    """Bytes of a file that are no valid frames, from `offset` to before `end`; `torn` if they are a torn tail."""

    offset: int
    end: int
    reason: str
    torn: bool


def regions(file: File, magic: bytes, name: str, last: bool) -> Iterator[Frame | Gap]:
    """Yield a file's frames, and between them what is none.

    Args:
        name: the file's, for reasons
        last: whether it is the last log, whose last frame may be torn
    """
    offset = frames.HEADER_BYTES
    try:
        salt = frames.read_header(file, magic, name).salt
    except errors.Damaged as error:
        head = file.read(0, offset)
        if len(head) < offset or crc32(head[:-4]).to_bytes(4, "little") == head[-4:]:
            yield Gap(0, file.size(), _reason(error), torn=False)
            return  # of another version or kind: who knows what its frames would mean
        # With the salt alone frames can still be told from anything else, so it is worth a try.
        salt = head[12 : 12 + frames.SALT_BYTES]
        yield Gap(0, offset, _reason(error), torn=False)
    number = 0
    while True:
        try:
            for frame in frames.scan(file, salt, offset):
                offset, number = frame.end, frame.number
                yield frame
            return
        except frames.BadFrame as bad:
            if magic == MAGIC and ends_in_zeros(file, bad.offset):
                return  # written ahead
            # A log's frame of an earlier number is no successor: somebody stored a piece of this log as a value.
            after = frames.find_frame(file, salt, bad.offset, number + 2 if magic == MAGIC else 0)
            end = file.size() if after is None else after.offset
            yield Gap(bad.offset, end, bad.reason, torn=after is None and last)
            if after is None:
                return
            offset = after.offset


def _reason(error: errors.Damaged) -> str:
    return str(error).partition(": ")[2].removeprefix("offset 0: ")


class FileReport(msgspec.Struct):
    """What is in one file."""

    name: str
    bytes: int
    frames: int = 0
    first_group: int | None = None
    last_group: int | None = None
    requests: int = 0
    operations: int = 0
    from_us: int | None = None
    to_us: int | None = None
    torn_bytes: int = 0
    damage: list[str] = msgspec.field(default_factory=list)


class Report(msgspec.Struct):
    """What is in a table's directory, and what recovery would make of it."""

    path: str
    in_use: bool
    files: list[FileReport]
    refusal: str | None = None
    """Why a server would refuse to start, or None."""
    group: int = 0
    rows: int = 0
    revision: int = 0
    sessions: int = 0
    replayed: int = 0
    """Groups that recovery applies after the checkpoint."""
    torn_bytes: int = 0
    """What recovery cuts, and saves aside."""

    @property
    def damaged(self) -> bool:
        """Whether anything is not what was written, a torn tail excepted."""
        return self.refusal is not None or any(file.damage for file in self.files)


def look(reading: Reading) -> Report:
    """Read everything in a directory, and recover from it in memory."""
    files = []
    for name in NAMES:
        if reading.exists(name):
            file = reading.open(name)
            read = _look_at_checkpoint if name == checkpoint.NAME else _look_at_log
            files.append(read(file, name, last=name == NAME))
    report = Report(str(reading.path), reading.in_use, files)
    _recover(reading, report)
    return report


def _look_at_checkpoint(file: File, name: str, last: bool) -> FileReport:
    report = FileReport(name, file.size())
    with contextlib.suppress(errors.Damaged):  # which `regions` will tell
        report.last_group = frames.read_header(file, checkpoint.MAGIC, name).number
    for found in regions(file, checkpoint.MAGIC, name, last):
        if isinstance(found, Gap):
            report.damage.append(describe(found))
        else:
            report.frames += 1
    return report


def _look_at_log(file: File, name: str, last: bool) -> FileReport:
    report = FileReport(name, file.size())
    for found in regions(file, MAGIC, name, last):
        if isinstance(found, Gap):
            if found.torn:
                report.torn_bytes = found.end - found.offset
            else:
                report.damage.append(describe(found))
            continue
        report.frames += 1
        if report.last_group is not None and found.number != report.last_group + 1:
            report.damage.append(f"offset {found.offset}: group {found.number} follows group {report.last_group}")
        report.first_group = found.number if report.first_group is None else report.first_group
        report.last_group = found.number
        try:
            time_us, requests = codec.decode_group(found.payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            report.damage.append(f"offset {found.offset}: group {found.number} is not a group: {error}")
            continue
        report.requests += len(requests)
        report.operations += sum(len(request.ops) for request in requests)
        report.from_us = time_us if report.from_us is None else report.from_us
        report.to_us = time_us
    return report


def describe(gap: Gap) -> str:
    """Say where and what a gap is."""
    return f"offset {gap.offset}: {gap.reason}: {gap.end - gap.offset} bytes cannot be read"


def _recover(reading: Reading, report: Report) -> None:
    """Do what a server would, in memory."""
    log = FileLog(reading, read_only=True)
    store = Store(log)
    try:
        store.recover()
    except errors.Damaged as error:
        report.refusal = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        report.refusal = f"group {log.group} is not a group: {error}"
    base = next((file.last_group or 0 for file in report.files if file.name == checkpoint.NAME), 0)
    report.group = log.group
    report.replayed = max(0, log.group - base)
    report.torn_bytes = log.torn_bytes
    report.rows = len(store.table.rows)
    report.revision = store.table.revision
    report.sessions = len(store.table.sessions)
