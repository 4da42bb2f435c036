"""The rows of a table, out of a server or a directory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvzmq import errors
from kvzmq.cli.rows.batches import BATCH_ROWS_MAX
from kvzmq.protocol import msgpack

if TYPE_CHECKING:
    from kvzmq.client.sync.client import Client

Found = tuple[str, "bytes | None", "int | None"]
"""A key, its value, or None for removed, and when the row expires, microseconds since 1970 UTC."""


def _may_expire(table: Client) -> bool:
    """Say whether rows may have a time to live: yes where this client has not the right to be told."""
    try:
        return bool(table.stats()["expiring_keys"])
    except errors.NotAllowed:
        return True


def from_server(table: Client, prefix: str) -> Iterator[Found]:
    """Yield the rows of a server, in the order of their keys; those written meanwhile may or may not be among them."""
    rows = iter(table.items(prefix))
    if not _may_expire(table):
        for key, value in rows:
            yield key, msgpack.encode_value(value), None
        return
    while page := list(islice(rows, BATCH_ROWS_MAX)):
        yield from with_expiries(table, page)


def with_expiries(table: Client, page: Sequence[tuple[str, Any]]) -> Iterator[Found]:
    """Yield rows of a server, each with the time when it expires."""
    with table.pipeline() as batch:
        ttls = [batch.ttl(key) for key, _ in page]
    now_us = time.time_ns() // 1000
    for (key, value), ttl in zip(page, ttls):
        try:
            left_s = ttl.result()
        except errors.NoSuchKey:
            continue  # it has expired since
        yield key, msgpack.encode_value(value), None if left_s is None else now_us + int(left_s * 1e6)


def from_directory(directory: Path, prefix: str) -> tuple[Iterator[Found], int]:
    """Return the rows of a directory, as recovery would give them, and how many there are.

    Raises:
        DirectoryInUse: a server has it open
        CorruptionError: a file is not what was written
    """
    from kvzmq.store.file.file_log import FileLog
    from kvzmq.store.offline.reading import Reading
    from kvzmq.store.store import Store

    with Reading(directory) as reading:
        if reading.in_use:
            raise errors.DirectoryInUse(
                f"{directory} is in use by a kvzmq server: stop it, or export from it with `kvzmq -c URL export`"
            )
        store = Store(FileLog(reading, read_only=True))
        try:
            store.recover()
        except errors.CorruptionError as error:
            raise errors.CorruptionError(
                f"{error}: `kvzmq check --repair {directory}` saves what can be read to a copy"
            ) from error
    rows, expiries = store.table.rows, store.table.expiries
    keys = sorted(key for key in rows if key.startswith(prefix))
    return ((key, rows[key], expiries.get(key)) for key in keys), len(keys)
