"""Changes below a prefix, for browsers that ask again and again: shared, bounded, and ended when nobody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from kvzmq import errors
from kvzmq.client.core.watch_state import Event
from kvzmq.dashboard import changes
from kvzmq.dashboard.changes import IDLE_S, KEPT_MAX, Changes, TooManyPrefixes
from kvzmq.dashboard.reader import Reader


class FakeWatch:
    """A watch whose events the test gives; an exception is raised."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self.ended = False

    async def __aenter__(self) -> FakeWatch:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ended = True

    def __aiter__(self) -> FakeWatch:
        return self

    async def __anext__(self) -> Event:
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        return event


class FakeTable:
    def __init__(self) -> None:
        self.watches: list[tuple[str, FakeWatch]] = []

    def watch(self, prefix: str) -> FakeWatch:
        self.watches.append((prefix, FakeWatch()))
        return self.watches[-1][1]


def event(revision: int, value: Any = 1, removed: bool = False) -> Event:
    return Event(revision, f"k{revision}", None if removed else value, removed)


def in_loop(test: Callable[[Changes, FakeTable, list[float]], Any]) -> None:
    async def run() -> None:
        table, now_s = FakeTable(), [100.0]
        found = Changes(lambda: cast(Reader, table), lambda: now_s[0])
        running = asyncio.create_task(found.run())
        try:
            await test(found, table, now_s)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_browsers_share_a_watch_and_each_gets_what_it_has_not_seen() -> None:
    async def test(found: Changes, table: FakeTable, now_s: list[float]) -> None:
        assert found.after("a/", None).changes == []
        found.after("a/", None)
        await turns()
        assert [prefix for prefix, _ in table.watches] == ["a/"]
        watch = table.watches[0][1]
        for revision in (5, 6):
            watch.events.put_nowait(event(revision))
        watch.events.put_nowait(event(7, removed=True))
        await turns()
        seen = found.after("a/", 0)
        assert [(change.number, change.revision, change.kind) for change in seen.changes] == [
            (1, 5, "number"), (2, 6, "number"), (3, 7, "removed"),
        ]  # fmt: skip
        assert (seen.last, seen.missed, found.after("a/", 3).changes) == (3, 0, [])
        assert found.after("a/", None).last == 3, "who comes now gets those to come"

    in_loop(test)


def test_what_is_kept_for_a_slow_browser_is_bounded_and_the_rest_is_counted() -> None:
    """Seen red with every change kept."""

    async def test(found: Changes, table: FakeTable, now_s: list[float]) -> None:
        found.after("", None)
        await turns()
        for revision in range(KEPT_MAX + 50):
            table.watches[0][1].events.put_nowait(event(revision))
        await turns(3 * KEPT_MAX)
        seen = found.after("", 0)
        assert (len(seen.changes), seen.missed, seen.last) == (KEPT_MAX, 50, KEPT_MAX + 50)

    in_loop(test)


def test_a_watch_that_nobody_asks_for_ends() -> None:
    """Seen red with watches that are never dropped."""

    async def test(found: Changes, table: FakeTable, now_s: list[float]) -> None:
        found.after("a", None)
        await turns()
        now_s[0] += IDLE_S + 1
        found.after("b", None)
        await turns()
        assert [(prefix, watch.ended) for prefix, watch in table.watches] == [("a", True), ("b", False)]

    in_loop(test)


def test_the_number_of_prefixes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen red without a bound."""
    monkeypatch.setattr(changes, "WATCHES_MAX", 2)

    async def test(found: Changes, table: FakeTable, now_s: list[float]) -> None:
        found.after("a", None)
        found.after("b", None)
        with pytest.raises(TooManyPrefixes):
            found.after("c", None)
        assert found.after("a", None).changes == []

    in_loop(test)


def test_why_changes_are_not_followed_is_told_and_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_AGAIN_S", 0.0)

    async def test(found: Changes, table: FakeTable, now_s: list[float]) -> None:
        found.after("a", None)
        await turns()
        table.watches[0][1].events.put_nowait(errors.NotAllowed("bob may not watch"))
        await turns(3)
        assert found.after("a", None).trouble == "bob may not watch" or len(table.watches) == 2
        await turns(20)
        assert len(table.watches) == 2 and found.after("a", None).trouble is None

    in_loop(test)
