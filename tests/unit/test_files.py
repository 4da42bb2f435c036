"""The door to the disk, on a real one: short writes, modes, locks, and which directories are synced."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest
from support.calls import noting

from kvzmq import errors
from kvzmq.store.file.files import DiskDirectory


def test_a_short_write_goes_on_until_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 1. Turned red by taking the first pwrite for all of it."""
    usual = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: usual(fd, bytes(data)[:7], offset))
    data = bytes(range(256))
    with (
        contextlib.closing(DiskDirectory(tmp_path)) as directory,
        contextlib.closing(directory.create("file")) as file,
    ):
        file.write(3, data)
        assert file.read(0, 1000) == b"\0\0\0" + data and file.size() == 259
        assert file.read(250, 1000) == data[247:] and file.read(259, 10) == b""


def test_directory_and_files_are_the_owners_alone(tmp_path: Path) -> None:
    directory = DiskDirectory(tmp_path / "new" / "table")
    directory.create("file").close()
    assert stat.S_IMODE((tmp_path / "new" / "table").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "table" / "file").stat().st_mode) == 0o600
    directory.close()


def test_a_second_server_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first = DiskDirectory(tmp_path)
    with pytest.raises(errors.DirectoryInUse, match="in use by another kvzmq server"):
        DiskDirectory(tmp_path)
    DiskDirectory(tmp_path, lock=False).close()
    first.close()
    DiskDirectory(tmp_path).close()


def test_a_file_s_lock_is_held_by_one_until_it_is_closed(tmp_path: Path) -> None:
    directory = DiskDirectory(tmp_path)
    directory.create("file").close()
    one, other = directory.open("file"), directory.open("file")
    assert one.lock(wait=False) and not other.lock(wait=False)
    directory.open("file").close()
    assert not other.lock(wait=False), "closing another descriptor does not give up the lock"
    one.close()
    assert other.lock(wait=True)
    other.close()
    directory.close()


def test_every_directory_that_leads_to_the_table_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 1: a loss of power may not take the whole directory, nor the one it is in.

    Turned red by syncing the nearest parent alone, and by syncing it only when the directory is new: the process
    that made it may have died before it synced.
    """
    synced: list[str] = []
    usual = os.fsync
    monkeypatch.setattr(os, "fsync", noting(lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")), usual))
    DiskDirectory(tmp_path / "a" / "b" / "table").close()
    assert synced == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    synced.clear()
    DiskDirectory(tmp_path / "a" / "b" / "table").close()
    assert synced == [str(tmp_path / "a" / "b")]


def test_names_come_and_go(tmp_path: Path) -> None:
    directory = DiskDirectory(tmp_path)
    with pytest.raises(FileNotFoundError):
        directory.open("one")
    file = directory.create("one")
    file.write(0, b"12345")
    file.truncate(3)
    file.sync()
    file.close()
    directory.rename("one", "two")
    directory.sync()
    assert not directory.exists("one") and directory.exists("two")
    with contextlib.closing(directory.open("two")) as file:
        assert file.read(0, 9) == b"123"
    with contextlib.closing(directory.create("two")) as file:
        assert file.size() == 0
    directory.unlink("two")
    directory.unlink("two")
    assert not directory.exists("two")
    directory.close()


def test_a_hint_that_the_system_does_not_take_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, length: int, advice: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    directory = DiskDirectory(tmp_path)
    file = directory.create("file")
    file.write(0, b"abc")
    file.start_sync(0, 3)
    file.sync()
    assert file.read(0, 3) == b"abc"
    file.close()
    directory.close()
