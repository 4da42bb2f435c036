"""The calls on files and directories; the store accesses the disk only through them.

`Directory` and `File` are protocols, so that a test can use a simulated disk that loses what was not synced. Callers
rely on two rules: when `sync` of a file has returned, its contents are on the disk; and that a name was created,
renamed or removed is durable only after `sync` of its directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Protocol

from kvzmq import errors


class File(Protocol):
    """An open file, read and written at offsets."""

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end of the file."""

    def write(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`. Raises OSError, after which any part may be written."""

    def start_sync(self, offset: int, length: int) -> None:
        """Start writing this range to the disk, so that `sync` waits for less. Guarantees nothing."""

    def size(self) -> int:
        """Return the length in bytes."""

    def truncate(self, length: int) -> None:
        """Cut or extend the file to `length` bytes."""

    def sync(self) -> None:
        """Return when contents and length are on the disk. Raises OSError: never try again."""

    def lock(self, wait: bool) -> bool:
        """Take the file's lock for as long as it is open; False if another process has it."""

    def close(self) -> None:
        """Close the file; does not sync."""


class Directory(Protocol):
    """A directory of the store's files."""

    path: Path

    def exists(self, name: str) -> bool:
        """Say whether `name` is there."""

    def open(self, name: str) -> File:
        """Open an existing file for reading and writing. Raises FileNotFoundError."""

    def create(self, name: str) -> File:
        """Create `name`, or empty it if it is there, and open it."""

    def rename(self, old: str, new: str) -> None:
        """Rename `old` to `new` in one step, replacing `new`."""

    def unlink(self, name: str) -> None:
        """Remove `name`, if it is there."""

    def sync(self) -> None:
        """Return when the names are on the disk. Raises OSError: never try again."""

    def close(self) -> None:
        """Close the directory, which releases its lock."""


class DiskFile:
    """A File of the operating system. Its errors name the file, by the name it was opened under."""

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o600)

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        try:
            while length:
                part = os.pread(self._fd, length, offset)
                if not part:
                    break
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except OSError as error:
            raise _naming(error, self._path) from None
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        try:
            written = os.pwrite(self._fd, data, offset)
            while written < len(data):  # a short write: the next one shows why, by its error
                more = os.pwrite(self._fd, memoryview(data)[written:], offset + written)
                if not more:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                written += more
        except OSError as error:
            raise _naming(error, self._path) from None

    def start_sync(self, offset: int, length: int) -> None:
        # Upon this advice Linux starts to write the range's dirty pages and does not wait. None is lost: a page that
        # is dirty or being written stays.
        # https://man7.org/linux/man-pages/man2/posix_fadvise.2.html
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, length: int) -> None:
        try:
            os.ftruncate(self._fd, length)
        except OSError as error:
            raise _naming(error, self._path) from None

    def sync(self) -> None:
        try:
            os.fdatasync(self._fd)  # writes the length as well when it has changed
        except OSError as error:
            raise _naming(error, self._path) from None

    def lock(self, wait: bool) -> bool:
        return _lock(self._fd, self._path, wait)

    def close(self) -> None:
        os.close(self._fd)


class DiskDirectory:
    """A Directory of the operating system, locked against a second server.

    Args:
        path: created with mode 0700 if it is not there
        lock: whether to take the directory's lock; readers and the compaction's process do not

    Raises:
        DirectoryInUse: another process has the lock
        OSError: it cannot be created or opened
    """

    def __init__(self, path: str | os.PathLike[str], lock: bool = True) -> None:
        self.path = Path(path)
        if lock:
            _make_directory(self.path.absolute(), 0o700)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if lock and not _lock(self._fd, self.path, wait=False):
            os.close(self._fd)
            raise errors.DirectoryInUse(
                f"{self.path} is in use by another kvzmq server: stop that one, or give this one another --data"
            )

    def exists(self, name: str) -> bool:
        return (self.path / name).exists()

    def open(self, name: str) -> DiskFile:
        return DiskFile(self.path / name, os.O_RDWR)

    def create(self, name: str) -> DiskFile:
        return DiskFile(self.path / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def rename(self, old: str, new: str) -> None:
        os.rename(self.path / old, self.path / new)

    def unlink(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _naming(error, self.path) from None

    def close(self) -> None:
        os.close(self._fd)


def _make_directory(path: Path, mode: int = 0o777) -> None:
    """Make `path` and its parents, durably, even if an earlier process made them and was killed before it synced."""
    if not path.exists():
        if not path.parent.exists():
            _make_directory(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode)
    with contextlib.suppress(PermissionError):  # a parent that we may not read was not made by us
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise _naming(error, path) from None
    finally:
        os.close(fd)


def _lock(fd: int, path: Path, wait: bool) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise _naming(error, path) from None
    return True


def _naming(error: OSError, path: Path) -> OSError:
    """Return the error of a call on a descriptor with the file's name, which such an error lacks."""
    return OSError(error.errno, error.strerror, str(path))
