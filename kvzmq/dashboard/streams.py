"""What browsers are sent as it happens, as server-sent events.

    event: hello    everything kept, and the state of the server; the browser begins anew with it
    event: tick     the points and marks since the last event, and the state

A browser is a place in the collector's rings: nothing is queued for it. One that reads slowly is sent fewer and longer
ticks; one that has read nothing for SEND_S_MAX is disconnected, and connects again when it wakes.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import msgspec

from kvzmq.dashboard.collector import COARSE_EVERY, POLL_S, Collector
from kvzmq.observing.waiting import ends_within

STREAMS_MAX = 64
"""How many browsers may follow at once."""

SEND_S_MAX = 20.0
"""How long one event may wait for its browser to read."""

QUIET_S_MAX = 5.0
"""After what time something is sent in any case, so that a browser that has vanished is noticed."""

_RETRY_MS = 1000

_NOT_SENT = frozenset({"by_operation", "step", "disk", "bounds", "indexes"})
"""What of `stats` the page gets in another form, or not at all."""

_encode_json = msgspec.json.Encoder().encode


class TooMany(Exception):
    """STREAMS_MAX browsers follow already."""


class Streams:
    """The browsers that follow a collector."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.open = 0
        self.ended = asyncio.Event()
        """Set when the dashboard stops: browsers are not waited for."""

    @contextlib.contextmanager
    def one(self) -> Iterator[AsyncIterator[bytes]]:
        """Take one of the places, and give the events for it.

        Raises:
            TooMany: none is free
        """
        if self.open >= STREAMS_MAX:
            raise TooMany(f"{STREAMS_MAX} browsers follow this server already: close some, or wait")
        self.open += 1
        try:
            yield self._events()
        finally:
            self.open -= 1

    async def _events(self) -> AsyncIterator[bytes]:
        collector = self._collector
        fine, coarse = collector.fine, collector.coarse
        seen = fine.last, coarse.last, _last_mark(collector)
        hello = {
            "fine": fine.after(0),
            "coarse": coarse.after(0),
            "points_max": {"fine": fine.points_max, "coarse": coarse.points_max},
            "every_s": {"fine": POLL_S, "coarse": POLL_S * COARSE_EVERY},
            "marks": list(collector.marks),
            "state": state_of(collector),
        }
        yield f"retry: {_RETRY_MS}\n".encode() + _event("hello", hello)
        while True:
            await collector.wait(QUIET_S_MAX)
            tick = {
                "fine": fine.after(seen[0]),
                "coarse": coarse.after(seen[1]) if coarse.last > seen[1] else None,
                "marks": [mark for mark in collector.marks if mark.number > seen[2]],
                "state": state_of(collector),
            }
            seen = fine.last, coarse.last, _last_mark(collector)
            yield _event("tick", tick)


def state_of(collector: Collector) -> dict[str, Any]:
    """Return what is to be said of the server now."""
    snapshot = collector.snapshot
    stats = {} if snapshot is None else snapshot.stats
    return {
        "url": collector.url,
        "now_s": collector.now_s,
        "silence": collector.silence,
        "silent_since_s": collector.silent_since_s,
        "findings": collector.findings,
        "stats": {name: value for name, value in stats.items() if name not in _NOT_SENT},
    }


def _last_mark(collector: Collector) -> int:
    return collector.marks[-1].number if collector.marks else 0


def _event(name: str, data: object) -> bytes:
    # JSON has no line break outside of strings, and within them only escaped: one line of data.
    return b"event: " + name.encode() + b"\ndata: " + _encode_json(data) + b"\n\n"


async def send_within(sending: Awaitable[object], timeout_s: float = SEND_S_MAX) -> bool:
    """Wait for something to be sent; False if the browser has not read in time."""
    return await ends_within(sending, timeout_s)
