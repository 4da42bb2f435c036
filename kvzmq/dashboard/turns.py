"""Turns at what costs the table, or the dashboard, much: so many at a time, so many who wait, the others come later.

Whoever may ask may ask often, from any number of tabs. A lock alone would have them all wait, and each be served, also
when it looks no more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Busy(Exception):
    """As many as may already wait for the same; the message says for what."""


class Turns:
    """Lets only so many do something at a time.

    Args:
        what: they do, for the message of Busy
        at_once: how many may do it
        waiting_max: how many more may wait for their turn
    """

    def __init__(self, what: str, at_once: int, waiting_max: int) -> None:
        self._what = what
        self._free = asyncio.Semaphore(at_once)
        self._left = at_once + waiting_max

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn, and take it for the block.

        Raises:
            Busy: too many wait already
        """
        if self._left <= 0:
            raise Busy(f"the dashboard is busy with {self._what} for others: try again in a few seconds")
        self._left -= 1
        try:
            async with self._free:
                yield
        finally:
            self._left += 1
