"""Watches through reconnects, restarts and compactions: no gaps, no repeats, and a clear word when history is gone."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.client_shells import SHELLS, open_shell
from support.proxy import Proxy
from support.servers import PATIENCE_S, ServerProcess, wait_until

import kvzmq
from kvzmq.client.core.calls import Calls
from kvzmq.client.core.watch_state import WatchState
from kvzmq.protocol import msgpack
from kvzmq.server.watches import PROGRESS_CHANGES
from kvzmq.store import history


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as server:
        yield server


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


class Writer:
    """Inserts `c0`, `c1` ... in a thread: the values count up, so a gap or a repeat shows."""

    def __init__(self, url: str, pause_s: float = 0.0) -> None:
        self.written = 0
        self._url = url
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with kvzmq.connect(self._url, timeout=PATIENCE_S) as table:
            while not self._stop.is_set():
                table.insert(f"c{self.written % 7}", self.written)
                self.written += 1
                time.sleep(self._pause_s)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def stop(self) -> int:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.written

    def __exit__(self, *_: object) -> None:
        self.stop()


def values_of(watch: Any, seen: list[int]) -> threading.Thread:
    """Take events in a thread until the value -1 comes."""

    def take() -> None:
        while (event := watch.get(PATIENCE_S)).value != -1:
            seen.append(event.value)

    thread = threading.Thread(target=take)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", SHELLS)
def test_no_gaps_and_no_repeats_through_kills_and_cuts(
    kind: str, server: ServerProcess, full: bool, count: Callable[[str, int], None]
) -> None:
    """The server is killed, the watcher's connection cut, while another client writes.

    Seen red with a watch that begins anew at a reconnect (a gap), and one that goes on at the revision
    it had begun with (repeats).
    """
    chance = random.Random(7)
    seen: list[int] = []
    with (
        Proxy(port_of(server.url)) as proxy,
        open_shell(kind, proxy.url) as table,
        table.watch("c") as watch,
        Writer(server.url) as writer,
    ):
        taker = values_of(watch, seen)
        for _ in range(30 if full else 3):
            time.sleep(0.2 + chance.random() * 0.3)
            if chance.random() < 0.5:
                proxy.cut()
            else:
                proxy.cut_after(chance.randrange(1, 3000))
            time.sleep(0.2)
            server.kill()
            server.start()
        total = writer.stop()
        with kvzmq.connect(server.url) as other:
            other.insert("c", -1)
        taker.join(PATIENCE_S)
        assert not taker.is_alive()
    assert seen == list(range(total))
    count("events through kills and cuts, none missing, none twice", total)


@pytest.mark.parametrize("kind", SHELLS)
def test_events_come_while_the_server_compacts(kind: str, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--compact-after", "200") as server:
        seen: list[int] = []
        with open_shell(kind, server.url) as table, table.watch("c") as watch:
            taker = values_of(watch, seen)
            for number in range(1000):
                table.insert(f"c{number % 10}", number)
            table.insert("c", -1)
            taker.join(PATIENCE_S)
            assert seen == list(range(1000))
            wait_until(lambda: table.stats()["log_records"] < 1000, what="the end of a compaction")


def change_more_than_is_kept(server: ServerProcess) -> None:
    with kvzmq.connect(server.url) as table:
        for _ in range(history.CHANGES_KEPT // 10_000 + 1):
            table.insert_many({f"k{number}": 0 for number in range(10_000)})


@pytest.mark.parametrize("kind", SHELLS)
def test_a_watch_that_nothing_concerns_keeps_its_place(kind: str, server: ServerProcess) -> None:
    """More changes elsewhere than the server keeps, then a reconnect. Seen red without signs of progress."""
    with (
        Proxy(port_of(server.url)) as proxy,
        open_shell(kind, proxy.url) as table,
        table.watch("quiet/") as watch,
    ):
        change_more_than_is_kept(server)

        def is_near_the_end() -> bool:
            with pytest.raises(kvzmq.Timeout):
                watch.get(0.2)
            return bool(history.CHANGES_KEPT - watch.revision < 10_000 + PROGRESS_CHANGES)

        wait_until(is_near_the_end, what="the watch's progress")
        proxy.cut()
        table.insert("quiet/k", "heard")
        assert watch.get(PATIENCE_S).value == "heard"


@pytest.mark.parametrize("kind", SHELLS)
def test_a_watch_that_missed_what_is_no_longer_kept_says_so(kind: str, server: ServerProcess) -> None:
    with (
        Proxy(port_of(server.url)) as proxy,
        open_shell(kind, proxy.url) as table,
        table.watch() as watch,
    ):
        proxy.refuse()
        change_more_than_is_kept(server)
        proxy.flow()
        with pytest.raises(kvzmq.RevisionGone, match="changes are kept since"):
            while True:
                watch.get(PATIENCE_S)


@pytest.mark.parametrize("kind", SHELLS)
def test_a_slow_watcher_gets_everything_or_is_told(kind: str, server: ServerProcess) -> None:
    """12,000 events while the watcher sleeps: they wait at the server, not without bound in the client."""
    with open_shell(kind, server.url) as table, table.watch("c") as watch:
        for start in range(0, 12_000, 1000):
            with table.pipeline() as p:
                for number in range(start, start + 1000):
                    p.insert(f"c{number % 10}", number)
        raw = getattr(watch, "_wrapped", watch)
        assert len(raw._state.events) <= 2000
        assert [watch.get(PATIENCE_S).value for _ in range(12_000)] == list(range(12_000))


def test_many_watches_of_one_client(server: ServerProcess) -> None:
    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table:
            watches = [table.watch(f"{number}/") for number in range(100)]
            await asyncio.gather(*(watch.start() for watch in watches))
            await table.insert_many({f"{number}/k": number for number in range(100)})
            events = await asyncio.gather(*(watch.get(PATIENCE_S) for watch in watches))
            assert [event.value for event in events] == list(range(100))
            for watch in watches:
                await watch.close()

    asyncio.run(main())


def test_cancelling_an_iteration_loses_no_event(server: ServerProcess) -> None:
    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table, table.watch("c") as watch:
            seen: list[int] = []
            writes = asyncio.ensure_future(write(table))
            while len(seen) < 500:
                try:
                    seen.append((await asyncio.wait_for(watch.get(), 0.001)).value)
                except asyncio.TimeoutError:
                    continue
            await writes
            assert seen == list(range(500))

    async def write(table: kvzmq.AsyncClient) -> None:
        for number in range(500):
            await table.insert("c", number)

    asyncio.run(main())


def test_an_iteration_ends_when_another_task_closes_the_watch(server: ServerProcess) -> None:
    async def main() -> None:
        async with kvzmq.connect_async(server.url) as table:
            watch = table.watch()
            heard = asyncio.Event()

            async def close_soon() -> None:
                await table.insert("k", 1)
                await heard.wait()
                await asyncio.sleep(0.1)  # the iteration waits for the next event by now
                await watch.close()

            await watch.start()
            task = asyncio.ensure_future(close_soon())
            keys = []
            async for event in watch:
                keys.append(event.key)
                heard.set()
            assert keys == ["k"]
            await task

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def test_what_a_lost_connection_had_received_leaves_no_gap() -> None:
    """A server started again numbers its watches from 1 again, and old events come among the new ones.

    Seen red with events ignored until the new watch has begun.
    """

    def event(revision: int) -> bytes:
        return msgpack.encode_event(revision, 1, 0, (f"k{revision}", [revision]))

    def reply(seq: int, revision: int) -> bytes:
        return msgpack.encode_value((seq, revision, [(0, {}), (0, (1, None, None))]))

    state = WatchState(lambda *place: Calls().watch("", *place), "", 10)
    state.request(0.0)
    for frame in (reply(1, 10), event(11), event(12)):
        state.receive(frame)
    state.request(1.0)  # on a new connection; 13 and 14 had been received on the old one
    for frame in (event(13), reply(2, 15), event(14), event(13), event(14), event(15)):
        state.receive(frame)
    assert [event.revision for event in state.events] == [11, 12, 13, 14, 15]


def test_progress_is_asked_for_again_on_a_new_connection() -> None:
    """Seen red: the answer was lost with the connection, and a watch that nothing concerned waited for its timeout."""

    def started(seq: int) -> bytes:
        return msgpack.encode_value((seq, 10, [(0, {}), (0, (1, None, None))]))

    state = WatchState(lambda *place: Calls().watch("", *place), "", 10)
    state.request(0.0)
    state.receive(started(1))
    state.ask_progress()
    state.receive(msgpack.encode_value((2, 12, [(0, True)])))
    assert state.arrived is None and not state.asks_progress
    state.request(1.0)
    state.receive(started(3))
    assert state.asks_progress
