"""A table's files as they were at one moment, for tools that only read.

`Reading` opens them all, also while a server appends, rotates and compacts, so that the store's own code can recover
from them. `regions` yields the frames of one file and the gaps between them, `groups` those of the log. No file is
changed, and no lock is kept.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn
from zlib import crc32

import msgspec

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import Request
from kvzmq.store.file import checkpoint, frames
from kvzmq.store.file.file_log import MAGIC, NAME, NAME_SEALED, ends_in_zeros
from kvzmq.store.file.files import DiskFile, File
from kvzmq.store.file.frames import Frame

NAMES = (checkpoint.NAME, NAME_SEALED, NAME)
"""The files of a table, in the order of what they hold."""


class NoTable(errors.KvzmqError):
    """A directory holds no table."""


class _OpenFile(DiskFile):
    """A file that stays open until its Reading is closed, and cannot be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDONLY)
        status = os.fstat(self._fd)
        self.inode = status.st_dev, status.st_ino
        self._length: int | None = None

    def end_at(self, length: int) -> None:
        """Set where the file ends for readers, whatever is appended to it from now on."""
        self._length = length

    def size(self) -> int:
        return super().size() if self._length is None else self._length

    def read(self, offset: int, length: int) -> bytes:
        if self._length is not None:
            length = max(0, min(length, self._length - offset))
        return super().read(offset, length)

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
        """Whether a server has the directory open; its log is then read up to the last group that is complete now."""
        self._files = _open_all(self.path)
        if not self._files:
            raise NoTable(f"{self.path} holds no table: neither {NAME} nor {checkpoint.NAME} is there")
        if self.in_use and NAME in self._files:
            file = self._files[NAME]
            found = [part.end for part in regions(file, MAGIC, NAME, last=True) if isinstance(part, Frame)]
            file.end_at(found[-1] if found else file.size())

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
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released at once, so that a server can start
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _open_all(path: Path) -> dict[str, _OpenFile]:
    """Open the files; if a rotation or a compaction renamed one of them meanwhile, open them again."""
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


class Group(NamedTuple):
    """A group of the log: its number, its time in microseconds since 1970 UTC, its requests."""

    number: int
    time_us: int
    requests: list[Request]


class Unreadable(NamedTuple):
    """A part of the log that cannot be read: `what` says which file, where and why; `torn` if it is a torn tail."""

    what: str
    torn: bool


def groups(reading: Reading) -> Iterator[Group | Unreadable]:
    """Yield every group of the log that can be read, and the parts that cannot, in the order of the log."""
    for name in (NAME_SEALED, NAME):
        if not reading.exists(name):
            continue
        for found in regions(reading.open(name), MAGIC, name, last=name == NAME):
            if isinstance(found, Gap):
                yield Unreadable(f"{name}: {describe(found)}", found.torn)
                continue
            try:
                yield Group(found.number, *msgpack.decode_group(found.payload))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                what = f"{name}: offset {found.offset}: group {found.number} is not a group: {error}"
                yield Unreadable(what, torn=False)


class Gap(NamedTuple):
    """Bytes of a file that are no valid frames, from `offset` to before `end`; `torn` if they are a torn tail."""

    offset: int
    end: int
    reason: str
    torn: bool


def regions(file: File, magic: bytes, name: str, last: bool) -> Iterator[Frame | Gap]:
    """Yield a file's frames, and the gaps between them.

    Args:
        name: the file's, for messages
        last: whether it is the last log, whose last frame may be torn

    Raises:
        WrittenByNewer: a later version wrote it: what its frames mean is not known
    """
    offset = frames.HEADER_BYTES
    try:
        salt = frames.read_header(file, magic, name).salt
    except errors.CorruptionError as error:
        head = file.read(0, offset)
        if len(head) < offset or crc32(head[:-4]).to_bytes(4, "little") == head[-4:]:
            yield Gap(0, file.size(), _reason(error), torn=False)
            return  # of another version or kind: what its frames mean is not known
        # The salt alone is enough to recognise frames.
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
            # A frame of an earlier number proves nothing: a client may have stored a piece of this log as a value.
            after = frames.find_frame(file, salt, bad.offset, number + 2 if magic == MAGIC else 0)
            if after is not None and _is_frame(file, salt, bad.offset):
                continue  # since it was read, a server has written the rest of it, and the next one
            end = file.size() if after is None else after.offset
            yield Gap(bad.offset, end, bad.reason, torn=after is None and last)
            if after is None:
                return
            offset = after.offset


def _is_frame(file: File, salt: bytes, offset: int) -> bool:
    try:
        return next(frames.scan(file, salt, offset), None) is not None
    except frames.BadFrame:
        return False


def _reason(error: errors.CorruptionError) -> str:
    return str(error).partition(": ")[2].removeprefix("offset 0: ")


def describe(gap: Gap) -> str:
    """Return where a gap is, and why."""
    return f"offset {gap.offset}: {gap.reason}: {gap.end - gap.offset} bytes cannot be read"
