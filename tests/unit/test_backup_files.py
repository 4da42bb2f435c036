"""Backups as files, and what a restore makes of them, wherever it is cut off."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.store_states import STATES, backup_of, recovered

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.store.file import checkpoint, frames
from kvzmq.store.file.file_log import write_table
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.log import Checkpoint
from kvzmq.store.offline import backup, restore

Count = Callable[[str, int], None]


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A backup, and the table in it."""
    path = tmp_path / "table.backup"
    return path, backup_of(tmp_path / "source", path)


def pieces(data: bytes, length: int) -> Iterator[bytes]:
    for at in range(0, len(data), length):
        yield data[at : at + length]


def test_a_backup_is_checked_while_it_is_copied(made: tuple[Path, list[bytes]]) -> None:
    data = made[0].read_bytes()
    for length in (1, 7, 100, len(data)):
        out = bytearray()
        copied = backup.copy(pieces(data, length), out.extend, "it")
        assert bytes(out) == data
        assert (copied.bytes, copied.group, copied.summary.rows, copied.summary.revision) == (len(data), 7, 7, 12)
        assert copied.summary.lineage and copied.summary.epoch


def test_a_backup_larger_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    sections = [b"\x92\xa4head\x84\xa8revision\1\xa7time_us\1\xa4rows\0\xa8sessions\0"]
    sections += [msgpack.encode_value(("rows", {str(number): os.urandom(3 << 20)})) for number in range(5)]
    with contextlib.closing(DiskDirectory(tmp_path / "large")) as directory:
        checkpoint.write(directory, 1, iter(sections))
    data = (tmp_path / "large" / checkpoint.NAME).read_bytes()
    out = bytearray()
    assert backup.copy(pieces(data, 256 << 10), out.extend, "it").bytes == len(data)
    assert out == data


def test_every_flipped_bit_and_every_truncation_is_found(
    made: tuple[Path, list[bytes]], tmp_path: Path, count: Count
) -> None:
    """By the copy, by `kvzmq check` and before a restore, with the offset. Seen red without the footer's check."""
    data = made[0].read_bytes()
    bad = tmp_path / "bad"
    flips = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
    cuts = [data[:length] for length in range(len(data))]
    for number, wrong in enumerate([*flips, *cuts, data + b"\0"]):
        with pytest.raises((errors.CorruptionError, errors.WrittenByNewer), match=r"offset \d|newer version"):
            backup.copy(pieces(wrong, 100), len, "it")
        if number % 5 == 0:
            bad.write_bytes(wrong)
            with pytest.raises(
                (errors.CorruptionError, errors.WrittenByNewer), match=r"bad: .*offset \d|newer version"
            ):
                restore.restore(bad, tmp_path / "new")
            assert not (tmp_path / "new").exists()
            try:
                report = backup.inspect(bad)
                assert report.damaged and "offset" in str(report.refusal)
            except errors.WrittenByNewer:
                pass
    count("flipped bits and truncations of a backup, each refused", len(flips) + len(cuts))


def test_a_restored_table_is_the_one_that_was_backed_up(made: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    data = tmp_path / "a" / "new"
    report, replaced = restore.restore(made[0], data)
    assert replaced is None and (report.rows, report.revision, report.group) == (7, 12, 7)
    assert recovered(data) == made[1]
    assert sorted(path.name for path in data.iterdir()) == ["table.ckpt", "table.txn"]
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()} == {0o600}


@pytest.mark.parametrize("state", STATES)
def test_a_table_is_replaced_only_when_that_is_said_and_kept_then(
    made: tuple[Path, list[bytes]], tmp_path: Path, state: str
) -> None:
    data = tmp_path / "data"
    STATES[state](data)
    before = recovered(data)
    with pytest.raises(restore.HoldsTable, match="--replace"):
        restore.restore(made[0], data)
    assert recovered(data) == before
    for _ in range(2):
        _, replaced = restore.restore(made[0], data, replace=True)
        assert recovered(data) == made[1]
        assert replaced is not None and replaced.parent == data and recovered(replaced) == before
        before = made[1]
    assert (
        len(set(data.glob("replaced-*")) - set(data.glob("*.recovered"))) == 2
        and not (data / restore.NAME_NEW).exists()
    )


def test_a_directory_in_use_is_refused(made: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    data = tmp_path / "data"
    STATES["left_over"](data)
    with (
        contextlib.closing(DiskDirectory(data)),
        pytest.raises(errors.DirectoryInUse, match="in use by a kvzmq server: stop it first"),
    ):
        restore.restore(made[0], data, replace=True)
    with (
        contextlib.closing(DiskDirectory(data, lock=False)) as directory,
        contextlib.closing(directory.open("table.txn.sealed")) as sealed,
    ):
        assert sealed.lock(wait=False)
        with pytest.raises(errors.DirectoryInUse, match="a compaction still works"):
            restore.restore(made[0], data, replace=True)
    restore.restore(made[0], data, replace=True)
    assert recovered(data) == made[1]


def test_a_backup_of_the_first_semantics_is_restored(tmp_path: Path) -> None:
    """An update on a full disk may leave such a checkpoint the latest for a while."""
    head = b"\x92\xa4head\x84\xa8revision\0\xa7time_us\0\xa4rows\0\xa8sessions\0"
    with contextlib.closing(DiskDirectory(tmp_path / "old")) as directory:
        write_table(directory, Checkpoint(0, iter([head])))
    data = bytearray((tmp_path / "old" / checkpoint.NAME).read_bytes())
    header = frames.Header(checkpoint.MAGIC, 1, bytes(data[12:28]), 0)
    data[: frames.HEADER_BYTES] = frames.encode_header(header)
    (tmp_path / "backup").write_bytes(data)
    assert restore.restore(tmp_path / "backup", tmp_path / "new").report.rows == 0
