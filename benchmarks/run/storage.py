"""The experiments on the disk and on growth: limits, rows from 10^4 on, recovery, queries, compaction."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Writer
from benchmarks.run import work
from benchmarks.run.experiments import VALUE_BYTES, turn_of
from benchmarks.run.measuring import LOAD_FIELDS, WORKERS, Bench, client_of
from benchmarks.run.open_tables import Sample
from benchmarks.run.peers import PEERS, DidNotStart, NotHere, Running, start_kvzmq, start_redis
from benchmarks.run.processes import Process, temporary_directory, wait_until
from benchmarks.run.tables import TABLES
from kvzmq.bench.load import summarize

Kind = Callable[[int, bytes, int], None]

_ROOM_BYTES_MIN = 4 << 20
_SYNCS_PER_S_MAX = 10_000

LOG_BYTES_PER_INSERT = 100
"""About what one insert of 32 bytes takes in the log, with all around it."""

LOG_BYTES_PER_BATCHED_ROW = 52
"""The same for a row of insert_many."""

NO_COMPACTION = ("--compact-after", "1000G")
_BYTES_PER_ROW_MAX = 400
_RESTARTS = 3
_WAIT_S = 300.0


# ---- the disk alone --------------------------------------------------------------------------------------


HOW = ("append", "preallocated", "overwrite")
"""Into what is written: a file that grows, one that only has its length, or one full of zeros, as kvzmq's log is."""


def limits(bench: Bench) -> None:
    """What the disk gives without any server: writes with a sync each, as long as one insert, or as many."""
    sizes = {
        "1 insert": LOG_BYTES_PER_INSERT,
        "64 inserts": 64 * LOG_BYTES_PER_INSERT,
        "1,000 batched rows": 1000 * LOG_BYTES_PER_BATCHED_ROW,
    }
    fields = ("round", "what", "how", "bytes", "syncs_per_s", "bytes_per_s", "p50_ms", "p99_ms", "p999_ms", "max_ms")
    with bench.writer("limits", fields) as writer:
        turns = [_sync_turn(bench, writer, what, length, how) for what, length in sizes.items() for how in HOW]
        bench.take_turns(turns, "the disk alone")


def _sync_turn(bench: Bench, writer: Writer, what: str, length: int, how: str) -> Callable[[int], None]:
    def turn(at: int) -> None:
        latencies = _time_syncs(bench.base / "sync.bin", length, how, bench.size.seconds)
        seconds = sum(latencies) / 1e9
        rate = len(latencies) / seconds
        summary = summarize(latencies)._asdict()
        figures = {name: summary[name] for name in ("p50_ms", "p99_ms", "p999_ms", "max_ms")}
        writer.add(round=at, what=what, how=how, bytes=length, syncs_per_s=rate, bytes_per_s=rate * length, **figures)

    return turn


def _time_syncs(path: Path, length: int, how: str, seconds: float) -> array[int]:
    """Write and sync, one after the other; return how long each took, ns."""
    data = os.urandom(length)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        room_bytes = max(_ROOM_BYTES_MIN, int(length * _SYNCS_PER_S_MAX * seconds))
        if how == "preallocated":
            os.posix_fallocate(file, 0, room_bytes)
        elif how == "overwrite":
            for at in range(0, room_bytes, 1 << 20):
                os.pwrite(file, bytes(1 << 20), at)
        os.fsync(file)
        latencies = array("q")
        clock = time.perf_counter_ns
        offset, began_ns = 0, clock()
        now_ns, end_ns = began_ns, began_ns + int(seconds * 1e9)
        while now_ns < end_ns:
            if how != "append" and offset + length > room_bytes:
                if how == "preallocated":
                    break  # what has been written once is an overwrite
                offset = 0
            os.pwrite(file, data, offset)
            os.fdatasync(file)
            offset += length
            before_ns, now_ns = now_ns, clock()
            latencies.append(now_ns - before_ns)
        return latencies
    finally:
        os.close(file)
        path.unlink()


# ---- rows ------------------------------------------------------------------------------------------------


def _sizes(bench: Bench, greatest: int) -> list[int]:
    free_bytes = _available_bytes()
    found = []
    for power in range(4, 8):
        rows = 10**power
        if rows > greatest:
            break
        if 3 * rows * _BYTES_PER_ROW_MAX > free_bytes:  # servers of several sizes, and a compaction's second table
            bench.skipped[f"{rows:,} rows"] = "not enough memory"
            bench.say(f"*** SKIPPED {rows:,} rows: not enough memory")
            break
        found.append(rows)
    return found


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 40


@contextlib.contextmanager
def _kvzmq(bench: Bench, directory: Path, *options: str) -> Iterator[Running]:
    process, address = start_kvzmq(directory, *options)
    running = Running(PEERS["kvzmq"], process, address, directory)
    try:
        yield running
    finally:
        bench.workers.run("close_all", [{}] * WORKERS)
        running.stop()


def growth(bench: Bench) -> None:
    """The same operations on tables of 10^4 rows and more: what they cost, and the memory of a row."""
    fields = ("rows", *LOAD_FIELDS)
    with (
        bench.writer("growth", fields) as writer,
        bench.writer("memory", ("contender", "rows", "bytes_per_row", "load_rows_per_s")) as memory,
        contextlib.ExitStack() as stack,
    ):
        turns = []
        for rows in _sizes(bench, bench.size.rows_max):
            running = stack.enter_context(_kvzmq(bench, bench.base / f"growth-{rows}", *NO_COMPACTION))
            _fill_and_weigh(bench, memory, running, rows)
            turns.append(
                turn_of(
                    bench, writer, running, ("insert", "lookup", "remove"), "call_in_turn",
                    lambda operation, rows=rows: [  # type: ignore[misc]
                        {
                            "operation": operation, "client": 0, "rows": rows, "value_bytes": VALUE_BYTES,
                            "seconds": bench.size.seconds,
                        }
                    ],
                    rows=rows,
                )
            )  # fmt: skip
        bench.take_turns(turns, "growth")
        stack.close()
        with bench.running("redis-memory") as peers:
            for running in peers.values():
                _fill_and_weigh(bench, memory, running, bench.size.compared_rows)


def _fill_and_weigh(bench: Bench, memory: Writer, running: Running, rows: int) -> None:
    assert running.process is not None
    before = running.process.resident_bytes()
    began_s = time.monotonic()
    bench.workers.run("fill", [{**client_of(running), "first": 0, "rows": rows, "value_bytes": VALUE_BYTES}])
    took_s = time.monotonic() - began_s
    a_row = (running.process.resident_bytes() - before) / rows
    memory.add(contender=running.peer.name, rows=rows, bytes_per_row=a_row, load_rows_per_s=rows / took_s)
    bench.say(f"    {running.peer.title}: {rows:,} rows in {took_s:.1f} s, {a_row:.0f} bytes a row")


# ---- recovery --------------------------------------------------------------------------------------------


def recovery(bench: Bench) -> None:
    """How long until a server with a full table answers: from its log, from its checkpoint; and Redis from its RDB.

    The time is that from starting the process to the first answer to a lookup.
    """
    fields = ("round", "contender", "rows", "from", "seconds", "file_bytes")
    with bench.writer("recovery", fields) as writer:
        for rows in _sizes(bench, min(bench.size.rows_max, 10**7)):
            if rows > bench.size.compared_rows and bench.size.name != "full":
                continue
            restarts = [_kvzmq_restarts(bench, writer, rows)]
            with contextlib.suppress(NotHere, DidNotStart):
                PEERS["redis-memory"].check()
                if rows <= bench.size.compared_rows:
                    restarts.append(_redis_restarts(bench, writer, rows))
            for turns in zip(*restarts, strict=True):
                bench.say(f"    {rows:,} rows: {', '.join(turns)}")


def _kvzmq_restarts(bench: Bench, writer: Writer, rows: int) -> Iterator[str]:
    """Fill a table, then restart it from its log, compact it, and restart it from its checkpoint, a step at a time."""
    directory = bench.base / f"recovery-{rows}"
    files = directory / "table"
    with _kvzmq(bench, directory, *NO_COMPACTION) as running:
        bench.workers.run("fill", [{**client_of(running), "first": 0, "rows": rows, "value_bytes": VALUE_BYTES}])

    def restart(source: str, name: str, at: int) -> None:
        seconds = _time_start(lambda: start_kvzmq(directory, *NO_COMPACTION), "kvzmq", rows)
        size = (files / name).stat().st_size
        writer.add(round=at, contender="kvzmq", rows=rows, seconds=seconds, file_bytes=size, **{"from": source})

    restart("log", "table.txn", 1)
    took_s = _compact(directory)
    size = (files / "table.ckpt").stat().st_size
    writer.add(round=1, contender="kvzmq", rows=rows, seconds=took_s, file_bytes=size, **{"from": "compaction"})
    for at in range(1, _RESTARTS + 1):
        restart("checkpoint", "table.ckpt", at)
        yield f"kvzmq restart {at}"


def _compact(directory: Path) -> float:
    """Have a server compact its log into a checkpoint. Returns the seconds from its beginning to its end."""
    sealed = directory / "table" / "table.txn.sealed"
    process, address = start_kvzmq(directory, "--compact-after", "1")  # what it has replayed is enough for that
    began_s = time.monotonic()
    try:
        with contextlib.closing(TABLES["kvzmq"](address)) as table:
            wait_until(lambda: table.client.stats()["compactions"] and not sealed.exists(), _WAIT_S, "a compaction")
            return time.monotonic() - began_s
    finally:
        process.stop()


def _redis_restarts(bench: Bench, writer: Writer, rows: int) -> Iterator[str]:
    directory = bench.base / f"redis-recovery-{rows}"
    process, address = start_redis(directory)
    table = TABLES["redis"](address)
    try:
        for at in range(0, rows, 10_000):
            table.insert_many({work.row_key(n): b"x" * VALUE_BYTES for n in range(at, min(rows, at + 10_000))})
        began_s = time.monotonic()
        table.client.save()
        took_s = time.monotonic() - began_s
    finally:
        table.close()
        process.stop()
    size = (directory / "dump.rdb").stat().st_size
    writer.add(round=1, contender="redis", rows=rows, seconds=took_s, file_bytes=size, **{"from": "compaction"})
    for at in range(1, _RESTARTS + 1):
        seconds = _time_start(lambda: start_redis(directory), "redis", rows)
        writer.add(round=at, contender="redis", rows=rows, seconds=seconds, file_bytes=size, **{"from": "checkpoint"})
        yield f"Redis restart {at}"


def _time_start(start: Callable[[], tuple[Process, Mapping[str, Any]]], table: str, rows: int) -> float:
    """Start a server; return the seconds until its last row is there."""
    began_s = time.monotonic()
    process, address = start()
    try:
        with contextlib.closing(TABLES[table](address)) as client:

            def answers() -> bool:
                try:
                    return client.lookup(work.row_key(rows - 1)) is not None
                except Exception as error:  # Redis answers LOADING, in an error class of its own
                    if "loading" not in str(error).lower():
                        raise
                    return False

            wait_until(answers, _WAIT_S, "the last row")
            return time.monotonic() - began_s
    finally:
        process.stop()


# ---- queries ---------------------------------------------------------------------------------------------

SCANNED_ROWS = 100_000
MATCHES = 10
QUERIES_TOGETHER = 64
"""How many queries a client asks for at a time, when it does."""


def queries(bench: Bench) -> None:
    """A query with 10 matches in tables of 10^4 rows and more; and by a scan, in the one-sync server."""
    with bench.writer("queries", ("rows", *LOAD_FIELDS)) as writer, contextlib.ExitStack() as stack:
        turns = []
        for rows in _sizes(bench, bench.size.compared_rows):
            running = stack.enter_context(_kvzmq(bench, bench.base / f"queries-{rows}", *NO_COMPACTION))
            bench.workers.run("fill_groups", [{**client_of(running), "rows": rows, "matches": MATCHES}])
            turns += [_query_turn(bench, writer, running, rows, batch) for batch in (1, QUERIES_TOGETHER)]
        scanning = stack.enter_context(bench.running("one-sync-filled"))
        turns += [_query_turn(bench, writer, running, SCANNED_ROWS) for running in scanning.values()]
        bench.take_turns(turns, "queries")


def _query_turn(bench: Bench, writer: Writer, running: Running, rows: int, batch: int = 1) -> Callable[[int], None]:
    arguments = {"rows": rows, "matches": MATCHES, "batch": batch, "seconds": bench.size.seconds}
    return turn_of(bench, writer, running, ("query",), "call_queries", lambda _: [arguments], rows=rows, batch=batch)


# ---- compaction ------------------------------------------------------------------------------------------

COMPACT_AFTER = "600K"
"""So that the time between two compactions of a million rows is about as long as one of them."""

_ROUNDS = {"quick": 1, "default": 4, "full": 8}
_COMPACTIONS_A_ROUND = 3
"""One second has some 3,000 inserts: the three slowest would decide what its p99.9 is."""

_WATCH_S = 0.002


def compaction(bench: Bench) -> None:
    """Single inserts by one client while the server compacts, again and again; and between, while it does not."""
    rows = bench.size.compared_rows
    fields = (
        "round",
        "phase",
        "phases",
        "rows",
        "seconds",
        "operations",
        "ops_per_s",
        "p50_ms",
        "p99_ms",
        "p999_ms",
        "max_ms",
    )
    rounds = _ROUNDS[bench.size.name]
    with bench.writer("compaction", fields) as writer, temporary_directory(bench.base) as directory:
        with _kvzmq(bench, directory, *NO_COMPACTION) as running:
            bench.workers.run("fill", [{**client_of(running), "first": 0, "rows": rows, "value_bytes": VALUE_BYTES}])
        _compact(directory)
        with _kvzmq(bench, directory, "--compact-after", COMPACT_AFTER) as running:
            watch = _SealedWatch(directory / "table" / "table.txn.sealed", rounds * _COMPACTIONS_A_ROUND)
            arguments = {
                "operation": "insert",
                "client": 1,
                "rows": rows,
                "value_bytes": VALUE_BYTES,
                "seconds": _WAIT_S,
            }
            stop = str(directory / "stop")
            watch.when_done = lambda: Path(stop).touch()
            sample: Sample = bench.workers.run_together(
                "call_until", [{**client_of(running), **arguments, "stop": stop}], watch.start
            )[0]
            watch.join()
        phases, a_round = watch.phases(sample.start_ns), 2 * _COMPACTIONS_A_ROUND
        if len(phases) < rounds * a_round:
            bench.say(f"*** only {len(phases)} phases of {rounds * a_round}: compactions took too long")
        for at in range(0, len(phases) - a_round + 1, a_round):
            for phase in ("quiet", "compacting"):
                spans = [(start_ns, end_ns) for name, start_ns, end_ns in phases[at : at + a_round] if name == phase]
                _add_phases(writer, sample, at // a_round + 1, phase, rows, spans)


class _SealedWatch(threading.Thread):
    """Notes when a sealed log is there: from its beginning to its end a compaction runs.

    It looks at the directory from outside, so that the server has nothing to do with it.
    """

    def __init__(self, sealed: Path, compactions: int) -> None:
        super().__init__(daemon=True)
        self._sealed = sealed
        self._wanted = 2 * compactions
        self._changes_ns: list[int] = []
        self.when_done: Callable[[], object] = lambda: None

    def run(self) -> None:
        present = False
        deadline_s = time.monotonic() + _WAIT_S
        while len(self._changes_ns) < self._wanted and time.monotonic() < deadline_s:
            if self._sealed.exists() != present:
                present = not present
                self._changes_ns.append(time.monotonic_ns())
            time.sleep(_WATCH_S)
        self.when_done()

    def phases(self, start_ns: int) -> list[tuple[str, int, int]]:
        """Return the phases in turn, quiet and compacting, each with its begin and end."""
        edges = [start_ns, *self._changes_ns]
        return [
            ("compacting" if at % 2 else "quiet", begin, end)
            for at, (begin, end) in enumerate(itertools.pairwise(edges))
        ]


def _add_phases(
    writer: Writer, sample: Sample, round: int, phase: str, rows: int, spans: Sequence[tuple[int, int]]
) -> None:
    """Add the figures of all inserts that ended within the spans, taken together."""
    latencies = [
        latency
        for ended, latency in zip(array("q", sample.ended_ns), array("q", sample.latencies_ns))
        if any(start_ns < ended <= end_ns for start_ns, end_ns in spans)
    ]
    seconds = sum(end_ns - start_ns for start_ns, end_ns in spans) / 1e9
    summary = summarize(latencies)._asdict()
    figures = {name: summary[name] for name in ("p50_ms", "p99_ms", "p999_ms", "max_ms")}
    writer.add(
        round=round, phase=phase, phases=len(spans), rows=rows, seconds=seconds,
        operations=len(latencies), ops_per_s=len(latencies) / seconds, **figures,
    )  # fmt: skip


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {
    "limits": limits,
    "growth": growth,
    "recovery": recovery,
    "queries": queries,
    "compaction": compaction,
}
