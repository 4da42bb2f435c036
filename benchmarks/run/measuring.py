"""How a measurement is taken: contenders in turn, several rounds, servers watched from outside."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results
from benchmarks.run.open_tables import Sample
from benchmarks.run.peers import NOTHING, OTHER_CLIENTS, PEERS, DidNotStart, NotHere, Running
from benchmarks.run.processes import busy_s
from benchmarks.run.workers import LEAD_S, WorkerFailed, Workers
from kvzmq.bench.load import summarize

FEW_ROUNDS = 3
"""Of the experiments that take long."""

WORKERS = 8
"""How many processes at most play blocking clients; beyond, connections of one process do."""

LOAD_FIELDS = (
    "round", "contender", "transport", "operation", "clients", "in_flight", "batch", "value_bytes", "seconds",
    "operations", "ops_per_s", "mean_ms", "min_ms", "p50_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms",
    "server_cpu_us_per_op", "client_cpu_us_per_op", "server_busy", "machine_busy", "syncs_per_s", "changes_per_sync",
)  # fmt: skip
"""The columns of a load.

transport             what a client of ZeroMQ speaks ZMTP over
in_flight             unanswered requests of one client
batch                 operations in one request, the latencies are a request's
seconds, operations   of the time in which all clients were at work
server_busy           processors the server kept busy, by what it used of them
machine_busy          processors of the machine that were busy, with whatever
syncs_per_s, changes_per_sync   of a kvzmq server, from its own count
"""


class Size(NamedTuple):
    """How much is measured.

    rounds        of a comparison
    seconds       of one measurement
    sweep         numbers of TestPerf clients
    rows_max      the largest table of kvzmq
    compared_rows the largest table built in kvzmq and Redis alike
    """

    name: str
    rounds: int
    seconds: float
    sweep: Sequence[int]
    rows_max: int
    compared_rows: int


SIZES = {
    size.name: size
    for size in (
        Size("quick", 2, 0.15, (1, 2, 4, 8), 100_000, 100_000),
        Size("default", 5, 0.4, (1, 2, 4, 8, 16, 32, 64), 10_000_000, 1_000_000),
        Size("full", 7, 1.5, (1, 2, 4, 8, 16, 32, 64), 10_000_000, 1_000_000),
    )
}


class Bench:
    """What all experiments share: how much to measure, where, with which workers, and what to say meanwhile."""

    def __init__(self, size: Size, directory: Path, base: Path, workers: Workers) -> None:
        self.size = size
        self.results = directory
        self.base = base
        self.workers = workers
        self.skipped: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Tell whoever waits."""
        print(text, file=sys.stderr, flush=True)

    def writer(self, name: str, fields: Sequence[str] = LOAD_FIELDS) -> results.Writer:
        """Open an experiment's file."""
        return results.Writer(self.results, name, fields)

    @contextlib.contextmanager
    def running(self, *names: str) -> Iterator[dict[str, Running]]:
        """Run contenders; one that cannot be had is missing, and said to be."""
        with contextlib.ExitStack() as stack:
            found: dict[str, Running] = {}
            for name in names:
                peer = PEERS.get(name) or OTHER_CLIENTS[name]
                try:
                    running = peer.run(self.base)
                except (NotHere, DidNotStart) as error:
                    if name not in self.skipped:
                        self.say(f"*** SKIPPED {peer.title}: {error}")
                    self.skipped[name] = str(error)
                    continue
                stack.callback(running.stop)
                running.pause()
                found[name] = running
            stack.callback(self.workers.run, "close_all", [{}] * WORKERS)
            yield found

    def fill(self, running: Running, rows: int, value_bytes: int) -> None:
        """Put rows into a contender's table."""
        if running.peer.promise == NOTHING:
            return
        running.resume()
        self.workers.run("fill", [{**client_of(running), "first": 0, "rows": rows, "value_bytes": value_bytes}])
        running.pause()

    def take_turns(self, turns: Sequence[Callable[[int], None]], what: str, rounds: int | None = None) -> None:
        """Have each of `turns` measure once a round, each round in another order."""
        count = rounds or self.size.rounds
        for at in range(1, count + 1):
            began_s = time.monotonic()
            order = list(turns)
            random.Random(at).shuffle(order)  # whoever comes after the same one each time could suffer from it
            for turn in order:
                turn(at)
            self.say(f"    {what}: round {at} of {count}, {time.monotonic() - began_s:.1f} s")

    def measure(
        self,
        running: Running,
        driver: str,
        arguments: Sequence[dict[str, Any]],
        ours_per_worker: int = 1,
    ) -> dict[str, Any]:
        """Run one measurement; returns the figures by column of LOAD_FIELDS, as far as they are known here.

        Args:
            driver: the function of `drivers`
            arguments: one for each worker
            ours_per_worker: clients each worker plays
        """
        running.resume()
        before: dict[str, Any] = {}

        def begin() -> None:
            before.update(
                counts=kvzmq_counts(running), server_s=running.cpu_s(), machine_s=busy_s(), at_s=time.monotonic()
            )

        try:
            samples: list[Sample] = self.workers.run_together(
                driver, [{**client_of(running), **each} for each in arguments], begin
            )
        except WorkerFailed as error:
            self.say(f"*** FAILED {running.peer.title}, {driver}: {str(error).strip().splitlines()[-1]}")
            raise
        elapsed_s = time.monotonic() - before["at_s"]
        server_s, machine_s = running.cpu_s() - before["server_s"], busy_s() - before["machine_s"]
        changes = _difference(before["counts"], kvzmq_counts(running))
        running.pause()
        figures = combine(samples, arguments[0].get("seconds", 0.0))
        timed = sum(len(sample.ended_ns) // 8 * sample.operations for sample in samples)
        # The server's and the clients' time is of the whole measurement, and so are these operations.
        working_s = max(sample.end_ns for sample in samples) / 1e9 - before["at_s"] - LEAD_S
        return {
            **figures,
            "clients": len(samples) * ours_per_worker,
            "value_bytes": arguments[0].get("value_bytes"),
            "server_cpu_us_per_op": server_s / timed * 1e6 if timed and running.process else None,
            "client_cpu_us_per_op": sum(sample.cpu_s for sample in samples) / timed * 1e6 if timed else None,
            "server_busy": server_s / working_s if working_s and running.process else None,
            "machine_busy": machine_s / elapsed_s,
            "syncs_per_s": changes["commits"] / working_s if changes and working_s else None,
            "changes_per_sync": changes["requests_committed"] / changes["commits"]
            if changes and changes["commits"]
            else None,
        }


def columns_of(running: Running) -> dict[str, str]:
    """Return whose figures these are, by column of LOAD_FIELDS."""
    return {"contender": running.peer.contender, "transport": running.peer.transport}


def client_of(running: Running) -> dict[str, Any]:
    """Return what a worker has to know to connect."""
    return {"table": running.peer.table, "address": running.address}


WINDOW_MIN = 0.5
"""The part of the time asked for in which all clients must have been at work for a figure to be one."""


def combine(samples: Sequence[Sample], asked_s: float) -> dict[str, Any]:
    """Put together what several workers did in the time in which all of them were at work.

    Where that is less than WINDOW_MIN of the time asked for, as when clients run out of rows to remove,
    there are no figures.
    """
    start_ns = max(sample.start_ns for sample in samples)
    end_ns = min(sample.end_ns for sample in samples)
    latencies: list[int] = []
    operations = 0
    seconds = (end_ns - start_ns) / 1e9
    for sample in samples if seconds > 0 and seconds >= WINDOW_MIN * asked_s else ():
        within = [
            latency
            for ended, latency in zip(array("q", sample.ended_ns), array("q", sample.latencies_ns))
            if start_ns < ended <= end_ns
        ]
        latencies += within
        operations += len(within) * sample.operations
    figures: dict[str, Any] = {"seconds": seconds, "operations": operations}
    figures["ops_per_s"] = operations / seconds if operations else None
    return figures | summarize(latencies)._asdict()


def kvzmq_counts(running: Running) -> dict[str, int] | None:
    """Return what a kvzmq server has counted so far; None for another."""
    if not running.peer.name.startswith("kvzmq"):
        return None
    if not hasattr(running, "observer"):
        import kvzmq

        running.observer = kvzmq.connect(running.address["url"], timeout=60.0)  # type: ignore[attr-defined]
    counts: dict[str, int] = running.observer.stats()  # type: ignore[attr-defined]
    return counts


def _difference(before: dict[str, int] | None, after: dict[str, int] | None) -> dict[str, int] | None:
    if before is None or after is None:
        return None
    return {name: after[name] - before[name] for name in ("commits", "requests_committed")}
