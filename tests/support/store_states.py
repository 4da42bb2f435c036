"""Directories of a store as faults leave them, for tests to recover from."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from kvzmq.protocol import msgpack
from kvzmq.protocol.messages import Request
from kvzmq.store.file import checkpoint, compaction
from kvzmq.store.file.file_log import FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.store import Store
from support.witness import apply, dump_of
from support.workload import Rows, recover_rows

COPIES_MAX = 200


def commit(store: Store, *requests: list[list[object]]) -> None:
    """Commit each request as a group of its own."""
    for ops in requests:
        frame = msgpack.encode_request(None, 1, ops)  # type: ignore[arg-type]
        request = msgpack.decode_request(frame)
        assert isinstance(request, Request)
        assert apply(store, [request], 1_700_000_000_000_000)


def inserts(begin: int, end: int) -> list[list[list[object]]]:
    return [[["insert", f"k{n % 7}", n], ["increment", "count", 1]] for n in range(begin, end)]


def compact(data: Path) -> None:
    """Compact the sealed log, as the compaction's process does."""
    with contextlib.closing(DiskDirectory(data, lock=False)) as directory:
        compaction.compact_sealed(directory)


def torn(data: Path) -> None:
    """A checkpoint, a log, and the beginning of a group that was never finished."""
    left_over(data)
    compact(data)
    with (data / "table.txn").open("ab") as file:
        file.write((data / "table.txn").read_bytes()[-60:-10])


def left_over(data: Path) -> None:
    """A checkpoint, a sealed log and a log: a compaction was running."""
    store = Store(FileLog(DiskDirectory(data)))
    store.recover()
    commit(store, *inserts(0, 5))
    store.log.seal()
    compact(data)
    commit(store, *inserts(5, 10))
    store.log.seal()
    commit(store, *inserts(10, 13))
    store.close()


def cut_off(data: Path) -> None:
    """A checkpoint and a sealed log, and the new log not yet under its name: cut off inside a rotation."""
    left_over(data)
    (data / "table.txn").rename(data / "table.txn.tmp")


def plain(data: Path) -> None:
    """A log only."""
    store = Store(FileLog(DiskDirectory(data)))
    store.recover()
    commit(store, *inserts(0, 5))
    store.close()


STATES = {make.__name__: make for make in (plain, left_over, cut_off, torn)}


def made(state: str, scratch: Path) -> tuple[Path, Rows]:
    """Make a directory in one of the states; returns it and what recovers from a copy of it."""
    original = scratch / "original"
    STATES[state](original)
    copied = scratch / "expected"
    shutil.copytree(original, copied)
    rows, _ = recover_rows(copied)
    return original, rows


def copies(original: Path) -> Iterator[tuple[int, Path]]:
    """Yield 1, 2, 3 ..., each with a fresh copy of the directory."""
    for number in range(1, COPIES_MAX):
        data = original.parent / str(number)
        shutil.copytree(original, data)
        yield number, data
    raise AssertionError(f"{COPIES_MAX} faults and no end")


def recovered(data: Path) -> list[bytes]:
    """Return what a server would find."""
    scratch = data.with_name(data.name + ".recovered")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(data, scratch)
    store = Store(FileLog(DiskDirectory(scratch)))
    try:
        store.recover()
        return dump_of(store.table)
    finally:
        store.close()


def backup_of(data: Path, path: Path, groups: int = 7) -> list[bytes]:
    """Make a table of so many groups, and a backup of it; returns the table."""
    store = Store(FileLog(DiskDirectory(data)))
    store.recover()
    store.begin_epoch(1_700_000_000_000_000)
    commit(store, *inserts(100, 100 + groups - 1))
    found = dump_of(store.table)
    store.log.seal()
    compact(data)
    store.close()
    shutil.copy(data / checkpoint.NAME, path)
    return found
