"""Times insert, lookup, size, query and remove over many items; prints throughput and latency for each.

    python TestPerf.py NAME                           one client, 2,000 items
    python TestPerf.py NAME --clients 8               eight at once: each one's figures, and their sums
    python TestPerf.py NAME --sweep 1,2,4,8,16        one after the other, and where the sums level off
    python TestPerf.py --dealer tcp://127.0.0.1:5570  the same over ZeroMQ, through the package kvzmq

NAME is a project's name in the catalog, or HOST:PORT.  Operations are done one at a time: each waits for the
reply to the one before.  Every client has keys of its own, and removes them.

What makes several clients at once comparable
  A rate "with 8 clients" exists only while 8 clients are at work.  Were each client's rate taken over its own
  run, the last to finish would do its last operations against fewer rivals, and the sum would add up rates
  that never existed together.  So:
  1. Before each stage all clients wait for each other (StageBarrier), also those started by hand in several
     terminals: give each the same --barrier DIR and --copies K.
  2. After it they exchange when they began and ended, on the machine's one monotonic clock.  Only operations
     that ended within the window from the last beginning to the first end count: for the throughput (counted
     operations / window, the same window for all, so that the sum is a sum) and for the latencies.
  3. What the stage did outside the window is still done, by everyone, but not counted.
  With -n each client does so many operations a stage, and the fastest one ends the window: the right choice for
  one client, and for a fixed amount of work.  With --seconds each stage lasts that long for every client: the
  right choice for comparing numbers of clients, or operations of very different speed, since every figure then
  rests on the same time and hardly anything falls outside the window.  (Only removing may end earlier, when a
  client has no keys left.)  A sweep should use --seconds.

A client that fails tells the others, and all stop: figures of the remaining would be of another experiment.
A server that goes away for a while fails nobody; the wait is in the figures.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from Figures import format_ms, format_rate, format_table
from HashTableClient import HashTableClient, TableError
from PerfStages import BEGIN, ROWS, STAGES, Row, Table, WrongResult, add_up, run_client
from StageBarrier import CopyFailed, StageBarrier

ITEMS = 2000
GIVE_UP_S = 120.0
FOREVER_S = 1e6
PROGRESS_POLL_S = 0.2
END_TIMEOUT_S = 2.0
TERMINATED = 128 + signal.SIGTERM
LEVEL = 0.9
COUNTED_MIN = 0.5
SUM = "sum"


# ---- one client -----------------------------------------------------------------------------------------


def be_one_client(options: argparse.Namespace) -> list[Row]:
    """Run as one client, alone or one of several copies, and tell the others of a failure."""
    barrier = StageBarrier(options.barrier, options.copies, f"{options.client}-{os.getpid()}")
    try:
        table = connect(options)
        try:
            return run_client(
                table,
                barrier,
                transport="dealer" if options.dealer else "bridge",
                client=options.client,
                items=None if options.seconds else options.n,
                seconds=options.seconds,
            )
        finally:
            table.close()
    except BaseException as failure:
        if not isinstance(failure, CopyFailed):
            barrier.fail(f"{type(failure).__name__}: {failure}")
        raise


def connect(options: argparse.Namespace) -> Table:
    """Open the table over the bridge, or over ZeroMQ if so asked."""
    if options.dealer:
        import kvzmq  # only here: the bridge's client needs nothing but Python

        table: Table = kvzmq.connect(options.dealer, timeout=options.give_up or FOREVER_S)
        return table
    return HashTableClient(options.name, give_up_s=options.give_up, tell=_teller(options))


def _teller(options: argparse.Namespace) -> Callable[[str], None]:
    return lambda message: _say(f"TestPerf: client {options.client}: {message}")


# ---- several clients: start them, add them up ---------------------------------------------------------


class Termination:
    """Notes a SIGTERM instead of raising at once: in the middle of a start, a copy would be left running."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self.asked = True


def be_many_clients(options: argparse.Namespace, clients: int) -> list[Row]:
    """Start `clients` copies of this program, which meet before each stage; return their rows and the sums."""
    options.copies = clients
    termination = Termination()
    with tempfile.TemporaryDirectory(prefix="TestPerf-") as directory, ExitStack() as children_end:
        barrier = StageBarrier(Path(directory), clients, "parent")
        children = [_start_copy(options, directory, i + 1, children_end) for i in range(clients)]
        _await_copies(children, barrier, options, termination)
        return collect(barrier)


def _start_copy(
    options: argparse.Namespace, directory: str, client: int, children_end: ExitStack
) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__]
    command += ["--dealer", options.dealer] if options.dealer else [options.name]
    command += ["--seconds", str(options.seconds)] if options.seconds else ["-n", str(options.n)]
    command += ["--barrier", directory, "--copies", str(options.copies), "--client", str(client)]
    command += ["--give-up", str(options.give_up or 0), "--quiet"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    children_end.callback(_end, child)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:  # a signal that meets a process between fork and exec is lost
        child.kill()
        child.wait()


def _await_copies(
    children: Sequence[subprocess.Popen[bytes]],
    barrier: StageBarrier,
    options: argparse.Namespace,
    termination: Termination,
) -> None:
    """Wait for all copies, showing the stages as they begin.  Raises: CopyFailed"""
    progress = _show_progress(barrier, options)
    while any(child.poll() is None for child in children):
        next(progress)
        # One that was killed could not say so itself, and the others would wait for it.
        if any(child.poll() for child in children) and not barrier.failures():
            barrier.fail("a copy ended before its time")
        if termination.asked:
            sys.exit(TERMINATED)
        time.sleep(PROGRESS_POLL_S)
    next(progress)
    failures = barrier.failures() or [f"a copy ended with {code}" for child in children if (code := child.returncode)]
    if failures:
        if not options.quiet:
            _say("")  # ends the line of progress
        raise CopyFailed("; ".join(failures))


def _show_progress(barrier: StageBarrier, options: argparse.Namespace) -> Iterator[None]:
    """Say on standard error, each time it is advanced, which stages have begun since the last time."""
    show = (lambda text: None) if options.quiet else _say_on
    show(f"{_count(barrier.copies, 'client')}:")
    for stage in STAGES:
        while len(barrier.arrived(f"{stage}-{BEGIN}")) < barrier.copies:
            yield
        show(f" {stage}")
    while len(barrier.arrived(ROWS)) < barrier.copies:
        yield
    show("\n")
    while True:
        yield


def collect(barrier: StageBarrier) -> list[Row]:
    """Read the rows all copies left, and add the sum of each stage after its rows."""
    copies = [[Row(*row) for row in json.loads(path.read_bytes())] for path in barrier.arrived(ROWS)]
    copies.sort(key=lambda rows: int(rows[0].client))
    stages = zip(*copies, strict=True)
    return [row for stage in stages for row in (*stage, add_up(stage, barrier, SUM))]


# ---- what is printed ----------------------------------------------------------------------------------


def format_rows(rows: Sequence[Row]) -> str:
    """Lay out one run: a line per stage, or, with several clients, a group of lines per stage."""
    several = rows[0].clients > 1
    header = ["operation", *(["client"] if several else []), "ops", "seconds", "ops/s"]
    header += ["mean ms", "p50 ms", "p99 ms", "max ms"]
    lines: list[list[str]] = []
    for row in rows:
        if several or row.client != SUM:
            lines.append(_cells(row, several))
        if several and row.client == SUM:
            lines.append([])
    return format_table(header, lines).rstrip("\n")


def _cells(row: Row, several: bool) -> list[str]:
    return [
        row.operation,
        *([row.client] if several else []),
        str(row.operations),
        f"{row.seconds:.3f}",
        format_rate(row.ops_per_s),
        *map(format_ms, (row.mean_ms, row.p50_ms, row.p99_ms, row.max_ms)),
    ]


def format_sums(rows: Sequence[Row]) -> str:
    """Lay out the sums of a sweep, operations/s by number of clients, and where each levels off."""
    sums = {(row.clients, row.operation): row.ops_per_s for row in rows if row.client == SUM}
    counts = list(dict.fromkeys(clients for clients, _ in sums))
    lines = [[str(clients), *(format_rate(sums[clients, stage]) for stage in STAGES)] for clients in counts]
    level = [find_level([(clients, sums[clients, stage]) for clients in counts]) for stage in STAGES]
    lines += [[], ["levels off at", *(str(clients) if clients else "-" for clients in level)]]
    return format_table(["clients", *STAGES], lines)


def find_level(rates: Sequence[tuple[int, float]]) -> int | None:
    """Return the smallest number of clients whose sum reaches LEVEL of the best sum: more bring little.

    None when the largest number measured is still the first to do so: it may not have levelled off.
    """
    known = [(clients, rate) for clients, rate in sorted(rates) if not math.isnan(rate)]
    best = max((rate for _, rate in known), default=math.nan)
    level = next((clients for clients, rate in known if rate >= LEVEL * best), None)
    return None if not known or level == known[-1][0] else level


def find_thin_figures(rows: Sequence[Row]) -> list[str]:
    """Name the stages too short to compare: hardly had the last client begun when the first one ended."""
    totals = [row for row in rows if row.client == SUM] or rows
    return [
        f"{row.operation}: only {row.operations} of {row.done} operations fell into the time in which all clients ran"
        for row in totals
        if row.operations < row.done * COUNTED_MIN
    ]


def write_csv(path: str, rows: Sequence[Row]) -> None:
    """Write one line per row, under a header of Row's names; "-" is standard output."""
    with ExitStack() as closing:
        file = sys.stdout if path == "-" else closing.enter_context(open(path, "w", newline="", encoding="utf-8"))
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def _prints_tables(options: argparse.Namespace) -> bool:
    """Say whether standard output is for people: a program that asked for rows gets nothing else there."""
    return not options.json and options.csv != "-"


def print_json(rows: Sequence[Row]) -> None:
    """Print an array of objects with Row's names; a figure that does not exist is null."""
    objects = [
        {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in row._asdict().items()
        }
        for row in rows
    ]
    print(json.dumps(objects, indent=1))


def _title(options: argparse.Namespace, clients: int) -> str:
    where = options.dealer or f"{options.name} (bridge)"
    amount = f"{options.seconds:g} s a stage" if options.seconds else f"{_count(options.n, 'item')} each"
    return f"{where}, {_count(clients, 'client')}, {amount}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


def _say(text: str) -> None:
    _say_on(text + "\n")


def _say_on(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


# ---- the command line ---------------------------------------------------------------------------------


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong usage ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], epilog="How to compare: see the top of this file."
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the project's name in the catalog, or HOST:PORT")
    parser.add_argument("--dealer", metavar="URL", help="measure kvzmq.connect(URL) instead of the bridge")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("-n", metavar="ITEMS", type=_positive, default=ITEMS, help="items per stage (%(default)s)")
    amount.add_argument("--seconds", metavar="S", type=_seconds, help="run each stage for S seconds instead")
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--clients", metavar="K", type=_positive, help="run K clients at once and add them up")
    many.add_argument("--sweep", metavar="K,K...", type=_counts, help="run several numbers of clients in turn")
    many.add_argument("--barrier", metavar="DIR", type=Path, help="meet the other copies in this directory")
    parser.add_argument("--copies", metavar="K", type=_positive, default=1, help="how many copies meet in DIR")
    parser.add_argument(
        "--client", metavar="LABEL", type=_label, default="1", help="what to call this copy (%(default)s)"
    )
    parser.add_argument("--csv", metavar="FILE", help="write the rows to FILE; - is standard output")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON instead of tables")
    parser.add_argument("--sums", action="store_true", help="of a sweep print the sums alone")
    parser.add_argument("--quiet", action="store_true", help="show no progress and no warnings")
    parser.add_argument(
        "--give-up",
        metavar="S",
        type=float,
        default=GIVE_UP_S,
        help="how long to try one request, 0: for ever (%(default)g)",
    )
    options = parser.parse_args(arguments)
    if bool(options.name) == bool(options.dealer):
        parser.error("say NAME or --dealer URL")
    if options.copies > 1 and not options.barrier:
        parser.error("--copies needs --barrier")
    options.give_up = options.give_up or None
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _label(text: str) -> str:
    if not re.fullmatch(r"[\w-]{1,100}", text):
        raise argparse.ArgumentTypeError("letters, digits, - and _ only: it becomes part of a file's name")
    return text


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def _counts(text: str) -> list[int]:
    return sorted({_positive(part) for part in text.split(",")})


def measure(options: argparse.Namespace) -> list[Row]:
    """Run what the options ask for, printing each run's table as it is there; return all rows."""
    counts = options.sweep or ([options.clients] if options.clients else [])
    if not counts:
        return _show(options, options.copies, be_one_client(options))
    return [row for clients in counts for row in _show(options, clients, be_many_clients(options, clients))]


def _show(options: argparse.Namespace, clients: int, rows: list[Row]) -> list[Row]:
    if _prints_tables(options) and not options.sums:
        print(f"{_title(options, clients)}\n\n{format_rows(rows)}\n", flush=True)
    if not options.quiet:
        for warning in find_thin_figures(rows):
            _say(f"TestPerf: {warning}: use --seconds, or a larger -n")
    return rows


def _failures(options: argparse.Namespace) -> tuple[type[Exception], ...]:
    """Return the errors that end a measurement with a message instead of a traceback."""
    known = (TableError, KeyError, CopyFailed, WrongResult, OSError)
    if not options.dealer:
        return known
    import kvzmq

    return (*known, kvzmq.KvzmqError)


def main() -> int:
    """Measure and print; return the exit status."""
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the other copies are told
    try:
        rows = measure(options)
    except KeyboardInterrupt:
        return 130
    except _failures(options) as failure:
        who = "" if options.clients or options.sweep else f"client {options.client}: "
        _say(f"TestPerf: {who}{type(failure).__name__}: {failure}")
        return 1
    if options.sweep and _prints_tables(options):
        print(f"Sums, operations/s\n\n{format_sums(rows)}\n")
    if options.json:
        print_json(rows)
    if options.csv:
        write_csv(options.csv, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
