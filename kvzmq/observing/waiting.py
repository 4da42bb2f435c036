"""Waiting with a limit, which a cancellation always ends.

Not by `asyncio.wait_for`: before Python 3.12 it loses a cancellation that comes in the same turn of the loop as what it
waits for. Then `kvzmq top` did not end when `q` came with `+`, and a browser that left while it was told something kept
its place among those that a dashboard serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def ends_within(work: Awaitable[object], timeout_s: float) -> bool:
    """Do something, and say whether it ended in time; what took longer is cancelled.

    Raises:
        what `work` raises
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    finally:
        task.cancel()  # nothing, if it has ended
    if not done:
        return False
    task.result()
    return True
