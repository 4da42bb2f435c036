"""Takes the measurements: `python -m benchmarks.run [--quick | --full] [--only NAME,...] [--results DIR]`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.run import backup, cluster, curve, experiments, metrics, startup, storage, testperf, watches
from benchmarks.run.facts import write_facts
from benchmarks.run.measuring import SIZES, WORKERS, Bench
from benchmarks.run.processes import temporary_directory
from benchmarks.run.workers import Workers
from kvzmq.bench.machine import file_system
from kvzmq.client.core.transports import TRANSPORT_VARIABLE

NOT_A_DISK = ("tmpfs", "ramfs")


def everything() -> dict[str, Callable[[Bench], None]]:
    """Return all experiments by name, in the order in which they run."""
    return (
        testperf.EXPERIMENTS
        | experiments.EXPERIMENTS
        | startup.EXPERIMENTS
        | watches.EXPERIMENTS
        | curve.EXPERIMENTS
        | metrics.EXPERIMENTS
        | backup.EXPERIMENTS
        | storage.EXPERIMENTS
        | cluster.EXPERIMENTS
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run."""
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--quick", action="store_const", const="quick", dest="size", help="a few minutes, to see that all works"
    )
    amount.add_argument("--full", action="store_const", const="full", dest="size", help="more rounds, longer ones")
    parser.set_defaults(size="default")
    parser.add_argument("--only", metavar="NAME,...", type=_names, default=list(everything()), help="these experiments")
    parser.add_argument("--results", metavar="DIR", type=Path, default=results.DIRECTORY, help="where the CSV files go")
    parser.add_argument("--files", metavar="DIR", type=Path, help="where servers keep theirs: on a disk, not in memory")


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in everything()]
    if unknown:
        raise argparse.ArgumentTypeError(f"no experiment {', '.join(unknown)}; there are {', '.join(everything())}")
    return names


def measure(options: argparse.Namespace) -> list[str]:
    """Run the experiments that the options ask for. Returns those that failed; the others' figures stand."""
    base = options.files or _disk()
    os.environ.pop(TRANSPORT_VARIABLE, None)  # a contender's transport is the one that its figures name
    began_s = time.monotonic()
    failed = []
    with temporary_directory(base) as directory, Workers(WORKERS) as workers:
        bench = Bench(SIZES[options.size], options.results, directory, workers)
        write_facts(bench)
        for name in options.only:
            started_s = time.monotonic()
            bench.say(f"{name}:")
            try:
                everything()[name](bench)
            except Exception:
                traceback.print_exc()
                bench.say(f"*** FAILED {name}")
                failed.append(name)
            bench.say(f"{name}: {time.monotonic() - started_s:.0f} s; {time.monotonic() - began_s:.0f} s in all")
        for name, reason in bench.skipped.items():
            bench.say(f"*** SKIPPED {name}: {reason}")
    return failed


def _disk() -> Path:
    """Return a directory that is not in memory: a sync there would say nothing."""
    for place in (Path(tempfile.gettempdir()), Path.cwd(), Path("/var/tmp")):
        if file_system(place)[0] not in NOT_A_DISK and os.access(place, os.W_OK):
            return place
    raise SystemExit("no directory on a disk found: name one with --files DIR")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Take the measurements behind REPORT."
    )
    add_options(parser)
    try:
        failed = measure(parser.parse_args(arguments))
    except KeyboardInterrupt:
        sys.exit("interrupted; what was measured is in the CSV files")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
