"""How the requests of several clients interleaved, as a picture: a lane a client, a bar a request, steps across.

A picture is made of a live sample, which the server tells while somebody asks for it, or of a trace that
`kvzmq server --trace FILE` wrote. A sample has all phases of a request; a trace has its execution alone, and its steps
reach from the first execution to the last.

Whether each request executed alone is judged from the same picture: no two executions overlap, and each begins at the
revision that the one before has left. Where the server has dropped records the revisions prove nothing across the gap.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from kvzmq import errors
from kvzmq.dashboard.reader import Reader
from kvzmq.dashboard.shown import printable
from kvzmq.dashboard.turns import Turns
from kvzmq.protocol.monitoring import MonitoredRequest
from kvzmq.tracing import interleaving
from kvzmq.tracing.trace import THE_SERVER, Line

REQUESTS_MAX = 2000
"""How many requests one picture has."""

SAMPLE_S_MAX = 5.0
"""How long a live sample may take."""

TRACE_BYTES_MAX = 16 << 20
"""How much of a trace is read: the end of a file, or what is uploaded."""

WAITING_MAX = 4
"""How many may wait for their picture."""

OVERLAP_US = 1.0
"""By how much two executions may seem to overlap: their times are rounded, and added up from phases."""


class Bar(msgspec.Struct, array_like=True):
    """A request; times in microseconds since the picture begins, None where they are not known.

    lane        the number of its client
    step        the number of its step
    operation   its first operation, and how many more
    key         the first that it names, or None
    arrived_us  when the server took it in
    began_us    when its execution began
    ended_us    and ended
    synced_us   when what it has changed or seen was durable
    sent_us     when its reply was handed over
    changes     by how much it raised the revision
    revision    the table's afterwards
    error       the name of the error, or ""
    """

    lane: int
    step: int
    operation: str
    key: str | None
    arrived_us: float | None
    began_us: float
    ended_us: float
    synced_us: float | None
    sent_us: float | None
    changes: int
    revision: int
    error: str


class Step(msgspec.Struct, array_like=True):
    """A step of the loop; the two times at the end are those of its wait for the disk, None if there was none."""

    number: int
    began_us: float
    ended_us: float
    sync_began_us: float | None
    sync_ended_us: float | None


class Picture(msgspec.Struct):
    """What is drawn.

    source   live, or the name of a trace
    lanes    the clients, in the order in which they first show
    fault    the first sign that a request was not executed alone, or None
    dropped  how many requests of the time are not shown, as the server had no time to tell of them
    more     whether the trace goes on
    taken_s  when the sample was taken, since 1970
    """

    source: str
    lanes: list[str]
    bars: list[Bar]
    steps: list[Step]
    shared_steps: int
    fault: str | None = None
    dropped: int = 0
    more: bool = False
    taken_s: float | None = None


class Lanes:
    """Makes pictures.

    Args:
        table: gives the client that is in use
        trace: a file that `kvzmq server --trace` writes, or None
    """

    def __init__(self, table: Callable[[], Reader], trace: Path | None = None) -> None:
        self._table = table
        self.trace = trace
        self._turns = Turns("samples and traces", 1, WAITING_MAX)  # each sample takes a little of the server

    async def sample(self, seconds: float) -> Picture:
        """Have the server tell of its requests for a while, or until there are REQUESTS_MAX, and draw them."""
        seconds = min(max(seconds, 0.05), SAMPLE_S_MAX)
        found: list[MonitoredRequest] = []
        taken_s = time.time()
        async with self._turns.one(), self._table().monitor() as requests:
            until_s = time.monotonic() + seconds
            while len(found) < REQUESTS_MAX and (left_s := until_s - time.monotonic()) > 0:
                try:
                    found.append(await requests.get(left_s))
                except errors.Timeout:
                    break
            dropped = requests.dropped
        picture = of_records(found)
        picture.dropped, picture.taken_s = dropped, taken_s
        return picture

    async def of_file(self, first_step: int | None) -> Picture:
        """Draw the trace that the dashboard was given, from a step on; without one its latest requests.

        Raises:
            BadTraceLine: it is no trace
            OSError: it cannot be read
        """
        trace = self.trace
        assert trace is not None
        async with self._turns.one():
            return await asyncio.to_thread(lambda: of_text(_end_of(trace), trace.name, first_step, latest=True))


def of_records(records: Sequence[MonitoredRequest]) -> Picture:
    """Return the picture of a live sample."""
    if not records:
        return Picture("live", [], [], [], 0)
    start_s = min(min(record.received_s, record.step_began_s) for record in records)
    lanes: dict[str, int] = {}
    bars: list[Bar] = []
    steps: dict[int, Step] = {}

    def us(seconds: float) -> float:
        return round((seconds - start_s) * 1e6, 1)

    for record in records:
        began_s = record.received_s + record.queued_s
        ended_s = began_s + record.executed_s
        synced_s = ended_s + record.synced_s
        operation = record.operations[0].name if record.operations else "unreadable"
        key = record.operations[0].key if record.operations else None
        more = f" and {record.operation_count - 1} more" if record.operation_count > 1 else ""
        bars.append(
            Bar(
                lanes.setdefault(record.client, len(lanes)), record.step, operation + more,
                None if key is None else printable(key), us(record.received_s), us(began_s), us(ended_s),
                us(synced_s), us(synced_s + record.sent_s), record.revision_after - record.revision_before,
                record.revision_after, record.error,
            )
        )  # fmt: skip
        if record.step not in steps:
            sync = None if record.sync_began_s is None or record.sync_ended_s is None else (
                us(record.sync_began_s), us(record.sync_ended_s)
            )  # fmt: skip
            steps[record.step] = Step(
                record.step, us(record.step_began_s), us(record.step_ended_s), *(sync or (None, None))
            )
    return _picture("live", lanes, bars, steps, {at for at, record in enumerate(records) if record.dropped})


def of_text(text: Iterable[str], source: str, first_step: int | None = None, latest: bool = False) -> Picture:
    """Return the picture of a trace, from a step on, or of its first or latest requests.

    Raises:
        BadTraceLine: a line is none of a trace
    """
    lines: list[Line] = []
    more = False
    wanted = (entry.line for entry in interleaving.read(text))
    if first_step is None and latest:
        lines = list(wanted)[-REQUESTS_MAX:]
    else:
        wanted = (line for line in wanted if first_step is None or line.step >= first_step)
        lines = list(islice(wanted, REQUESTS_MAX))
        more = next(wanted, None) is not None
    picture = _of_lines(lines, source)
    picture.more = more
    return picture


def _of_lines(lines: Sequence[Line], source: str) -> Picture:
    lanes: dict[str, int] = {}
    bars: list[Bar] = []
    steps: dict[int, Step] = {}
    start_us = lines[0].began_us if lines else 0.0
    for line in lines:
        began_us = round(line.began_us - start_us, 1)
        ended_us = round(began_us + line.took_us, 1)
        name = "expiry" if line.client == THE_SERVER else line.client
        lane = lanes.setdefault(name, len(lanes))
        key = None if line.key == "-" else printable(str(msgspec.json.decode(line.key)))
        bars.append(
            Bar(lane, line.step, line.operation, key, None, began_us, ended_us, None, None, line.changes,
                line.revision, "")
        )  # fmt: skip
        step = steps.setdefault(line.step, Step(line.step, began_us, ended_us, None, None))
        step.ended_us = max(step.ended_us, ended_us)
    return _picture(source, lanes, bars, steps, set())


def _picture(source: str, lanes: dict[str, int], bars: list[Bar], steps: dict[int, Step], gaps: set[int]) -> Picture:
    clients: dict[int, set[int]] = {}
    for bar in bars:
        clients.setdefault(bar.step, set()).add(bar.lane)
    return Picture(
        source,
        [printable(name) for name in lanes],
        bars,
        sorted(steps.values(), key=lambda step: step.number),
        sum(len(found) > 1 for found in clients.values()),
        fault_of(bars, gaps),
    )


def fault_of(bars: Sequence[Bar], gaps: Iterable[int] = ()) -> str | None:
    """Return the first sign that a request was not executed alone, or None.

    Args:
        bars: in the order of their execution
        gaps: the places before which others may be missing
    """
    missing = set(gaps)
    for at in range(1, len(bars)):
        before, bar = bars[at - 1], bars[at]
        if bar.began_us < before.ended_us - OVERLAP_US:
            return f"in step {bar.step} {bar.operation} began before {before.operation} had ended"
        if at not in missing and bar.revision != before.revision + bar.changes:
            return f"in step {bar.step} {bar.operation} did not begin at revision {before.revision}"
    return None


def _end_of(path: Path) -> Iterable[str]:
    """Return the lines at the end of a file, TRACE_BYTES_MAX at most."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - TRACE_BYTES_MAX))
        data = file.read(TRACE_BYTES_MAX)
    if length > TRACE_BYTES_MAX:
        data = data.partition(b"\n")[2]
    return io.StringIO(data.decode("utf-8", "replace"))
