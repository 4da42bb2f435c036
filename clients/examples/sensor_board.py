"""A board of sensors: many report, many look on, and everybody sees each change as it comes.

    python sensor_board.py --url tcp://127.0.0.1:5570 watch
    python sensor_board.py --url tcp://127.0.0.1:5570 report kitchen 21.5

A reading lives for a minute: a sensor that falls silent leaves the board by itself. The watcher
begins its watch before it reads what is there, so nothing is missed in between; reconnects
and restarts of the server make no difference.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import kvzmq

KEEP_S = 60.0


class Reading(NamedTuple):
    """What a sensor says; None when it has fallen silent."""

    sensor: str
    celsius: float | None


async def report(board: kvzmq.AsyncClient, sensor: str, celsius: float) -> None:
    """Put a reading on the board."""
    await board.insert(sensor, {"celsius": celsius, "at": time.time()}, ttl_s=KEEP_S)


async def readings(board: kvzmq.AsyncClient) -> AsyncIterator[Reading]:
    """Yield what is on the board, then every change; after a long absence what is on the board then."""
    shown: set[str] = set()
    while True:
        async with (
            board.watch() as changes
        ):  # first begin, then read: what changes meanwhile is told twice, never missed
            there = {sensor: value async for sensor, value in board.items()}
            for sensor in shown - there.keys():
                yield Reading(sensor, None)
            shown = set(there)
            for sensor, value in there.items():
                yield Reading(sensor, value["celsius"])
            with contextlib.suppress(kvzmq.RevisionGone):
                async for change in changes:
                    (shown.discard if change.removed else shown.add)(change.key)
                    yield Reading(change.key, None if change.removed else change.value["celsius"])


async def look_on(board: kvzmq.AsyncClient, count: int) -> None:
    """Print `count` readings, or for good if 0."""
    async for sensor, celsius in readings(board):
        print(sensor, "silent" if celsius is None else f"{celsius:.1f} C", flush=True)
        count -= 1
        if count == 0:
            return


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="tcp://127.0.0.1:5570")
    commands = parser.add_subparsers(dest="command", required=True)
    watch = commands.add_parser("watch")
    watch.add_argument("--count", type=int, default=0, help="end after so many readings; 0 for never")
    send = commands.add_parser("report")
    send.add_argument("sensor")
    send.add_argument("celsius", type=float)
    options = parser.parse_args()
    async with kvzmq.connect_async(options.url) as table:
        board = table.namespace("sensors/")
        if options.command == "watch":
            await look_on(board, options.count)
        else:
            await report(board, options.sensor, options.celsius)


if __name__ == "__main__":
    asyncio.run(main())
