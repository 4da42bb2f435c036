"""What a store tells of itself while it works, to whoever wants to count, time or show it.

An observer is called at once, from the loop's thread, between two requests: it must be quick, must not fail, and
must not ask anything of the store. Times are nanoseconds of a clock that only grows (`time.perf_counter_ns`).
"""

from __future__ import annotations

from typing import NamedTuple


class Commit(NamedTuple):
    """One group that has become durable.

    requests    how many requests it holds
    bytes       its length
    append_ns   how long the log took to take it
    sync_ns     how long the store waited for it afterwards
    """

    requests: int
    bytes: int
    append_ns: int
    sync_ns: int


class StoreObserver:
    """Base class of what listens to a store: every method does nothing, override what is wanted."""

    def on_replay(self, requests: int, revision: int) -> None:
        """Take note that a group of the log was applied that this store did not append in this step.

        Args:
            requests: how many requests it holds
            revision: the table's afterwards
        """

    def on_expire(self, rows: int, revision: int) -> None:
        """Take note that rows were removed because their time had come; `revision` is the table's afterwards."""

    def on_commit(self, commit: Commit) -> None:
        """Take note that a group is durable."""
