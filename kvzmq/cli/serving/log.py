"""The log of `kvzmq server`: opened, recovered into a store, and looked after."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Sequence

from kvzmq import __version__
from kvzmq.cli.serving.homes import ClusterHome, DirectoryHome, Home
from kvzmq.cli.serving.options import Options
from kvzmq.server.loop import Compaction
from kvzmq.store.etcd.url import read_security
from kvzmq.store.offline.reading import NAMES, NoTable
from kvzmq.store.store import Store
from kvzmq.units import count, duration, size

_log = logging.getLogger(__name__)


def refuse_no_table(options: Options) -> None:
    """Refuse a directory without a table where one must exist.

    Raises:
        NoTable: there is none
    """
    if options.must_exist and options.log_url is None and not any((options.data / name).exists() for name in NAMES):
        raise NoTable(
            f"{options.data.resolve()} holds no table, and --must-exist says not to begin one: "
            "is it the right directory, is its disk mounted?"
        )


def open_home(options: Options) -> Home:
    """Return the home of the log, which was opened and not recovered yet."""
    if options.log_url is None:
        return DirectoryHome(options.data)
    password = options.etcd_password_file
    security = read_security(
        options.etcd_ca,
        options.etcd_cert,
        options.etcd_key,
        options.etcd_user,
        None if password is None else password.read_text().rstrip("\n"),
    )
    return ClusterHome(
        options.log_url, security, options.data, options.etcd_quota_bytes, options.etcd_margin_s, options.new_epoch
    )


def recover(store: Store, home: Home, endpoints: Sequence[str]) -> None:
    """Build the table from the log, begin an epoch, and say in the server's log what table it is.

    Args:
        store: of the home's log, empty
        home: just opened
        endpoints: where the server listens, for its log
    """
    began_s = time.monotonic()
    store.recover()
    is_new = store.revision == 0 and store.table.epochs.lineage is None
    home.check(store)
    store.begin_epoch(time.time_ns() // 1000)
    _spare_the_collector()
    _say_what_it_serves(home, store, endpoints, None if is_new else time.monotonic() - began_s)


def compactor_of(options: Options, store: Store, home: Home) -> Compaction:
    """Return what keeps the log short."""
    unit, threshold = options.compact_after or (None, None)
    return home.compactor(store, threshold if unit == "records" else None, threshold if unit == "bytes" else None)


def _say_what_it_serves(home: Home, store: Store, endpoints: Sequence[str], seconds: float | None) -> None:
    """Say in the log which table this is, and how long recovery took, or None for a new one."""
    what = "a new table"
    if seconds is not None:
        table = store.table
        what = (
            f"{count(len(table.rows), 'row')}, revision {table.revision:,}, recovered in {duration(seconds)} from "
            + (f"a checkpoint of {size(home.checkpoint_bytes)} and " if home.checkpoint_bytes else "")
            + f"{count(store.records, 'request')} in the log"
        )
    identity = store.identity()
    _log.info(
        "kvzmq %s, process %d, serves %s: %s; lineage %s, epoch %s",
        __version__, os.getpid(), home.name, what, identity["lineage"], identity["epoch"],
        extra={
            "event": "started", "version": __version__, "pid": os.getpid(), "directory": home.name,
            **identity, "revision": store.revision, "rows": store.row_count, "endpoints": endpoints,
            "recovery_s": None if seconds is None else round(seconds, 3), "checkpoint_bytes": home.checkpoint_bytes,
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
