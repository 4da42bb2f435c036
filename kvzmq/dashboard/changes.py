"""The latest changes below a prefix, as long as somebody looks.

A browser asks again and again, each time for what came after the number that it has. All that look at one prefix share
a watch, which ends when nobody has asked for IDLE_S. So a browser holds no connection open for it, of which it has six
for all of its tabs, and one that is slow or gone costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import msgspec

from kvzmq import errors
from kvzmq.client.core.watch_state import Event
from kvzmq.dashboard.reader import Reader
from kvzmq.dashboard.shown import kind_of, printable, text_of

WATCHES_MAX = 16
"""How many prefixes may be looked at at once."""

KEPT_MAX = 200
"""How many changes of a prefix are kept for those who ask."""

IDLE_S = 10.0
"""How long a prefix is watched after somebody has asked for its changes."""

_AGAIN_S = 1.0
"""After what time a watch that has ended is begun again."""


class Changed(msgspec.Struct):
    """A change, and its number among those of its prefix, counted from 1; `time_s` is when it was seen here."""

    number: int
    time_s: float
    revision: int
    key: str
    name: str
    removed: bool
    kind: str
    text: str
    whole: bool


class Latest(msgspec.Struct):
    """What came after a number.

    last     the number of the latest change
    missed   how many are not among `changes`, as they were no longer kept
    changes  the others
    trouble  why the watch does not run, or None
    """

    last: int
    missed: int
    changes: list[Changed]
    trouble: str | None


class TooManyPrefixes(Exception):
    """WATCHES_MAX prefixes are looked at already."""


class Changes:
    """Watches of the prefixes that somebody looks at.

    Args:
        table: gives the client that is in use
        monotonic: seconds that only grow
    """

    def __init__(self, table: Callable[[], Reader], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._monotonic = monotonic
        self._watched: dict[str, _Watched] = {}

    def after(self, prefix: str, number: int | None) -> Latest:
        """Return the changes after a number; None is who asks for the first time, and gets those to come.

        Raises:
            TooManyPrefixes: this one is new, and there are WATCHES_MAX others
        """
        self._drop_idle()
        watched = self._watched.get(prefix)
        if watched is None:
            if len(self._watched) >= WATCHES_MAX:
                raise TooManyPrefixes(f"changes of {WATCHES_MAX} prefixes are followed already")
            watched = self._watched[prefix] = _Watched(self._table, prefix)
        watched.asked_s = self._monotonic()
        return watched.after(number)

    def _drop_idle(self) -> None:
        now_s = self._monotonic()
        for prefix, watched in list(self._watched.items()):
            if now_s - watched.asked_s > IDLE_S:
                watched.task.cancel()
                del self._watched[prefix]

    async def run(self) -> None:
        """Drop what nobody looks at any more, until cancelled; then all."""
        try:
            while True:
                await asyncio.sleep(IDLE_S / 2)
                self._drop_idle()
        finally:
            for watched in self._watched.values():
                watched.task.cancel()
            self._watched.clear()


class _Watched:
    """The changes of one prefix."""

    def __init__(self, table: Callable[[], Reader], prefix: str) -> None:
        self._table = table
        self._prefix = prefix
        self._kept: deque[tuple[int, float, Event]] = deque(maxlen=KEPT_MAX)  # number, time seen, change
        self._last = 0
        self._trouble: str | None = None
        self.asked_s = 0.0
        self.task = asyncio.create_task(self._follow())

    def after(self, number: int | None) -> Latest:
        if number is None or number > self._last:
            number = self._last
        # Made for who asks, not for each change: of thousands a second most are never seen.
        found = [_changed(*kept) for kept in self._kept if kept[0] > number]
        return Latest(self._last, self._last - number - len(found), found, self._trouble)

    async def _follow(self) -> None:
        while True:
            try:
                async with self._table().watch(self._prefix) as events:
                    self._trouble = None
                    async for event in events:
                        self._add(event)
            except (errors.KvzmqError, ValueError) as error:  # ValueError: the client was closed for a new one
                self._trouble = str(error)
            await asyncio.sleep(_AGAIN_S)

    def _add(self, event: Event) -> None:
        self._last += 1
        self._kept.append((self._last, time.time(), event))


def _changed(number: int, time_s: float, event: Event) -> Changed:
    text, whole = ("", True) if event.removed else text_of(event.value)
    return Changed(
        number, round(time_s, 3), event.revision, event.key, printable(event.key), event.removed,
        "removed" if event.removed else kind_of(event.value), text, whole,
    )  # fmt: skip
