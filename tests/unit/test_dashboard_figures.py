"""What the dashboard keeps of a server's figures: bounded, not compared across a restart, sent without a queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest

from kvzmq import errors
from kvzmq.dashboard import streams
from kvzmq.dashboard.collector import COARSE_EVERY, DROPS_S, FINE_POINTS_MAX, MARKS_MAX, Collector
from kvzmq.dashboard.reader import Reader
from kvzmq.dashboard.rings import COLUMNS_MAX, Ring
from kvzmq.dashboard.streams import Streams, TooMany, send_within

# ---- rings


def test_a_ring_keeps_the_latest_points_and_says_which_they_are() -> None:
    ring = Ring(3)
    for number in range(1, 6):
        ring.add(100.0 + number, {"a": float(number)})
    assert ring.last == 5
    everything = ring.after(0)
    assert (everything.first, everything.times, everything.columns) == (
        3,
        [103.0, 104.0, 105.0],
        {"a": [3.0, 4.0, 5.0]},
    )
    assert ring.after(4).columns == {"a": [5.0]}
    assert (ring.after(5).first, ring.after(5).times) == (6, [])


def test_a_name_that_comes_later_was_none_before_and_one_that_goes_is_none_since() -> None:
    ring = Ring(3)
    ring.add(1.0, {"a": 1.0})
    ring.add(2.0, {"b": 2.0})
    assert ring.after(0).columns == {"a": [1.0, None], "b": [None, 2.0]}


def test_the_number_of_columns_is_bounded() -> None:
    """Seen red without a bound."""
    ring = Ring(2)
    for number in range(2 * COLUMNS_MAX):
        ring.add(float(number), {f"column{number}": 1.0})
    assert len(ring.after(0).columns) == COLUMNS_MAX


# ---- the collector


class ScriptedTable:
    """A client whose server answers `stats` as the test says; an exception is raised."""

    def __init__(self, answers: Iterator[Mapping[str, Any] | Exception]) -> None:
        self._answers = answers
        self._clients: list[dict[str, Any]] = []
        self.closed = False

    async def stats(self, timeout: float) -> Mapping[str, Any]:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        self._clients = answer.get("listed", [])
        return answer

    async def clients(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        return self._clients

    async def close(self) -> None:
        self.closed = True


def stats(uptime_s: float, requests: int, pid: int = 7, **more: Any) -> dict[str, Any]:
    return {"pid": pid, "version": "1", "lineage": "aa", "epoch": "e1", "uptime_s": uptime_s, "requests": requests,
            "revision": requests, "keys": 3} | more  # fmt: skip


def collected(*answers: Mapping[str, Any] | Exception) -> tuple[Collector, list[ScriptedTable]]:
    """Poll once for each answer, half a second apart."""
    script, tables = iter(answers), list[ScriptedTable]()

    def connect() -> Reader:
        tables.append(ScriptedTable(script))
        return cast(Reader, tables[-1])

    async def poll() -> Collector:
        collector = Collector(connect, "tcp://here", lambda: 1000.0 + collector.polls / 2)
        for _ in answers:
            await collector.poll()
        return collector

    return asyncio.run(poll()), tables


def test_counters_become_rates() -> None:
    collector, _ = collected(stats(10.0, 100), stats(10.5, 150), stats(11.0, 150))
    columns = collector.fine.after(0).columns
    assert columns["requests"] == [None, 100.0, 0.0]
    assert columns["keys"] == [3.0, 3.0, 3.0]


def test_no_rate_spans_a_restart_and_the_restart_is_marked() -> None:
    """Also where the new run has counted further than the old one. Seen red with all compared."""
    collector, _ = collected(
        stats(10.0, 100), stats(10.5, 150), stats(20.0, 900, pid=8, epoch="e2"), stats(20.5, 910, pid=8, epoch="e2")
    )
    assert collector.fine.after(0).columns["requests"] == [None, 100.0, None, 20.0]
    assert [mark.kind for mark in collector.marks] == ["restart"]
    assert "process 8" in collector.marks[0].text


def test_silence_is_said_leaves_a_gap_and_ends() -> None:
    """Seen red with a rate over the silence."""
    gone = errors.Timeout("no answer")
    collector, _ = collected(stats(10.0, 100), stats(10.5, 150), gone, gone)
    assert collector.silence == "no answer" and collector.silent_since_s == 1001.0
    assert [finding.name for finding in collector.findings] == ["silent"]
    assert collector.fine.after(0).columns["keys"] == [3.0, 3.0, None], "one gap, however long it takes"

    collector, _ = collected(stats(10.0, 100), stats(10.5, 150), gone, stats(12.0, 950), stats(12.5, 960))
    assert collector.silence is None and collector.silent_since_s is None
    assert collector.fine.after(0).columns["requests"] == [None, 100.0, None, None, 20.0]
    assert [mark.kind for mark in collector.marks] == ["silent", "back"]


def test_a_dashboard_that_was_there_first_waits_for_its_server() -> None:
    collector, _ = collected(errors.Timeout("nobody"), stats(0.1, 1), stats(0.6, 2))
    assert collector.silence is None
    assert [mark.kind for mark in collector.marks] == ["silent"]


def test_another_table_behind_the_same_address_is_shown_with_another_client() -> None:
    """A client stays with the table it knows. Seen red with the old client asked for ever."""
    collector, tables = collected(
        stats(10.0, 100), errors.TableChanged("another"), stats(1.0, 3, pid=9, lineage="bb", epoch="f1")
    )
    assert [table.closed for table in tables] == [True, False]
    assert collector.silence is None
    assert [mark.text.partition(":")[0] for mark in collector.marks] == ["no answer", "another table answers"]


def test_replies_that_were_lost_are_an_alarm_for_a_while_alone() -> None:
    """The server counts them as long as it remembers the client. Seen red with its count taken as it is."""

    def lost(at_s: float, count: int) -> dict[str, Any]:
        deaf = {"name": "zmq:1", "address": None, "unread_bytes": None, "replies_dropped": count, "requests": 1,
                "received_bytes": 1, "connected_s": 1.0}  # fmt: skip
        return stats(at_s, 1, listed=[deaf])

    async def told(*counts: int) -> list[list[str]]:
        script, now_s = iter([lost(float(at), count) for at, count in enumerate(counts)]), [0.0]
        collector = Collector(lambda: cast(Reader, ScriptedTable(script)), "tcp://here", lambda: now_s[0])
        found = []
        for _ in counts:
            await collector.poll()
            collector.polls = 0  # so that clients are asked each time
            found.append([finding.text for finding in collector.findings if finding.name == "client_does_not_read"])
            now_s[0] += DROPS_S / 2
        return found

    found = asyncio.run(told(7, 7, 9, 9, 9, 9, 9, 9))
    assert found[:2] == [[], []], "before the dashboard came"
    assert "2 replies dropped" in found[2][0]
    assert found[-2:] == [[], []]


def test_a_compaction_is_marked() -> None:
    collector, _ = collected(
        stats(10.0, 1, compactions=0), stats(10.5, 1, compactions=1), stats(11.0, 1, compactions=1)
    )
    assert [mark.kind for mark in collector.marks] == ["compaction"]


def test_what_is_kept_is_bounded() -> None:
    answers = [stats(float(run), 1, pid=run) for run in range(FINE_POINTS_MAX + 50)]
    collector, _ = collected(*answers)
    assert len(collector.fine.after(0).times) == FINE_POINTS_MAX
    assert len(collector.marks) == MARKS_MAX
    assert len(collector.coarse.after(0).times) == len(answers) // COARSE_EVERY


# ---- streams


def heard(event: bytes) -> tuple[str, dict[str, Any]]:
    lines = dict(line.split(": ", 1) for line in event.decode().strip().split("\n"))
    return lines["event"], json.loads(lines["data"])


def in_loop(test: Callable[[Collector], Awaitable[None]], *answers: Mapping[str, Any] | Exception) -> None:
    async def run() -> None:
        script = iter(answers)
        await test(Collector(lambda: cast(Reader, ScriptedTable(script)), "tcp://here"))

    asyncio.run(run())


def test_a_stream_begins_with_all_there_is_and_goes_on_with_what_is_new() -> None:
    async def test(collector: Collector) -> None:
        await collector.poll()
        await collector.poll()
        with Streams(collector).one() as events:
            kind, hello = heard(await anext(events))
            assert kind == "hello" and len(hello["fine"]["times"]) == 2
            assert hello["state"]["stats"]["keys"] == 3
            await_tick = asyncio.create_task(_next(events))
            await asyncio.sleep(0)
            await collector.poll()
            kind, tick = heard(await await_tick)
            assert kind == "tick" and tick["fine"]["first"] == 3 and len(tick["fine"]["times"]) == 1

    in_loop(test, *(stats(float(at), at) for at in range(3)))


async def _next(events: Any) -> bytes:
    found: bytes = await anext(events)
    return found


def test_a_slow_browser_gets_everything_at_once_and_nothing_waits_for_it() -> None:
    """Seen red with ticks that hold the latest point alone."""

    async def test(collector: Collector) -> None:
        with Streams(collector).one() as events:
            await anext(events)
            slow = asyncio.create_task(_next(events))
            await asyncio.sleep(0)
            await collector.poll()
            await slow  # and now it reads nothing for four polls
            for _ in range(4):
                await collector.poll()
            slow = asyncio.create_task(_next(events))
            await asyncio.sleep(0)
            await collector.poll()
            _, tick = heard(await slow)
            assert len(tick["fine"]["times"]) == 5

    in_loop(test, *(stats(float(at), at) for at in range(6)))


def test_the_number_of_browsers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen red without a bound."""
    monkeypatch.setattr(streams, "STREAMS_MAX", 2)

    async def test(collector: Collector) -> None:
        found = Streams(collector)
        with found.one(), found.one(), pytest.raises(TooMany, match="2 browsers"), found.one():
            pass
        with found.one():  # the places are free again
            assert found.open == 1
        assert found.open == 0

    in_loop(test)


def test_a_browser_that_does_not_read_is_given_up() -> None:
    """Seen red with a send that waits for ever."""

    async def never() -> None:
        await asyncio.Event().wait()

    async def at_once() -> None:
        pass

    async def test() -> None:
        assert await asyncio.wait_for(send_within(at_once(), 5), 5)
        assert not await asyncio.wait_for(send_within(never(), 0.01), 5)

    asyncio.run(test())
