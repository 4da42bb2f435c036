"""Monitors: what is told of requests, to whom, and that nobody waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from support.calls import noting
from support.spending import Clock, clock_in_hand
from support.stepped import Stepped, ZmqPeer

from kvzmq.protocol.messages import Request
from kvzmq.protocol.monitoring import MonitoredRequest, Records
from kvzmq.server import deferral, monitors
from kvzmq.server.metrics import Metrics

FOREVER_NS = 10**15


@pytest.fixture
def clock() -> Iterator[Clock]:
    with clock_in_hand() as clock:
        yield clock


@pytest.fixture
def table() -> Iterator[Stepped]:
    with Stepped() as running:
        running.server.dispatcher.monitors._left_ns = FOREVER_NS  # a busy machine must not cost a test its records
        yield running


def monitor(table: Stepped, *arguments: Any) -> ZmqPeer:
    """Begin a monitor on a connection of its own."""
    peer = table.zmq()
    code, number = table.call(peer, "monitor", *arguments)
    assert code == 0, number
    return peer


def take(table: Stepped, peer: ZmqPeer, count: int = 0) -> list[Records]:
    """Let time pass until so many records have come, and a little longer; return the payloads of the events."""
    found: list[Records] = []

    def look() -> None:
        table.now_s += monitors.PUSH_S
        for message in [*peer.events, *peer.replies()]:
            if message[0] == 0:
                code, payload = message[2][1:3]
                assert code == 0, payload
                found.append(msgspec.convert(payload, Records))
        peer.events.clear()

    table.until(lambda: sum(len(payload.records) for payload in found) >= count, first=look)
    table.settle()
    look()
    return found


def records(table: Stepped, peer: ZmqPeer, count: int = 0) -> list[MonitoredRequest]:
    return [record for payload in take(table, peer, count) for record in payload.records]


def names(found: list[MonitoredRequest]) -> list[str]:
    return ["+".join(op.name for op in record.operations) for record in found]


def keys(found: list[MonitoredRequest]) -> list[str | None]:
    return [op.key for record in found for op in record.operations]


# ---- what is told


def test_a_monitor_is_told_what_was_asked_by_whom_and_how_it_was_answered(table: Stepped) -> None:
    watching, peer, bridge = monitor(table), table.zmq(), table.tcp()
    table.call(peer, "insert", "a", 1)
    table.call(peer, "lookup", "ghost")
    bridge.send(b'{"method": "size"}\nrubbish\n')
    table.lines(bridge, 2)
    insert, lookup, size, rubbish = records(table, watching, 4)
    assert names([insert, lookup, size, rubbish]) == ["insert", "lookup", "size", ""]
    assert [insert.error, lookup.error, size.error, rubbish.error] == ["", "NoSuchKey", "", "InvalidRequest"]
    assert (insert.transport, size.transport) == ("router", "bridge")
    assert insert.client == lookup.client and insert.client.startswith("zmq:")
    assert size.client == rubbish.client and size.client.startswith("tcp:127.0.0.1:")
    assert (insert.revision_before, insert.revision_after, lookup.revision_after) == (0, 1, 1)
    assert keys([insert, lookup]) == ["a", "ghost"]
    assert insert.request_bytes == len(msgspec.msgpack.encode([None, 1, [["insert", "a", 1]]]))
    assert rubbish.operation_count == rubbish.request_bytes == 0 and insert.reply_bytes > 0
    assert [record.dropped for record in (insert, lookup, size, rubbish)] == [0] * 4


def test_the_phases_of_a_request_are_its_time_and_lie_within_its_step(table: Stepped) -> None:
    watching, peer = monitor(table), table.zmq()
    table.call(peer, "insert", "a", 1)
    table.call(peer, "lookup", "a")
    insert, lookup = records(table, watching, 2)
    for found in (insert, lookup):
        assert min(found.queued_s, found.executed_s, found.synced_s, found.sent_s) >= 0
        assert found.step_began_s == found.received_s
        assert found.received_s + found.took_s == pytest.approx(found.step_ended_s, abs=1e-6)
    assert insert.sync_began_s is not None and insert.sync_ended_s is not None
    executed_s = insert.received_s + insert.queued_s + insert.executed_s
    assert executed_s <= insert.sync_began_s <= insert.sync_ended_s <= insert.step_ended_s
    assert insert.sync_ended_s == pytest.approx(executed_s + insert.synced_s, abs=1e-6)
    assert lookup.sync_began_s is lookup.sync_ended_s is None
    assert insert.step < lookup.step


def test_requests_of_one_step_follow_one_another(table: Stepped) -> None:
    watching, peers = monitor(table), [table.zmq() for _ in range(5)]
    table.settle()
    for number, peer in enumerate(peers):
        peer.send(["insert", f"k{number}", 1])
    table.until(lambda: sum(len(peer.replies()) for peer in peers) or table.store.revision == 5)
    found = records(table, watching, 5)
    ended_s = 0.0
    for before, record in zip([0, 1, 2, 3, 4], found):
        assert (record.revision_before, record.revision_after) == (before, before + 1)
        began_s = record.received_s + record.queued_s
        assert began_s >= ended_s - 1e-9
        ended_s = began_s + record.executed_s
    assert len(found) == 5


def test_a_batch_shows_its_first_operations_and_counts_all(table: Stepped) -> None:
    watching, peer = monitor(table), table.zmq()
    peer.send(*(["insert", f"{number}" * 300, 1] for number in range(6)), ["lookup", "ghost"])
    table.replies(peer)
    (found,) = records(table, watching, 1)
    assert found.operation_count == 7 and found.error == "NoSuchKey"
    assert keys([found]) == [f"{number}" * 200 for number in range(4)]


def test_no_value_is_told(table: Stepped) -> None:
    watching, peer = monitor(table), table.zmq()
    table.call(peer, "insert", "a", "secret")
    table.call(peer, "lookup", "a")
    table.call(peer, "compare_and_set", "a", ["secret"], ["secret"])
    table.call(peer, "query", "name", "secret")
    table.now_s += 1
    table.settle()
    frames = []
    while watching.socket.poll(0):
        frames.append(watching.socket.recv())
    told = b"".join(frames)
    assert b"lookup" in told and b"compare_and_set" in told and b"secret" not in told


def test_a_retry_and_a_refused_request_are_told_and_change_nothing(table: Stepped) -> None:
    watching, peer = monitor(table), table.zmq()
    peer.session = bytes(16)
    table.call(peer, "open")
    table.call(peer, "increment", "n")
    peer.seq -= 1
    table.call(peer, "increment", "n")
    table.call(peer, "nonsense")
    _, first, retry, refused = records(table, watching, 4)
    assert (first.revision_before, first.revision_after) == (0, 1)
    assert (retry.revision_before, retry.revision_after, retry.error) == (1, 1, "")
    assert (refused.error, refused.operation_count) == ("InvalidMethod", 0)


def test_a_request_that_waited_for_an_index_was_queued_since_it_came(
    table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red with requests that are deferred not stamped."""
    monkeypatch.setattr(deferral, "AT_ONCE_S", -1.0)
    peer = table.zmq()
    table.call(peer, "insert_many", {f"k{n:06}": {"n": n} for n in range(5000)})
    watching = monitor(table, "", "query")
    table.call(peer, "query", "n", 5)
    (found,) = records(table, watching, 1)
    assert found.received_s < found.step_began_s, "it was executed in a later step than it came with"
    assert found.queued_s >= found.step_began_s - found.received_s > 0


# ---- filters, in the server


def test_filters_choose_by_client_operation_and_prefix(table: Stepped) -> None:
    one, other = table.zmq(), table.zmq()
    table.call(one, "ping")
    table.call(other, "ping")
    name = next(iter(table.router.clients()))
    by_client, by_op = monitor(table, name), monitor(table, "", "lookup")
    by_prefix, by_all = monitor(table, "", "", "a/"), monitor(table, "zmq:", "lookup", "b/")
    for peer in (one, other):
        table.call(peer, "insert", "a/1", 1)
        table.call(peer, "insert", "b/1", 1)
        table.call(peer, "lookup", "a/1")
        table.call(peer, "lookup", "b/1")
        table.call(peer, "keys", "a/")
        table.call(peer, "size")
    found = records(table, by_client, 6)
    assert {record.client for record in found} == {name} and len(found) == 6
    assert keys(records(table, by_op, 4)) == ["a/1", "b/1"] * 2
    assert names(records(table, by_prefix, 6)) == ["insert", "lookup", "keys"] * 2
    assert keys(records(table, by_all, 2)) == ["b/1"] * 2


def test_a_monitor_of_a_prefix_is_told_nothing_of_other_keys(table: Stepped) -> None:
    """Its rights may end there. Seen red with all operations of a batch named."""
    watching, peer = monitor(table, "", "", "a/"), table.zmq()
    peer.send(["insert", "secret", 1], ["insert", "a/1", 1], ["insert_many", {"hidden": 1, "a/2": 2}])
    table.replies(peer)
    (found,) = records(table, watching, 1)
    assert keys([found]) == ["a/1", "a/2"] and found.operation_count == 3


def test_a_sample_tells_of_one_in_so_many_that_pass(table: Stepped) -> None:
    watching, peer = monitor(table, "", "lookup", "", 0, 3), table.zmq()
    for number in range(9):
        table.call(peer, "lookup", f"k{number}")
        table.call(peer, "ping")
    assert keys(records(table, watching, 3)) == ["k2", "k5", "k8"]


def test_only_what_took_long_is_told_if_that_is_wanted(table: Stepped) -> None:
    watching, peer = monitor(table, "", "", "", 1e6), table.zmq()
    everything = monitor(table, "", "lookup", "", 1e-9)
    table.call(peer, "lookup", "a")
    assert len(records(table, everything, 1)) == 1
    assert not records(table, watching)


# ---- bounds


def test_a_server_without_monitors_attaches_nothing(table: Stepped) -> None:
    """Throughput is what it was. Seen red with times kept after the last monitor has ended."""
    dispatcher = table.server.dispatcher
    peer = table.zmq()
    watching = monitor(table)
    table.call(peer, "insert", "a", 1)
    assert dispatcher.began_ns and dispatcher.monitors.is_active
    table.call(watching, "unwatch", 1)
    table.call(peer, "insert", "a", 1)
    assert not dispatcher.began_ns and not dispatcher.monitors.is_active and not dispatcher.observers
    table.settle()
    watching.replies()
    table.call(peer, "insert", "a", 1)
    assert not records(table, watching)


def test_who_never_reads_costs_a_bounded_buffer_and_its_drops_are_counted(
    table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red without the bound of the buffer, and with drops that are not told."""
    watching, peer = monitor(table), table.zmq()
    room = [False]
    push = table.router.push
    monkeypatch.setattr(table.router, "push", lambda to, event: room[0] and push(to, event))
    monkeypatch.setattr(monitors, "BUFFER_BYTES_MAX", 1000)
    for number in range(30):
        assert table.call(peer, "insert", f"k{number}", 1) == (0, None), "nobody waits"
        table.now_s += monitors.RETRY_S
    (one,) = table.server.dispatcher.monitors._monitors.values()
    assert 0 < one.buffered_bytes <= 1000 and sum(map(len, one.buffer)) == one.buffered_bytes
    room[0] = True
    payloads = take(table, watching, 1)
    told = [record for payload in payloads for record in payload.records]
    table.call(peer, "insert", "last", 1)
    payloads += take(table, watching, 1)
    last = payloads[-1].records[-1]
    assert 0 < len(told) < 30 and len(told) + last.dropped == 30 == len(told) + payloads[-1].dropped
    assert keys(told) == [f"k{number}" for number in range(len(told))]


def test_nothing_more_is_sent_to_who_gives_no_heartbeat(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitors, "UNHEARD_BYTES_MAX", 1000)
    monkeypatch.setattr(monitors, "EVENT_BYTES_MAX", 300)
    watching, peer = monitor(table), table.zmq()
    for number in range(40):
        table.call(peer, "insert", f"k{number}", 1)
    before = len(records(table, watching, 1))
    assert 0 < before < 40 and not records(table, watching)
    assert table.call(watching, "progress", 1) == (0, True)
    assert records(table, watching, 1)


def test_a_monitor_takes_its_share_of_the_time_and_counts_what_it_did_not_look_at(table: Stepped) -> None:
    """Seen red with the time that is spent not taken from what is left."""
    watching, peer = monitor(table), table.zmq()
    listening = table.server.dispatcher.monitors
    spent_ns = [0]

    def spend() -> int:
        spent_ns[0] += 1_000_000  # each look takes a millisecond
        return spent_ns[0]

    listening._spent_ns = spend
    listening._left_ns = 0
    for number in range(100):
        table.now_s += 0.005  # of which the share is a tenth of a millisecond
        table.call(peer, "insert", f"k{number}", 1)
    payloads = take(table, watching, 1)
    told = [record for payload in payloads for record in payload.records]
    assert 0 < len(told) < 20
    assert keys(told)[-1] == f"k{len(told) + sum(record.dropped for record in told) - 1}", "all others are counted"
    assert payloads[-1].dropped >= sum(record.dropped for record in told) > 60


def test_requests_are_measured_only_while_a_monitor_looks(table: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen red with all of them measured as long as there is a monitor."""
    watching, peer = monitor(table), table.zmq()
    dispatcher = table.server.dispatcher
    measured: list[object] = []
    monkeypatch.setattr(dispatcher, "_answer", noting(lambda *_: measured.append(1), dispatcher._answer))
    table.call(peer, "lookup", "a")
    assert len(measured) == 1 and dispatcher.monitors.is_looking
    dispatcher.monitors._left_ns = -1
    table.call(peer, "lookup", "b")
    assert len(measured) == 1 and not dispatcher.monitors.is_looking
    dispatcher.monitors._left_ns = FOREVER_NS
    table.call(peer, "lookup", "c")
    found = records(table, watching, 2)
    assert keys(found) == ["a", "c"] and [record.dropped for record in found] == [0, 1]


def test_what_took_long_is_told_from_steps_that_were_not_measured(
    clock: Clock, table: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And steps that were quick cost such a monitor nothing: they are not counted as dropped."""
    watching, peer = monitor(table, "", "", "", 0.02), table.zmq()
    table.server.dispatcher.monitors._left_ns = 1  # too little to begin to look again
    table.call(peer, "lookup", "quick")
    execute = table.store.table.execute

    def slowly(request: Request) -> Any:
        clock.spend(0.03)
        return execute(request)

    monkeypatch.setattr(table.store.table, "execute", slowly)
    table.call(peer, "lookup", "slow")
    monkeypatch.undo()
    payloads = take(table, watching, 1)
    (found,) = [record for payload in payloads for record in payload.records]
    assert keys([found]) == ["slow"] and found.executed_s >= 0.03 and payloads[-1].dropped == 0


def test_there_are_only_so_many_monitors(table: Stepped) -> None:
    peer = table.zmq()
    for _ in range(monitors.MONITORS_MAX):
        assert table.call(peer, "monitor")[0] == 0
    code, why = table.call(peer, "monitor")
    assert code == 4 and "16 monitors" in why
    assert table.server.describe()["monitors"] == 16
    table.call(peer, "unwatch", 1)
    assert table.call(peer, "monitor")[0] == 0


def test_a_monitor_without_heartbeats_ends_and_says_so(table: Stepped) -> None:
    watching = monitor(table)
    for _ in range(4):
        table.now_s += 6.0
        assert table.call(watching, "progress", 1) == (0, True)
    table.now_s += 10.5
    table.until(lambda: not table.server.dispatcher.monitors.is_active)
    *_, last = [*watching.events, *table.replies(watching)]
    assert last[2][:2] == [1, 6] and "heartbeat" in last[2][2]
    assert table.call(watching, "progress", 1) == (0, False)


def test_an_idle_monitor_is_sent_heartbeats(table: Stepped) -> None:
    watching = monitor(table)
    table.call(watching, "progress", 1)
    take(table, watching, 1)
    table.now_s += 3.1
    (heartbeat,) = table.replies(watching)
    assert heartbeat[0] == 0 and heartbeat[2] == [1, 0, [[], 0]]


def test_a_peer_that_has_gone_takes_its_monitors_along(table: Stepped) -> None:
    watching, peer = monitor(table), table.zmq()
    watching.close()

    def ask() -> None:
        table.call(peer, "insert", "a", 1)
        table.now_s += monitors.PUSH_S

    table.until(lambda: not table.server.dispatcher.monitors.is_active, first=ask)


def test_monitors_end_only_for_their_own_peer(table: Stepped) -> None:
    monitor(table)
    stranger = table.zmq()
    assert table.call(stranger, "progress", 1) == (0, False)
    assert table.call(stranger, "unwatch", 1) == (0, None)
    assert table.server.dispatcher.monitors.is_active


def test_watches_and_monitors_of_one_connection_have_different_numbers(table: Stepped) -> None:
    peer = table.zmq()
    numbers = [table.call(peer, method)[1] for method in ("watch", "monitor", "watch", "monitor")]
    assert len(set(numbers)) == 4


def test_the_bridge_refuses_a_monitor_and_says_why(table: Stepped) -> None:
    bridge = table.tcp()
    bridge.send(b'{"method": "monitor"}\n{"method": "slow_requests", "limit": 5}\n')
    refused, slow = table.lines(bridge, 2)
    assert refused["type"] == "InvalidMethod" and "needs a ZeroMQ client" in refused["message"]
    assert slow == {"status": "OK", "result": []}


def test_metrics_and_monitors_do_not_disturb_each_other() -> None:
    with Stepped(metrics=Metrics()) as table:
        table.server.dispatcher.monitors._left_ns = FOREVER_NS
        watching, peer = monitor(table), table.zmq()
        for number in range(5):
            table.call(peer, "insert", f"k{number}", 1)
        assert len(records(table, watching, 5)) == 5
        assert table.server.describe()["by_operation"]["insert"]["count"] == 5
