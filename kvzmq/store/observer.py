"""Observers of a store: called while it works, to count, time or show what it does.

An observer is called synchronously, in the loop's thread, between two requests: it must be quick, must not raise, and
must not call the store. Times are nanoseconds of a monotonic clock (`time.perf_counter_ns`).
"""

from __future__ import annotations

from typing import NamedTuple


class Commit(NamedTuple):
    """One group that has become durable.

    requests    how many requests it holds
    bytes       its length
    append_ns   how long `Log.append` took
    sync_ns     how long `Log.sync` took
    """

    requests: int
    bytes: int
    append_ns: int
    sync_ns: int


class StoreObserver:
    """Base class of a store's observers: every method does nothing."""

    def on_replay(self, requests: int, revision: int) -> None:
        """Called when a group was applied that this store did not append itself in this step.

        Args:
            requests: how many requests it holds
            revision: the table's afterwards
        """

    def on_expire(self, rows: int, revision: int) -> None:
        """Called when rows that were due have been removed; `revision` is the table's afterwards."""

    def on_commit(self, commit: Commit) -> None:
        """Called when a group has become durable."""
