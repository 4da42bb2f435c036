"""Backups: checkpoints that came over the wire, each in a file of its own.

A backup is a checkpoint in its documented layout, to the byte (docs/files.md): the number of the last group is in its
header, revision, time, lineage and epochs are in its first sections, every section has its checksums, and the footer
says that nothing is missing. So there is no second format to read, check or keep; a log whose groups follow that number
would carry it on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from kvzmq import errors
from kvzmq.store.file import checkpoint
from kvzmq.store.file.files import DiskFile
from kvzmq.store.log import Checkpoint
from kvzmq.store.offline.check import FileReport, Report, inspect_checkpoint
from kvzmq.store.sections import Summary, summarize
from kvzmq.store.table import Table


class Copied(NamedTuple):
    """What was copied: the last group in it, its length, and what the table says of itself."""

    group: int
    bytes: int
    summary: Summary


def copy(pieces: Iterable[bytes], write: Callable[[bytes], object], source: str) -> Copied:
    """Write a backup down as it comes in, and check each of its frames, and that it is whole, on the way.

    Args:
        pieces: of the backup, in order
        write: takes the pieces
        source: what errors call it

    Raises:
        CorruptionError: it is not a whole backup; nothing of what was written is worth anything
    """
    incoming = _Incoming(pieces, write)
    found = checkpoint.read_file(incoming, source)
    summary = summarize(found.sections)
    return Copied(found.group, incoming.size(), summary)


class _Incoming:
    """A file that is read once, from beginning to end, while its pieces come in: passed on when they are needed.

    What was read may be read again until something further on was.
    """

    def __init__(self, pieces: Iterable[bytes], write: Callable[[bytes], object]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._write = write
        self._window = b""
        self._offset = 0  # of the window

    def read(self, offset: int, length: int) -> bytes:
        parts = [self._window[offset - self._offset :]]
        missing = length - len(parts[0])
        while missing > 0 and (piece := next(self._pieces, b"")):
            self._write(piece)
            parts.append(piece)
            missing -= len(piece)
        self._window, self._offset = b"".join(parts), offset
        return self._window[:length]

    def size(self) -> int:
        """Take in the rest, and return how long all of it was."""
        end = self._offset + len(self._window)
        self.read(end, 1)
        return self._offset + len(self._window)

    def write(self, offset: int, data: bytes) -> None:
        raise NotImplementedError

    def start_sync(self, offset: int, length: int) -> None:
        raise NotImplementedError

    def truncate(self, length: int) -> None:
        raise NotImplementedError

    def sync(self) -> None:
        raise NotImplementedError

    def lock(self, wait: bool) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        pass


def read(path: Path) -> Checkpoint:
    """Open a backup; its sections are read, and checked, as they are consumed.

    Raises:
        OSError: it cannot be opened
        CorruptionError: it is none, or damaged: now, or while the sections are consumed
        WrittenByNewer: a later version wrote it
    """
    file = DiskFile(path, os.O_RDONLY)
    begin = file.read(0, len(checkpoint.MAGIC))
    if begin != checkpoint.MAGIC:
        file.close()
        raise errors.CorruptionError(
            f"{path}: offset 0: no backup of kvzmq, or a damaged one: begins with {begin!r}, not {checkpoint.MAGIC!r}"
        )
    return checkpoint.read_file(file, str(path))


def inspect(path: Path) -> Report:
    """Read everything in a backup, past damage too, and load the table from it in memory; see `check.inspect`."""
    file = DiskFile(path, os.O_RDONLY)
    try:
        files: list[FileReport] = [inspect_checkpoint(file, path.name, last=False)]
    finally:
        file.close()
    report = Report(str(path), False, files, backup=True)
    table = Table()
    try:
        found = read(path)
        report.group = found.group
        table.load(found.sections)
    except errors.CorruptionError as error:
        report.refusal = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        report.refusal = f"{path}: a section is not one of a table: {error}"
    report.describe(table)
    return report
