"""Lanes: how requests interleaved, as shapes in time; the same from a monitor's records and from a trace. No I/O.

A lane is a client. Each of its requests is a bar from its arrival to its reply, in which the time of its execution is
marked; steps and syncs go across all lanes. A trace knows neither arrivals nor replies: there a bar is the execution
alone, a step goes from its first execution to its last, and there are no syncs. Times are seconds from the first shape.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kvzmq.protocol.monitoring import MonitoredRequest
from kvzmq.tracing.interleaving import mark_of
from kvzmq.tracing.trace import THE_SERVER, Line

LANES_MAX = 64
"""How many clients have a lane of their own; the others, those with the fewest requests, share one."""

OTHERS = "others"
"""The lane that they share."""

BARS_MAX = 5000
"""How many bars a picture has: more cannot be told apart."""


class Bar(NamedTuple):
    """One request.

    began_s     when it arrived
    ended_s     when its reply was handed over
    executed_s  when its execution began
    replied_s   when its execution ended; what follows is waiting for the disk, and sending
    step        the number of its step
    operation   the name of its first operation, with `+N` for N more
    key         the first key, or None
    error       the name of its error, or ""
    mark        how the operation is drawn, one character
    changes     by how much it has increased the table's revision
    dropped     how many requests before it are not shown
    """

    began_s: float
    ended_s: float
    executed_s: float
    replied_s: float
    step: int
    operation: str
    key: str | None
    error: str
    mark: str
    changes: int
    dropped: int


class Lane(NamedTuple):
    """One client's requests, in the order of their execution.

    client     its name
    transport  "router", "bridge", or "" if it is not known
    bars       its requests
    """

    client: str
    transport: str
    bars: Sequence[Bar]


class Span(NamedTuple):
    """What goes across all lanes: a step, or its wait for the disk."""

    step: int
    began_s: float
    ended_s: float


class Lanes(NamedTuple):
    """A picture of lanes.

    lanes       in the order in which their clients first had a request executed
    steps       in their order
    syncs       in their order
    duration_s  from the first shape's begin to the last one's end
    origin_s    the first shape's begin, on the clock that the records or the trace have
    dropped     how many requests are not shown: dropped by the monitor, or beyond BARS_MAX
    """

    lanes: Sequence[Lane]
    steps: Sequence[Span]
    syncs: Sequence[Span]
    duration_s: float
    origin_s: float
    dropped: int


def lanes_of_records(records: Iterable[MonitoredRequest]) -> Lanes:
    """Return the lanes of what a monitor has told, the latest BARS_MAX requests of it."""
    told = list(records)
    shown = sorted(told[-BARS_MAX:], key=lambda record: record.received_s + record.queued_s)
    dropped = len(told) - len(shown) + sum(record.dropped for record in told)
    if not shown:
        return Lanes((), (), (), 0.0, 0.0, dropped)
    origin_s = min(min(record.received_s, record.step_began_s) for record in shown)
    bars: list[tuple[str, str, Bar]] = []
    # By its begin, too: after a restart of the server the numbers of steps come again.
    steps: dict[tuple[float, int], Span] = {}
    syncs: dict[tuple[float, int], Span] = {}
    for record in shown:
        executed_s = record.received_s + record.queued_s - origin_s
        first = record.operations[0] if record.operations else None
        name = "?" if first is None else first.name
        bar = Bar(
            record.received_s - origin_s,
            record.step_ended_s - origin_s,
            executed_s,
            executed_s + record.executed_s,
            record.step,
            name if record.operation_count < 2 else f"{name}+{record.operation_count - 1}",
            None if first is None else first.key,
            record.error,
            mark_of(name),
            record.revision_after - record.revision_before,
            record.dropped,
        )
        bars.append((record.client, record.transport, bar))
        step = Span(record.step, record.step_began_s - origin_s, record.step_ended_s - origin_s)
        steps[step.began_s, step.step] = step
        if record.sync_began_s is not None and record.sync_ended_s is not None:
            sync = Span(record.step, record.sync_began_s - origin_s, record.sync_ended_s - origin_s)
            syncs[sync.began_s, sync.step] = sync
    duration_s = max(span.ended_s for span in steps.values())
    return Lanes(_lanes(bars), _in_order(steps), _in_order(syncs), duration_s, origin_s, dropped)


def lanes_of_trace(lines: Iterable[Line]) -> Lanes:
    """Return the lanes of the lines of a trace, the first BARS_MAX requests of it."""
    shown: list[Line] = []
    dropped = 0
    for line in lines:
        if line.client == THE_SERVER:
            continue  # rows that expired are nobody's request
        if len(shown) < BARS_MAX:
            shown.append(line)
        else:
            dropped += 1
    if not shown:
        return Lanes((), (), (), 0.0, 0.0, dropped)
    origin_s = shown[0].began_us / 1e6
    bars: list[tuple[str, str, Bar]] = []
    steps: dict[tuple[float, int], Span] = {}
    span: Span | None = None
    for line in shown:
        began_s = line.began_us / 1e6 - origin_s
        ended_s = began_s + line.took_us / 1e6
        key = None if line.key == "-" else str(json.loads(line.key))
        bar = Bar(
            began_s, ended_s, began_s, ended_s, line.step, line.operation, key, "",
            mark_of(line.operation), line.changes, 0,
        )  # fmt: skip
        bars.append((line.client, "", bar))
        span = Span(line.step, began_s, ended_s) if span is None or span.step != line.step else span
        span = steps[span.began_s, span.step] = span._replace(ended_s=ended_s)
    duration_s = max(bar.ended_s for _, _, bar in bars)
    return Lanes(_lanes(bars), _in_order(steps), (), duration_s, origin_s, dropped)


def _lanes(bars: Sequence[tuple[str, str, Bar]]) -> list[Lane]:
    by_client: dict[str, tuple[str, list[Bar]]] = {}
    for client, transport, bar in bars:
        by_client.setdefault(client, (transport, []))[1].append(bar)
    if len(by_client) > LANES_MAX:
        busiest = sorted(by_client, key=lambda client: -len(by_client[client][1]))[: LANES_MAX - 1]
        shared = [bar for client, _, bar in bars if client not in busiest]
        by_client = {client: found for client, found in by_client.items() if client in busiest}
        by_client[OTHERS] = ("", shared)
    return [Lane(client, transport, found) for client, (transport, found) in by_client.items()]


def _in_order(spans: dict[tuple[float, int], Span]) -> list[Span]:
    return [spans[begin] for begin in sorted(spans)]
