"""What one client of TestPerf does and how it is timed: the stages, the window that counts, the figures.

Why figures are taken over a common window is said in TestPerf.  This part knows no command line and starts no
processes; it is given a table and a place to meet the other copies.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import secrets
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from Figures import summarize
from StageBarrier import CopyFailed, StageBarrier

STAGES = ("insert", "lookup", "size", "query", "remove")
MATCHES = 4
LEAD_NS = 50_000_000
FOREVER_NS = 2**63 - 1
NS_PER_S = 1_000_000_000

BEGIN, END, LATENCIES = "begin", "end", "latencies"
ROWS = "rows"


class Table(Protocol):
    """What both clients can do, and what is timed."""

    def insert(self, key: str, value: Any) -> Any: ...
    def lookup(self, key: str) -> Any: ...
    def size(self) -> int: ...
    def query(self, subkey: str, subvalue: Any) -> Sequence[Any]: ...
    def remove(self, key: str) -> Any: ...
    def close(self) -> Any: ...


class WrongResult(Exception):
    """The table answered, but wrongly."""


class Row(NamedTuple):
    """One client's figures for one stage, or the sum of all clients'.

    operations: completed in the window in which every client ran; the latencies are theirs
    seconds: how long that window was
    ops_per_s: operations / seconds; NaN, as the latencies, when there was no such window
    start_s, end_s: when it began and ended, Unix time
    done: all operations of the stage, in the window or not
    """

    transport: str
    clients: int
    operation: str
    client: str
    operations: int
    seconds: float
    ops_per_s: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    start_s: float
    end_s: float
    done: int


class Window(NamedTuple):
    """A stretch of the monotonic clock, in nanoseconds."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return max(self.end_ns - self.start_ns, 0) / NS_PER_S


class Work:
    """One client's keys and values, and the arguments of each stage's operations.

    MATCHES rows share a name, so a query has few matches, all of them this client's.
    """

    def __init__(self, items: int | None) -> None:
        """Plan `items` operations a stage, or, with None, as many as there is time for."""
        self._items = items
        self.prefix = f"perf-{secrets.token_hex(5)}-"
        self.inserted = 0
        self.removed = 0

    def key(self, i: int) -> str:
        return f"{self.prefix}{i}"

    def value(self, i: int) -> dict[str, Any]:
        return {"name": self.name(i), "weight": i}

    def name(self, i: int) -> str:
        return f"{self.prefix}{i // MATCHES}"

    def arguments(self, stage: str) -> Iterator[tuple[Any, ...]]:
        """Generate the arguments of the operations of `stage`: the method is the stage's name."""
        endless: dict[str, Callable[[], Iterator[tuple[Any, ...]]]] = {
            "insert": lambda: ((self.key(i), self.value(i)) for i in itertools.count()),
            "lookup": lambda: ((self.key(i),) for i in self._own_rows()),
            "size": lambda: itertools.repeat(()),
            "query": lambda: (("name", self.name(i)) for i in self._own_rows()),
            "remove": lambda: ((self.key(i),) for i in range(self.inserted)),
        }
        return itertools.islice(endless[stage](), self._items)

    def _own_rows(self) -> Iterator[int]:
        return itertools.cycle(range(self.inserted))

    def note_done(self, stage: str, operations: int) -> None:
        """Remember what a stage left in the table."""
        if stage == "insert":
            self.inserted = operations
        elif stage == "remove":
            self.removed = operations

    def verify(self, stage: str, table: Table) -> None:
        """Look, outside of the measurement, whether what was just timed does what it says.

        Raises: WrongResult
        """
        if stage == "lookup":
            last = self.inserted - 1
            _expect(stage, table.lookup(self.key(last)), self.value(last))
        elif stage == "size" and table.size() < self.inserted:
            raise WrongResult(f"size is less than the {self.inserted} rows of this client alone")
        elif stage == "query":
            wanted = [[self.key(i), self.value(i)] for i in range(min(MATCHES, self.inserted))]
            _expect(stage, sorted(list(pair) for pair in table.query("name", self.name(0))), wanted)

    def clean_up(self, table: Table) -> None:
        """Remove what the stages left: in a given time, fewer rows may be removed than were inserted."""
        for i in range(self.removed, self.inserted):
            with suppress(KeyError):
                table.remove(self.key(i))


def _expect(stage: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise WrongResult(f"{stage} gave {got!r} instead of {wanted!r}")


def warm_up(table: Table, prefix: str) -> None:
    """Connect, open the session and have the query's index built before anything is timed."""
    table.insert(f"{prefix}warm", {"name": prefix})
    table.query("name", prefix)
    table.remove(f"{prefix}warm")


# ---- timing -------------------------------------------------------------------------------------------


def time_calls(
    operation: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], seconds: float | None
) -> array[int]:
    """Call `operation` with each of `arguments`, for at most `seconds`; return when it began and each ended.

    Times are of the monotonic clock, in ns, which all processes of a machine share.  One reading of it per
    operation serves as the end of one and the beginning of the next: nothing else happens in between.
    """
    clock = time.monotonic_ns
    stamps = array("q")
    note = stamps.append
    gc.disable()  # a collection of ours would be taken for a slow server
    try:
        now = clock()
        end = FOREVER_NS if seconds is None else now + int(seconds * NS_PER_S)
        note(now)
        for args in arguments:
            operation(*args)
            now = clock()
            note(now)
            if now >= end:
                break
    finally:
        gc.enable()
    return stamps


def begin_together(barrier: StageBarrier, stage: str) -> None:
    """Wait until all copies are there, then until a moment that all of them have agreed on.

    They notice the last arrival a poll apart; LEAD_NS after it, all have.
    """
    notes = barrier.meet(f"{stage}-{BEGIN}", {"arrived_ns": time.monotonic_ns()})
    if barrier.copies > 1:
        start_ns = max(note["arrived_ns"] for note in notes) + LEAD_NS
        time.sleep(max(start_ns - time.monotonic_ns(), 0) / NS_PER_S)


def find_common_window(runs: Sequence[dict[str, int]]) -> Window:
    """Return the time in which every run was on: from the last beginning to the first end."""
    return Window(max(run["start_ns"] for run in runs), min(run["end_ns"] for run in runs))


def latencies_within(stamps: Sequence[int], window: Window) -> array[int]:
    """Return the latencies of the operations that ended within the window, in ns."""
    pairs = itertools.pairwise(stamps)
    return array("q", (end - start for start, end in pairs if window.start_ns < end <= window.end_ns))


# ---- one client -----------------------------------------------------------------------------------------


def run_client(
    table: Table,
    barrier: StageBarrier,
    *,
    transport: str,
    client: str,
    items: int | None,
    seconds: float | None,
) -> list[Row]:
    """Run all stages as one client, meeting the others before and after each; return a row for each.

    Raises: CopyFailed, WrongResult, and what the table raises; the first two leave no rows behind.
    """
    work = Work(items)
    warm_up(table, work.prefix)
    rows = []
    try:
        for stage in STAGES:
            begin_together(barrier, stage)
            stamps = time_calls(getattr(table, stage), work.arguments(stage), seconds)
            work.note_done(stage, len(stamps) - 1)
            window = find_common_window(barrier.meet(f"{stage}-{END}", {"start_ns": stamps[0], "end_ns": stamps[-1]}))
            latencies = latencies_within(stamps, window)
            barrier.leave(f"{stage}-{LATENCIES}", latencies.tobytes())
            rows.append(make_row(transport, barrier.copies, stage, client, window, latencies, len(stamps) - 1))
            work.verify(stage, table)
    except (CopyFailed, WrongResult):
        work.clean_up(table)
        raise
    work.clean_up(table)
    barrier.leave(ROWS, json.dumps(rows).encode())
    return rows


def make_row(
    transport: str,
    clients: int,
    stage: str,
    client: str,
    window: Window,
    latencies_ns: Sequence[int],
    done: int,
) -> Row:
    """Sum up one client's stage, or all clients' together."""
    latency = summarize(latencies_ns)
    unix_minus_monotonic_ns = time.time_ns() - time.monotonic_ns()
    return Row(
        transport=transport,
        clients=clients,
        operation=stage,
        client=client,
        operations=len(latencies_ns),
        seconds=window.seconds,
        ops_per_s=len(latencies_ns) / window.seconds if window.seconds else math.nan,
        mean_ms=latency.mean_ms,
        p50_ms=latency.p50_ms,
        p99_ms=latency.p99_ms,
        max_ms=latency.max_ms,
        start_s=(window.start_ns + unix_minus_monotonic_ns) / NS_PER_S,
        end_s=(window.end_ns + unix_minus_monotonic_ns) / NS_PER_S,
        done=done,
    )


def add_up(rows: Sequence[Row], barrier: StageBarrier, client: str) -> Row:
    """Return the row of one stage of all clients together, from theirs and the latencies they left."""
    first = rows[0]
    latencies = array("q")
    for path in barrier.arrived(f"{first.operation}-{LATENCIES}"):
        latencies.frombytes(path.read_bytes())
    window = Window(0, round(first.seconds * NS_PER_S))
    done = sum(row.done for row in rows)
    total = make_row(first.transport, first.clients, first.operation, client, window, latencies, done)
    return total._replace(start_s=first.start_s, end_s=first.end_s)
