"""The changes of a transaction that is being executed: to be rolled back, or passed on to history and indexes."""

from __future__ import annotations

from typing import Union

from kvzmq.store.expiries import Expiries

_Change = tuple[str, Union[bytes, None], Union[bytes, None], Union[int, None]]


class Undo(list[_Change]):
    """Changes of rows in their order: a key, its value before and after, and its deadline before, microseconds."""

    __slots__ = ()

    def roll_back(self, rows: dict[str, bytes], expiries: Expiries) -> None:
        """Make rows and deadlines what they were before the first change."""
        for key, before, _, deadline_us in reversed(self):
            if before is None:
                del rows[key]
            else:
                rows[key] = before
            expiries.set(key, deadline_us)
