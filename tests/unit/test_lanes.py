"""Lanes: one picture from a monitor's records and from a trace."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from support.stepped import Stepped

from kvzmq.protocol.monitoring import MonitoredRequest, NamedOperation, Records
from kvzmq.server import monitors
from kvzmq.tracing import lanes
from kvzmq.tracing.interleaving import read
from kvzmq.tracing.lanes import Bar, Lanes, Span, lanes_of_records, lanes_of_trace
from kvzmq.tracing.trace import Trace


def record(**changes: Any) -> MonitoredRequest:
    """One that arrived at 10.0, executed from 10.1 to 10.2, waited until 10.5 for the disk, and was sent until 10.6."""
    plain: dict[str, Any] = {
        "step": 7, "received_us": 1, "received_s": 10.0, "client": "zmq:1", "transport": "router",
        "operations": [NamedOperation("insert", "a")], "operation_count": 1, "code": 0,
        "revision_before": 3, "revision_after": 4, "request_bytes": 20, "reply_bytes": 4,
        "queued_s": 0.1, "executed_s": 0.1, "synced_s": 0.3, "sent_s": 0.1,
        "step_began_s": 10.0, "step_ended_s": 10.6, "sync_began_s": 10.2, "sync_ended_s": 10.5,
    }  # fmt: skip
    return MonitoredRequest(**(plain | changes))


def rounded(bar: Bar) -> Bar:
    times = {name: round(getattr(bar, name), 6) for name in ("began_s", "ended_s", "executed_s", "replied_s")}
    return bar._replace(**times)


def spans(found: Any) -> list[tuple[int, float, float]]:
    return [(span.step, round(span.began_s, 6), round(span.ended_s, 6)) for span in found]


def test_a_record_is_a_bar_from_arrival_to_reply_and_its_step_and_sync_go_across() -> None:
    found = lanes_of_records([record()])
    (lane,) = found.lanes
    assert (lane.client, lane.transport) == ("zmq:1", "router")
    (bar,) = lane.bars
    assert rounded(bar) == Bar(0.0, 0.6, 0.1, 0.2, 7, "insert", "a", "", "I", 1, 0)
    assert (spans(found.steps), spans(found.syncs)) == ([(7, 0.0, 0.6)], [(7, 0.2, 0.5)])
    assert found.origin_s == 10.0 and found.duration_s == pytest.approx(0.6) and found.dropped == 0


def test_requests_of_one_step_share_its_span_and_lie_in_their_clients_lanes() -> None:
    found = lanes_of_records([
        record(),
        record(client="tcp:2", transport="bridge", queued_s=0.2, executed_s=0.05, code=1,
               operations=[NamedOperation("lookup", "b"), NamedOperation("lookup", "c")], operation_count=9),
        record(step=8, received_s=10.6, step_began_s=10.6, step_ended_s=10.7, sync_began_s=None, sync_ended_s=None,
               queued_s=0.01, executed_s=0.01, synced_s=0.0, sent_s=0.08, dropped=5),
    ])  # fmt: skip
    assert [(lane.client, len(lane.bars)) for lane in found.lanes] == [("zmq:1", 2), ("tcp:2", 1)]
    (bar,) = found.lanes[1].bars
    assert (bar.operation, bar.key, bar.error, bar.mark) == ("lookup+8", "b", "NoSuchKey", "l")
    assert [step for step, *_ in spans(found.steps)] == [7, 8] and len(found.syncs) == 1
    assert found.dropped == 5 and found.lanes[0].bars[1].dropped == 5


def test_a_request_that_waited_since_an_earlier_step_begins_the_picture() -> None:
    found = lanes_of_records([record(received_s=9.0, queued_s=1.1)])
    assert found.origin_s == 9.0 and spans(found.steps) == [(7, 1.0, 1.6)]
    assert rounded(found.lanes[0].bars[0])[:4] == (0.0, 1.6, 1.1, 1.2)


def test_a_request_that_could_not_be_read_is_drawn_too() -> None:
    found = lanes_of_records([record(operations=[], operation_count=0, code=16)])
    (bar,) = found.lanes[0].bars
    assert (bar.operation, bar.key, bar.error, bar.mark) == ("?", None, "InvalidRequest", "o")


def test_nothing_makes_an_empty_picture() -> None:
    assert lanes_of_records([]) == lanes_of_trace([]) == Lanes((), (), (), 0.0, 0.0, 0)


def test_a_picture_is_bounded_in_lanes_and_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "BARS_MAX", 60)
    monkeypatch.setattr(lanes, "LANES_MAX", 4)
    many = [record(client=f"c{number % 10}", received_s=10.0 + number) for number in range(95)]
    many += [record(client="busy", received_s=200.0 + number) for number in range(5)]
    found = lanes_of_records(many)
    assert found.dropped == 40 and sum(len(lane.bars) for lane in found.lanes) == 60
    assert len(found.lanes) == 4 and found.lanes[-1].client == lanes.OTHERS


def test_a_trace_and_a_monitor_give_the_same_lanes() -> None:
    text = io.StringIO()
    trace = Trace(text)
    with Stepped(trace=trace) as table:
        table.server.dispatcher.monitors._left_ns = 10**15
        watching = table.zmq()
        table.call(watching, "monitor")
        skipped = text.getvalue().count("\n")
        one, other = table.zmq(), table.zmq()
        for number in range(5):
            table.call(one, "insert", f"k{number}", 1)
            table.call(other, "lookup", f"k{number}")
        one.send(["insert", "x", 1], ["remove", "x"])
        table.replies(one)
        told: list[MonitoredRequest] = []

        def look() -> None:
            table.now_s += monitors.PUSH_S
            for message in [*watching.events, *watching.replies()]:
                told.extend(msgspec.convert(message[2][2], Records).records)
            watching.events.clear()

        table.until(lambda: len(told) >= 11, first=look)
    lines = [entry.line for entry in read(text.getvalue().splitlines(keepends=True)[skipped:])]
    traced, monitored = lanes_of_trace(lines), lanes_of_records(told)
    shown = [
        [(lane.client, [(bar.step, bar.operation, bar.key, bar.mark, bar.changes) for bar in lane.bars])
         for lane in picture.lanes]
        for picture in (traced, monitored)
    ]  # fmt: skip
    assert shown[0] == shown[1] and len(shown[0]) == 2
    assert [span.step for span in traced.steps] == [span.step for span in monitored.steps]
    for step, of_trace in zip(monitored.steps, traced.steps):
        assert step.began_s + monitored.origin_s <= step.ended_s + monitored.origin_s
        assert of_trace.ended_s - of_trace.began_s <= step.ended_s - step.began_s
    assert isinstance(monitored.steps[0], Span)
