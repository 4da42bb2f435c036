"""Makes a table's directory from a backup.

The new files are written into `restore.tmp` in the directory, and read back as a server would, before anything is
touched. Those that were there get a second name in `replaced-TIME`, which is a directory of a table by itself. Then
the new ones take their names, in an order (`_swap`) by which a crash leaves the old table, a directory that a server
refuses to start on, or the new table: never another one, and never an empty one.

All happens within the directory, under its lock: it may be a mount point, its parent may not be ours to write, and no
server can start in the middle.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from itertools import count
from pathlib import Path
from typing import NamedTuple

from kvzmq import errors
from kvzmq.store.file import checkpoint
from kvzmq.store.file.file_log import NAME, NAME_SEALED, write_table
from kvzmq.store.file.files import Directory, DiskDirectory
from kvzmq.store.offline import backup
from kvzmq.store.offline.check import Report, inspect
from kvzmq.store.offline.reading import NAMES, Reading

NAME_NEW = "restore.tmp"
"""Where the new files are written; worth nothing when found after a crash."""

NAME_REPLACED = "replaced"
"""How the directories begin that keep the tables that were replaced."""


class HoldsTable(errors.KvzmqError):
    """The directory holds a table, which is not to be replaced."""


class Restored(NamedTuple):
    """What a restore has made: the table in the directory, and where the one before is kept, if there was one."""

    report: Report
    replaced: Path | None


def restore(source: Path, path: Path, replace: bool = False) -> Restored:
    """Make the directory at `path` hold the table of a backup, durably; it is created if it is not there.

    Args:
        source: the backup
        path: the directory
        replace: whether a table that is there is kept aside, and replaced; otherwise that is an error

    Raises:
        CorruptionError, WrittenByNewer: the backup is not whole; nothing was changed
        HoldsTable, DirectoryInUse: nothing was changed
        OSError: a file could not be written
    """
    was_there = path.exists()
    try:
        directory = DiskDirectory(path)
    except errors.DirectoryInUse:
        raise errors.DirectoryInUse(f"{path} is in use by a kvzmq server: stop it first") from None
    try:
        _check_free(directory, replace)
        report = _write_new(source, directory)
        replaced = _keep(directory)
        _swap(directory)
        (path / NAME_NEW).rmdir()
        directory.sync()
    except BaseException:
        if not was_there:  # an empty directory would pass for a new table
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    finally:
        directory.close()
    return Restored(report, replaced)


def _check_free(directory: Directory, replace: bool) -> None:
    path = directory.path
    if any(map(directory.exists, NAMES)) and not replace:
        raise HoldsTable(
            f"{path} holds a table: --replace keeps it aside, in a directory within {path}, and puts this one there"
        )
    if directory.exists(NAME_SEALED):
        sealed = directory.open(NAME_SEALED)
        try:
            if not sealed.lock(wait=False):
                raise errors.DirectoryInUse(f"a compaction still works in {path}: try again when it has ended")
        finally:
            sealed.close()


def _write_new(source: Path, directory: Directory) -> Report:
    """Write the new table's files beside the old, and recover from them in memory."""
    path = directory.path / NAME_NEW
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(0o700)
    new = DiskDirectory(path, lock=False)
    try:
        write_table(new, backup.read(source))
        with Reading(path) as reading:
            report = inspect(reading)
        if report.refusal is not None:
            raise errors.CorruptionError(f"{source} does not read back as it was written: {report.refusal}")
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        new.close()
    return report


def _keep(directory: Directory) -> Path | None:
    """Give the files of the table that is there a second name, in a directory of their own; durable on return."""
    names = [name for name in NAMES if directory.exists(name)]
    if not names:
        return None
    stem = f"{NAME_REPLACED}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    kept = next(
        path
        for number in count(1)
        if not (path := directory.path / (stem if number == 1 else f"{stem}-{number}")).exists()
    )
    kept.mkdir(0o700)
    try:
        for name in names:
            os.link(directory.path / name, kept / name)
    except OSError as error:
        shutil.rmtree(kept, ignore_errors=True)
        if error.errno in (errno.EPERM, errno.ENOTSUP):
            raise OSError(
                error.errno, "its file system has no hard links: move the old table away by hand", str(kept)
            ) from None
        raise
    aside = DiskDirectory(kept, lock=False)
    try:
        aside.sync()
    finally:
        aside.close()
    directory.sync()
    return kept


def _swap(directory: Directory) -> None:
    """Put the new files in the place of the old, one name after the other; a crash may come after each.

    Nothing starts on a log without the checkpoint or the sealed log that it goes on from, nor on a checkpoint without a
    log. So the first file that goes is one without which the others are no table, or the sealed log that the checkpoint
    holds; and the last one that comes makes the new table whole.
    """

    def remove(name: str) -> None:
        directory.unlink(name)
        directory.sync()

    def put(name: str) -> None:
        directory.rename(f"{NAME_NEW}/{name}", name)
        directory.sync()

    has_checkpoint = directory.exists(checkpoint.NAME)
    if has_checkpoint or directory.exists(NAME):
        remove(NAME_SEALED)
    if has_checkpoint:
        remove(NAME)
        put(checkpoint.NAME)
        put(NAME)
    else:
        put(NAME)
        remove(NAME_SEALED)
        put(checkpoint.NAME)
