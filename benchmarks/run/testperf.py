"""The course's question: TestPerf with ever more simultaneous clients, over the bridge and over the package kvzmq.

The clients are the programs in clients/, started as a user starts them. Meanwhile the server and the machine
are sampled, so that each stage's figures have beside them what the machine was doing.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import threading
import time
from bisect import bisect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.results import USUAL_TRANSPORT, Writer
from benchmarks.run.measuring import FEW_ROUNDS, WINDOW_MIN, Bench, kvzmq_counts
from benchmarks.run.peers import Running
from benchmarks.run.processes import busy_s

PROGRAM = Path(__file__).resolve().parents[2] / "clients" / "TestPerf.py"

FIELDS = (
    "round", "contender", "transport", "clients", "operation", "client", "operations", "seconds", "ops_per_s",
    "mean_ms", "p50_ms", "p99_ms", "max_ms", "done", "server_busy", "machine_busy", "syncs_per_s", "changes_per_sync",
)  # fmt: skip
"""The columns: a row for each client of each stage, and one, whose client is `sum`, for all of them.

operations, seconds   of the time in which all clients were at work; `done` counts them all
"""

_FIGURES = ("ops_per_s", "mean_ms", "p50_ms", "p99_ms", "max_ms")

_SAMPLE_S = 0.05
_RUN_TIMEOUT_S = 600.0


class _Moment(NamedTuple):
    at_s: float
    server_s: float
    machine_s: float
    commits: float
    changes: float


class Sampler(threading.Thread):
    """Looks at the server and the machine twenty times a second, from outside but for the count of syncs."""

    def __init__(self, running: Running) -> None:
        super().__init__(daemon=True)
        self._running = running
        self._moments: list[_Moment] = []
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.is_set():
            counts = kvzmq_counts(self._running)
            commits, changes = (counts["commits"], counts["requests_committed"]) if counts else (0, 0)
            self._moments.append(_Moment(time.time(), self._running.cpu_s(), busy_s(), commits, changes))
            self._ending.wait(_SAMPLE_S)

    def stop(self) -> None:
        """End, with a last look."""
        self._ending.set()
        self.join()

    def between(self, start_s: float, end_s: float) -> dict[str, float | None]:
        """Return what happened from one Unix time to another, interpolated."""
        seconds = end_s - start_s
        if seconds <= 0 or not self._moments:
            return {}
        start, end = self._at(start_s), self._at(end_s)
        commits = end.commits - start.commits
        return {
            "server_busy": (end.server_s - start.server_s) / seconds,
            "machine_busy": (end.machine_s - start.machine_s) / seconds,
            "syncs_per_s": commits / seconds if end.commits else None,
            "changes_per_sync": (end.changes - start.changes) / commits if commits >= 1 else None,
        }

    def _at(self, when_s: float) -> _Moment:
        after = bisect(self._moments, when_s, key=lambda moment: moment.at_s)
        if after == 0 or after == len(self._moments):
            return self._moments[min(after, len(self._moments) - 1)]
        before, following = self._moments[after - 1], self._moments[after]
        share = (when_s - before.at_s) / (following.at_s - before.at_s)
        return _Moment(*(a + share * (b - a) for a, b in zip(before, following)))


def testperf(bench: Bench) -> None:
    """TestPerf with 1 to 64 clients over bridge and ROUTER; and on the one-sync server, for comparison."""
    seconds = {"quick": 0.3, "default": 0.6, "full": 2.0}[bench.size.name]
    rounds = min(FEW_ROUNDS, bench.size.rounds)
    compared = [count for count in (1, 8, 16) if count <= max(bench.size.sweep)]
    with bench.writer("testperf", FIELDS) as writer, bench.running("kvzmq", "one-sync") as servers:
        turns: list[Callable[[int], None]] = []
        for count in bench.size.sweep:
            turns += [
                _turn(bench, writer, servers["kvzmq"], transport, count, seconds)
                for transport in ("bridge", USUAL_TRANSPORT)
            ]
        if "one-sync" in servers:
            turns += [_turn(bench, writer, servers["one-sync"], "bridge", count, seconds) for count in compared]
        bench.take_turns(turns, "TestPerf", rounds)


def _turn(
    bench: Bench, writer: Writer, running: Running, transport: str, clients: int, seconds: float
) -> Callable[[int], None]:
    def turn(at: int) -> None:
        sampler = Sampler(running)
        sampler.start()
        try:
            rows = _run(bench.base / "testperf.csv", running, transport, clients, seconds)
        finally:
            sampler.stop()
        for row in rows:
            if row["client"] == "1" and clients == 1:
                continue  # the sum says the same
            seen = sampler.between(float(row["start_s"]), float(row["end_s"])) if row["client"] == "sum" else {}
            figures: dict[str, str | None] = {name: row[name] for name in FIELDS if name in row}
            if float(row["seconds"]) < WINDOW_MIN * seconds:  # someone had no rows left to remove
                figures |= dict.fromkeys(_FIGURES)
                seen = {}
            figures["transport"] = transport
            writer.add(**figures, **seen, round=at, contender=running.peer.name)

    return turn


def _run(target: Path, running: Running, transport: str, clients: int, seconds: float) -> Sequence[dict[str, str]]:
    """Run TestPerf once. Raises: RuntimeError, with what it said"""
    address = running.address
    where = (
        ["--dealer", address["url"]]
        if transport == USUAL_TRANSPORT
        else [f"127.0.0.1:{address.get('bridge', address.get('port'))}"]
    )
    command = [sys.executable, str(PROGRAM), *where, "--clients", str(clients), "--seconds", str(seconds)]
    done = subprocess.run(
        [*command, "--csv", str(target), "--quiet"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        timeout=_RUN_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"TestPerf ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    with target.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {"testperf": testperf}
