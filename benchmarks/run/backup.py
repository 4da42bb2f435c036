"""What a backup costs those who write meanwhile: how long it takes; latencies of inserts before, during and after.

    python -m benchmarks.run.backup                        1,000,000 rows of 100 bytes, 4 writers, 10 s before and after
    python -m benchmarks.run.backup --rows 10000 --seconds 1
    python -m benchmarks.run.backup --source DIR           another version of the package, in DIR

Each writer is a process with a blocking client that sends one insert at a time. The backup has two parts, which are
told apart: the server writes a checkpoint, in a process of its own, and then the checkpoint comes over the connection.
Everything is on one machine: the writers, the server, its child and who takes the backup.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.run.measuring import FEW_ROUNDS, Bench
from benchmarks.run.processes import Process, free_port

ROWS = 1_000_000
VALUE_BYTES = 100
WRITERS = 4
SECONDS = 10.0
TIMEOUT_S = 300.0

_BATCH_ROWS = 10_000
_SERVER = "from kvzmq.cli import main; main(prog_name='kvzmq')"


class Phase(NamedTuple):
    """What inserts took in a part of the run; latencies in milliseconds.

    name       before; checkpoint: the server writes it; transfer: it comes over the connection; after
    seconds    how long the part was
    inserts    how many ended in it
    """

    name: str
    seconds: float
    inserts: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Outcome(NamedTuple):
    """A run: the backup's rows, revision and bytes, and the phases."""

    rows: int
    revision: int
    bytes: int
    phases: list[Phase]

    @property
    def backup_s(self) -> float:
        """How long the backup took, until it was on the disk."""
        return sum(phase.seconds for phase in self.phases if phase.name in ("checkpoint", "transfer"))


def measure(rows: int, seconds: float, writers: int) -> Outcome:
    """Fill a server with rows, and take a backup while others write."""
    import kvzmq

    with tempfile.TemporaryDirectory(prefix="kvzmq-backup-") as scratch, _running(Path(scratch)) as url:
        with kvzmq.connect(url, timeout=TIMEOUT_S) as table:
            value = "x" * VALUE_BYTES
            for at in range(0, rows, _BATCH_ROWS):
                table.insert_many({f"row/{number:08}": value for number in range(at, min(rows, at + _BATCH_ROWS))})
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        queue: Any = context.Queue()
        loads = [context.Process(target=_write, args=(url, number, stop, queue)) for number in range(writers)]
        for load in loads:
            load.start()
        try:
            for _ in loads:
                queue.get(timeout=TIMEOUT_S)  # each says that it has begun
            times = [time.monotonic()]
            time.sleep(seconds)
            found = _take(url, Path(scratch) / "backup", times)
            time.sleep(seconds)
            times.append(time.monotonic())
            stop.set()
            samples = [sample for _ in loads for sample in queue.get(timeout=TIMEOUT_S)]
        finally:
            stop.set()
            for load in loads:
                load.join(TIMEOUT_S)
    return Outcome(*found, _phases(times, samples))


@contextlib.contextmanager
def _running(scratch: Path) -> Iterator[str]:
    url = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", _SERVER, "server", "--data", str(scratch / "data"), "--bind", url]
    server = Process(command, scratch / "server")
    try:
        server.wait_ready(lambda: "Listening on" in server.output)
        yield url
    finally:
        server.stop()


def _take(url: str, path: Path, times: list[float]) -> tuple[int, int, int]:
    """Take a backup as the command does; note when it began, when its first piece came, and when it was on the disk."""
    import kvzmq
    from kvzmq.store.offline.backup import copy

    def pieces() -> Iterator[bytes]:
        for piece in table.backup():
            if len(times) == 2:
                times.append(time.monotonic())
            yield piece

    times.append(time.monotonic())
    with kvzmq.connect(url, timeout=TIMEOUT_S) as table, path.open("wb") as file:
        copied = copy(pieces(), file.write, "the backup")
        file.flush()
        os.fsync(file.fileno())
    times.append(time.monotonic())
    return copied.summary.rows, copied.summary.revision, copied.bytes


def _write(url: str, number: int, stop: Event, queue: Any) -> None:
    """Insert, one at a time, until it is told to stop; then tell of each when it ended and how long it took."""
    import kvzmq

    samples: list[tuple[float, float]] = []
    value = "y" * VALUE_BYTES
    with kvzmq.connect(url, timeout=TIMEOUT_S) as table:
        table.insert(f"writer/{number}", 0)
        queue.put(None)
        while not stop.is_set():
            began_s = time.monotonic()
            table.insert(f"writer/{number}/{len(samples) % 10_000}", value)
            ended_s = time.monotonic()
            samples.append((ended_s, ended_s - began_s))
    queue.put(samples)


def _phases(times: Sequence[float], samples: Sequence[tuple[float, float]]) -> list[Phase]:
    found = []
    for name, begin_s, end_s in zip(("before", "checkpoint", "transfer", "after"), times, times[1:]):
        took = sorted(latency_s * 1000 for ended_s, latency_s in samples if begin_s <= ended_s < end_s) or [0.0]
        found.append(
            Phase(name, end_s - begin_s, len(took), took[len(took) // 2], took[len(took) * 99 // 100], took[-1])
        )
    return found


FIELDS = ("round", "rows", "writers", "backup_s", "bytes", "phase", "seconds", "inserts", "p50_ms", "p99_ms", "max_ms")
"""The columns: a row for each phase of a run; `backup_s` and `bytes` are the whole backup's."""


def backup(bench: Bench) -> None:
    """Take a backup of a large table while others write."""
    rows, seconds = (20_000, 1.0) if bench.size.name == "quick" else (ROWS, SECONDS)
    with bench.writer("backup", FIELDS) as writer:
        for at in range(1, min(FEW_ROUNDS, bench.size.rounds) + 1):
            found = measure(rows, seconds, WRITERS)
            for phase in found.phases:
                writer.add(
                    round=at, rows=rows, writers=WRITERS, backup_s=found.backup_s, bytes=found.bytes, phase=phase.name,
                    seconds=phase.seconds, inserts=phase.inserts, p50_ms=phase.p50_ms, p99_ms=phase.p99_ms,
                    max_ms=phase.max_ms,
                )  # fmt: skip
            bench.say(f"    backup: round {at}, {found.backup_s:.1f} s")


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {"backup": backup}


def main() -> None:
    """Measure once, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--writers", type=int, default=WRITERS)
    parser.add_argument("--source", type=Path)
    options = parser.parse_args()
    if options.source is not None:
        sys.path.insert(0, str(options.source.resolve()))
    found = measure(options.rows, options.seconds, options.writers)
    print(
        f"{found.rows:,} rows, {found.bytes / 1e6:.1f} MB, revision {found.revision:,}: "
        f"a backup in {found.backup_s:.2f} s beside {options.writers} writers"
    )
    print(f"{'':12}{'seconds':>9}{'inserts':>9}{'a second':>10}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    for phase in found.phases:
        print(
            f"{phase.name:12}{phase.seconds:9.2f}{phase.inserts:9,}{phase.inserts / phase.seconds:10,.0f}"
            f"{phase.p50_ms:9.2f}{phase.p99_ms:9.2f}{phase.max_ms:9.2f}"
        )


if __name__ == "__main__":
    main()
