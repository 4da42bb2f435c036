"""The slow log: what is kept, what its phases say, and that it is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import pytest
from support.spending import Clock, clock_in_hand
from support.stepped import MemoryLog, Stepped, ZmqPeer

from kvzmq.protocol import msgpack
from kvzmq.protocol.monitoring import MonitoredRequest, decode_requests
from kvzmq.server import deferral, slow_log
from kvzmq.server.metrics import Metrics
from kvzmq.server.slow_log import SlowLog
from kvzmq.store.log import Log

SLOW_S = 0.15
"""How long what is slow takes, by the clock that the server measures with; half of it makes a request slow."""

PHASES = ("queued_s", "executed_s", "synced_s", "sent_s")


class SlowDisk(MemoryLog):
    """A log whose appends and syncs can take long."""

    append_s = sync_s = 0.0

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def append(self, group: bytes) -> Any:
        self._clock.spend(self.append_s)
        return super().append(group)

    def sync(self) -> None:
        self._clock.spend(self.sync_s)


@pytest.fixture(autouse=True)
def clock() -> Iterator[Clock]:
    with clock_in_hand() as clock:
        yield clock


@pytest.fixture
def disk(clock: Clock) -> SlowDisk:
    return SlowDisk(clock)


@pytest.fixture(params=["plain", "with metrics"])
def table(request: pytest.FixtureRequest, disk: SlowDisk) -> Iterator[Stepped]:
    metrics = Metrics() if request.param == "with metrics" else None
    with Stepped(log=cast("Log", disk), metrics=metrics, slow_log=SlowLog(SLOW_S / 2)) as running:
        yield running


def slow_requests(table: Stepped, limit: int = 256) -> list[MonitoredRequest]:
    code, found = table.call(table.zmq(), "slow_requests", limit)
    assert code == 0
    return decode_requests(msgspec.msgpack.encode(found))


def slowly(clock: Clock, do: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any) -> Any:
        found = do(*arguments)
        clock.spend(SLOW_S)
        return found

    return slow


def check_phases(found: MonitoredRequest, slow_phase: str) -> None:
    """The slow phase has all of the time but a little; together they are the whole."""
    phases = {name: getattr(found, name) for name in PHASES}
    assert all(seconds >= 0 for seconds in phases.values()), phases
    assert phases[slow_phase] >= SLOW_S, phases
    assert max(phases, key=lambda name: phases[name]) == slow_phase
    assert found.received_s + found.took_s == pytest.approx(found.step_ended_s, abs=1e-6)


# ---- which phase was slow


def test_a_slow_sync_is_told_as_such(table: Stepped, disk: SlowDisk) -> None:
    peer = table.zmq()
    table.call(peer, "insert", "quick", 1)
    disk.sync_s = SLOW_S
    table.call(peer, "insert", "a", 1)
    disk.sync_s = 0.0
    table.call(peer, "insert", "quick", 1)
    (found,) = slow_requests(table)
    check_phases(found, "synced_s")
    assert found.operations[0].key == "a" and (found.revision_before, found.revision_after) == (1, 2)
    assert found.sync_began_s is not None and found.sync_ended_s is not None
    assert found.sync_ended_s - found.sync_began_s >= SLOW_S


def test_a_slow_append_counts_as_waiting(table: Stepped, disk: SlowDisk) -> None:
    disk.append_s = SLOW_S
    table.call(table.zmq(), "insert", "a", 1)
    (found,) = slow_requests(table)
    check_phases(found, "queued_s")


@pytest.mark.parametrize("op", [["insert_many", {f"k{n}": n for n in range(100)}], ["keys"], ["lookup", "a"]])
def test_a_slow_execution_is_told_as_such(
    table: Stepped, monkeypatch: pytest.MonkeyPatch, clock: Clock, op: list[Any]
) -> None:
    """Whether it was measured by itself or not. Seen red with what is not measured counted as sending."""
    peer = table.zmq()
    table.call(peer, "ping")
    monkeypatch.setattr(table.store.table, "execute", slowly(clock, table.store.table.execute))
    table.call(peer, *op)
    monkeypatch.undo()
    (found,) = slow_requests(table)
    check_phases(found, "executed_s")
    assert found.operations[0].name == op[0]


def test_slow_sending_of_a_large_reply_is_told_as_such(
    table: Stepped, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    peer = table.zmq()
    table.call(peer, "insert", "a", "x" * 100_000)
    monkeypatch.setattr(table.router, "flush", slowly(clock, table.router.flush))
    table.call(peer, "lookup", "a")
    monkeypatch.undo()
    found = next(one for one in slow_requests(table) if one.operations[0].name == "lookup")
    check_phases(found, "sent_s")
    assert found.reply_bytes > 100_000


def test_slow_reading_of_a_request_is_told_as_waiting(
    table: Stepped, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    peer = table.zmq()
    table.call(peer, "ping")
    monkeypatch.setattr(msgpack, "decode_request", slowly(clock, msgpack.decode_request))
    table.call(peer, "lookup", "a")
    monkeypatch.undo()
    (found,) = slow_requests(table)
    check_phases(found, "queued_s")


def test_who_waited_for_a_slow_one_is_told_apart_from_it(
    table: Stepped, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Seen red with one time for all requests of a step."""
    one, other, third = table.zmq(), table.zmq(), table.zmq()
    for peer in (one, other, third):
        table.call(peer, "ping")
    execute = table.store.table.execute
    monkeypatch.setattr(
        table.store.table, "execute",
        lambda request: slowly(clock, execute)(request) if len(request.ops) > 100 else execute(request),
    )  # fmt: skip
    one.send(["lookup", "before"])
    table.server.dispatcher.began_ns = time.perf_counter_ns()
    other.send(*(["lookup", "slow"] for _ in range(101)))
    third.send(["lookup", "after"])
    table.gather(3)
    table.server.dispatcher.end_step(time.perf_counter_ns())
    monkeypatch.undo()
    found = {one.operations[0].key: one for one in slow_requests(table)}
    check_phases(found["slow"], "executed_s")
    for waited in (found["before"], found["after"]):
        assert waited.executed_s < SLOW_S / 2
        assert max(waited.queued_s, waited.synced_s, waited.sent_s) >= SLOW_S


def test_a_request_that_waited_for_an_index_is_slow_by_what_it_waited(
    table: Stepped, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Seen red with steps that were quick themselves not looked at."""
    peer = table.zmq()
    table.call(peer, "insert_many", {f"k{n:06}": {"n": n} for n in range(1000)})
    monkeypatch.setattr(deferral, "AT_ONCE_S", -1.0)
    work = table.server.dispatcher.deferral.work
    left_s = [SLOW_S]  # for the first time; the query executes before the next

    def slow_work(*arguments: float) -> None:
        work(*arguments)
        clock.spend(left_s.pop() if left_s else 0.0)

    monkeypatch.setattr(table.server.dispatcher.deferral, "work", slow_work)
    table.call(peer, "query", "n", 5)
    monkeypatch.undo()
    found = next(one for one in slow_requests(table) if one.operations[0].name == "query")
    check_phases(found, "queued_s")


# ---- what is kept


def test_the_slowest_come_first_and_quick_ones_not_at_all(table: Stepped, disk: SlowDisk) -> None:
    peer = table.zmq()
    for key, seconds in (("b", 2 * SLOW_S), ("quick", 0.0), ("c", SLOW_S), ("a", 3 * SLOW_S)):
        disk.sync_s = seconds
        table.call(peer, "insert", key, 1)
    found = slow_requests(table)
    assert [one.operations[0].key for one in found] == ["a", "b", "c"]
    assert slow_requests(table, 1) == found[:1]


def test_the_log_is_bounded_and_keeps_the_slowest_and_the_latest(
    disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_log, "SLOWEST_MAX", 3)
    kept = SlowLog(0.0)
    kept._recent = type(kept._recent)(maxlen=4)
    with Stepped(log=cast("Log", disk), slow_log=kept) as table:
        peer = table.zmq()
        for key in ("x", "y", "z"):
            disk.sync_s = SLOW_S
            table.call(peer, "insert", key, 1)
        disk.sync_s = 0.0
        for number in range(50):
            table.call(peer, "insert", f"k{number}", 1)
        found = kept.requests(256)
        assert {one.operations[0].key for one in found[:3]} == {"x", "y", "z"}
        assert {one.operations[0].key for one in found[3:]} == {"k46", "k47", "k48", "k49"}
        assert kept.seen == 53


def test_of_one_slow_step_only_so_many_are_kept(table: Stepped, disk: SlowDisk) -> None:
    peers: list[ZmqPeer] = [table.zmq() for _ in range(12)]
    for peer in peers:
        table.call(peer, "ping")
    for peer in peers:
        peer.send(["insert", "a", 1])
    table.server.dispatcher.began_ns = time.perf_counter_ns()
    disk.sync_s = SLOW_S
    table.gather(12)
    disk.sync_s = 0.0
    table.server.dispatcher.end_step(time.perf_counter_ns())
    assert len([one for one in slow_requests(table) if one.operations[0].name == "insert"]) == slow_log.OF_A_STEP_MAX


def test_a_server_without_one_says_that_there_are_none() -> None:
    with Stepped() as table:
        assert slow_requests(table) == []
