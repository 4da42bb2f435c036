"""The log of `kvzmq server`: opened, recovered into a store, and looked after."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from kvzmq import __version__
from kvzmq.cli.serving.options import Options
from kvzmq.store.file.compaction import Compactor, renew
from kvzmq.store.file.file_log import FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.offline.reading import NAMES, NoTable
from kvzmq.store.store import Store
from kvzmq.units import count, duration, size

_log = logging.getLogger(__name__)


def refuse_no_table(options: Options) -> None:
    """Refuse a directory without a table where one must exist.

    Raises:
        NoTable: there is none
    """
    if options.must_exist and not _holds_table(options.data):
        raise NoTable(
            f"{options.data.resolve()} holds no table, and --must-exist says not to begin one: "
            "is it the right directory, is its disk mounted?"
        )


def open_log(options: Options) -> FileLog:
    """Return the log, locked for this process and not replayed yet."""
    return FileLog(DiskDirectory(options.data))


def recover(options: Options, store: Store, log: FileLog, endpoints: Sequence[str]) -> None:
    """Replay the log into the store, begin an epoch, and say in the log what table it is.

    Args:
        options: of the server
        store: of the log, empty
        log: just opened
        endpoints: where the server listens, for the log
    """
    began_s = time.monotonic()
    is_new = not _holds_table(options.data)
    store.recover()
    renew(log)
    store.begin_epoch(time.time_ns() // 1000)
    _spare_the_collector()
    _say_what_it_serves(options.data, store, log, endpoints, None if is_new else time.monotonic() - began_s)


def compactor_of(options: Options, store: Store, log: FileLog) -> Compactor:
    """Return what keeps the log short."""
    unit, threshold = options.compact_after or (None, None)
    return Compactor(
        store,
        log,
        after_records=threshold if unit == "records" else None,
        after_bytes=threshold if unit == "bytes" else None,
    )


def _holds_table(path: Path) -> bool:
    return any((path / name).exists() for name in NAMES)


def _say_what_it_serves(
    path: Path, store: Store, log: FileLog, endpoints: Sequence[str], seconds: float | None
) -> None:
    """Say in the log which table this is, and how long recovery took, or None for a new one."""
    what = "a new table"
    if seconds is not None:
        table = store.table
        what = (
            f"{count(len(table.rows), 'row')}, revision {table.revision:,}, recovered in {duration(seconds)} from "
            f"a checkpoint of {size(log.checkpoint_bytes)} and {count(store.records, 'request')} in the log"
        )
    identity = store.identity()
    _log.info(
        "kvzmq %s, process %d, serves %s: %s; lineage %s, epoch %s",
        __version__, os.getpid(), path.resolve(), what, identity["lineage"], identity["epoch"],
        extra={
            "event": "started", "version": __version__, "pid": os.getpid(), "directory": str(path.resolve()),
            **identity, "revision": store.revision, "rows": store.row_count, "endpoints": endpoints,
            "recovery_s": None if seconds is None else round(seconds, 3), "checkpoint_bytes": log.checkpoint_bytes,
            "requests_in_log": store.records,
        },
    )  # fmt: skip


def _spare_the_collector() -> None:
    """Keep the garbage collector from going through everything the table holds.

    Rows are nothing to it, but sessions and latest changes are, and a full collection of 20,000
    sessions took 0.2 s here. What recovery has built stays; young objects are still looked at; the
    loop makes no cycles that would have to be found among the old.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 1_000_000)
