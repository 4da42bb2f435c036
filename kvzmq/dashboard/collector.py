"""Asks a server for its figures a few times a second, and keeps the last hour of them.

It is a client like any other: one connection, `stats` every POLL_S and `clients` with every second one. When the server
does not answer it says so and goes on asking; figures of a new run are never compared with those of the one before.
Nothing is kept on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from kvzmq import errors
from kvzmq.dashboard.reader import Reader
from kvzmq.dashboard.rings import Ring
from kvzmq.observing.doctor import Evidence, Finding, diagnose
from kvzmq.observing.figures import clients_of, figures_of
from kvzmq.observing.rates import PHASES, Rates, Snapshot, compare, is_same_run
from kvzmq.observing.waiting import ends_within
from kvzmq.protocol.operations import OPERATIONS
from kvzmq.units import printable

POLL_S = 0.5
"""How often the server is asked: it answers in about 0.2 ms, in which it does nothing else."""

ANSWER_S_MAX = 2.0
"""How long an answer may take before the server counts as silent."""

FINE_POINTS_MAX = 600
"""Points of POLL_S: five minutes."""

CLIENTS_S_MAX = 10.0
"""How long the list of clients may take, page by page: it need not end."""

COARSE_EVERY = 10
COARSE_POINTS_MAX = 720
"""Points of COARSE_EVERY times POLL_S: an hour."""

CLIENTS_EVERY = 2
CLIENTS_MAX = 1000
"""How many clients are shown, those with the most requests."""

DROPS_S = 60.0
"""A client that lost replies is told of for one to two times so long: the server counts them for good."""

MARKS_MAX = 200
"""How many marks on the time axis are kept."""

_GAUGES: Mapping[str, str] = {
    "keys": "keys", "clients": "clients", "watches": "watches", "requests_waiting": "waiting",
    "resident_bytes": "memory.resident", "row_bytes": "memory.rows", "index_bytes": "memory.indexes",
    "session_bytes": "memory.sessions", "history_bytes": "memory.history",
    "log_bytes": "disk.log", "checkpoint_bytes": "disk.checkpoint",
}  # fmt: skip
"""Figures of `stats` that are shown as they are, and the names of their columns."""


class Mark(msgspec.Struct, frozen=True):
    """Something that happened at one time.

    number  counts marks, from 1
    time_s  seconds since 1970
    kind    compaction, restart, silent or back
    text    what, for people
    """

    number: int
    time_s: float
    kind: str
    text: str


class Collector:
    """The figures of one server over time.

    Args:
        connect: makes a client of the server
        url: how the server is called
        clock: seconds since 1970
    """

    def __init__(self, connect: Callable[[], Reader], url: str, clock: Callable[[], float] = time.time) -> None:
        self.url = url
        self.fine = Ring(FINE_POINTS_MAX)
        self.coarse = Ring(COARSE_POINTS_MAX)
        self.marks: deque[Mark] = deque(maxlen=MARKS_MAX)
        self.snapshot: Snapshot | None = None
        """The latest answer; None before the first."""
        self.rates: Rates | None = None
        """Of the latest second or so; None where two answers cannot be compared."""
        self.findings: Sequence[Finding] = ()
        self.silence: str | None = None
        """Why the server does not answer; None if it does."""
        self.silent_since_s: float | None = None
        self.polls = 0
        self._connect = connect
        self._table = connect()
        self._clock = clock
        self._before: Snapshot | None = None  # POLL_S ago, None if that cannot be compared
        self._before_coarse: Snapshot | None = None
        self._with_clients: Snapshot | None = None  # the latest that has them
        self._clients: Sequence[dict[str, Any]] = ()
        self._dropped: dict[str, int] | None = None  # replies by client, DROPS_S ago or more
        self._dropped_next: dict[str, int] = {}
        self._dropped_until_s = 0.0
        self._changed = asyncio.Event()

    @property
    def now_s(self) -> float:
        """The time of this machine, by which points and marks are dated."""
        return round(self._clock(), 2)

    @property
    def table(self) -> Reader:
        """The client; another one after a table was replaced by another."""
        return self._table

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                began_s = time.monotonic()
                await self.poll()
                await asyncio.sleep(max(0.05, POLL_S - (time.monotonic() - began_s)))
        finally:
            await self._table.close()

    async def poll(self) -> None:
        """Ask once, note the answer or that there was none, and wake those who wait for it."""
        asked_s = self._clock()
        try:
            stats = figures_of(await self._table.stats(timeout=ANSWER_S_MAX))
            if self.polls % CLIENTS_EVERY == 0:
                self._clients = await self._ask_clients()
        except (errors.KvzmqError, OSError) as error:
            self._no_answer(error, self._clock())
            if isinstance(error, errors.TableChanged):
                await self._table.close()
                self._table = self._connect()
        else:
            self._answered(Snapshot(stats, self._clients), (asked_s + self._clock()) / 2)
        self.polls += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait until the server was asked again, `timeout_s` at most."""
        await ends_within(self._changed.wait(), timeout_s)

    async def _ask_clients(self) -> Sequence[dict[str, Any]]:
        try:
            found = await asyncio.wait_for(self._table.clients(timeout=ANSWER_S_MAX), CLIENTS_S_MAX)
        except errors.RequestRefused:
            return ()  # a server of an earlier version, which does not list them
        except asyncio.TimeoutError:
            raise errors.Timeout(f"the list of clients did not end within {CLIENTS_S_MAX:g} s") from None
        return sorted(clients_of(found), key=lambda one: -one["requests"])[:CLIENTS_MAX]

    def _no_answer(self, error: Exception, now_s: float) -> None:
        if self.silence is None:
            self.silent_since_s = now_s
            self._mark(now_s, "silent", f"no answer: {error}")
            self.fine.add(now_s, {})  # a gap in every line
            self.coarse.add(now_s, {})
        self.silence = printable(str(error))
        self._before = self._before_coarse = self._with_clients = None
        self.rates = None
        self.findings = diagnose(Evidence(url=self.url, silence=self.silence, asked_s=now_s))

    def _answered(self, now: Snapshot, time_s: float) -> None:
        previous = self.snapshot
        if previous is not None and not is_same_run(previous, now):
            self._mark(time_s, "restart", _what_restarted(previous.stats, now.stats))
        elif self.silence is not None and previous is not None:
            self._mark(time_s, "back", "answers again")
        elif previous is not None and _of(now, "compactions") > _of(previous, "compactions"):
            self._mark(time_s, "compaction", "compaction done")
        self.silence = self.silent_since_s = None
        self.snapshot = now
        self.findings = diagnose(
            Evidence(
                url=self.url, stats=now.stats, clients=self._with_recent_drops(self._clients, time_s), asked_s=time_s
            )
        )
        self._before = self._compared(self.fine, self._before, now, time_s)
        if self._before_coarse is None or self.polls % COARSE_EVERY == 0:
            self._before_coarse = self._compared(self.coarse, self._before_coarse, now, time_s)
        if self.polls % CLIENTS_EVERY == 0:
            if self._with_clients is not None:
                self.rates = compare(self._with_clients, now)
            self._with_clients = now

    def _with_recent_drops(self, clients: Sequence[dict[str, Any]], now_s: float) -> Sequence[Mapping[str, Any]]:
        """Return clients with the replies they have lost lately: what was lost long ago is no alarm."""
        if self._dropped is None or now_s >= self._dropped_until_s:
            counts = {one["name"]: one["replies_dropped"] for one in clients}
            self._dropped = counts if self._dropped is None else self._dropped_next
            self._dropped_next = counts
            self._dropped_until_s = now_s + DROPS_S
        before = self._dropped
        return [one | {"replies_dropped": one["replies_dropped"] - before.get(one["name"], 0)} for one in clients]

    def _compared(self, ring: Ring, before: Snapshot | None, now: Snapshot, time_s: float) -> Snapshot:
        """Add a point to a ring; returns what the next answer is to be compared with."""
        ring.add(time_s, point(now.stats, None if before is None else compare(before, now)))
        return now

    def _mark(self, time_s: float, kind: str, text: str) -> None:
        number = self.marks[-1].number + 1 if self.marks else 1
        self.marks.append(Mark(number, round(time_s, 2), kind, text))


def point(stats: Mapping[str, Any], rates: Rates | None) -> dict[str, float | None]:
    """Return the values of one point by column: what there is, and what happened since the point before."""
    values: dict[str, float | None] = {column: stats.get(name) for name, column in _GAUGES.items()}
    if rates is None:
        return values
    values |= {
        "requests": rates.requests_per_s,
        "changes": rates.changes_per_s,
        "steps": rates.steps_per_s,
        "syncs": rates.syncs_per_s,
        "cpu": rates.cpu_share,
        "requests_per_step": rates.requests_per_step,
        "changes_per_sync": rates.changes_per_sync or None,
        "logged_bytes": rates.logged_bytes_per_s,
    }
    for name, times in (("latency", rates.latency), ("sync", rates.sync), ("append", rates.append)):
        if times.count:
            values |= {f"{name}.p50": times.p50_s, f"{name}.p99": times.p99_s}
    timed = rates.step["receive"].count
    if timed:  # of a step on average: a phase that most steps do without counts for little
        values |= {f"step.{phase}": rates.step[phase].sum_s / timed for phase in PHASES}
    for name, operation in rates.operations.items():
        kind = OPERATIONS.get(name)
        if kind is not None:
            values[f"{'writes' if kind.writes else 'reads'}.{name}"] = operation.per_s
    return values


def _of(snapshot: Snapshot, name: str) -> Any:
    return snapshot.stats.get(name) or 0


def _what_restarted(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if before.get("lineage") != now.get("lineage"):
        return "another table answers"
    revisions = f"revision {now.get('revision', 0):,}, {before.get('revision', 0):,} before"
    return f"the server was started anew: process {now.get('pid')}, {revisions}"
