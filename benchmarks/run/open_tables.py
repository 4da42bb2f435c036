"""What a worker process keeps between measurements, its open tables and which of their rows are its own; a Sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.run.tables import TABLES

Address = Mapping[str, Any]
Ready = Callable[[], int]


class Sample(NamedTuple):
    """What one worker did.

    start_ns, end_ns  monotonic clock
    ended_ns          when each timed call ended, in order of its end
    latencies_ns      of the timed calls, in the same order
    operations        of each timed call
    cpu_s             of the worker, from start to end
    """

    start_ns: int
    end_ns: int
    ended_ns: bytes
    latencies_ns: bytes
    operations: int
    cpu_s: float


_tables: dict[tuple[str, str], Any] = {}

inserted: dict[tuple[str, str], tuple[int, int]] = {}
"""Of each table: the first and the next of this worker's own rows."""


def identify(table: str, address: Address) -> tuple[str, str]:
    """Return what tells an open table from others."""
    return table, repr(sorted(address.items()))


def open_table(table: str, address: Address) -> Any:
    """Return a table's client, open; the same one until `close_all`."""
    identity = identify(table, address)
    if identity not in _tables:
        _tables[identity] = TABLES[table](address)
    return _tables[identity]


def close_all() -> None:
    """Close every table this worker has open."""
    while _tables:
        _, table = _tables.popitem()
        table.close()
    inserted.clear()
