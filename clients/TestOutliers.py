"""Does a long series of single durable operations on few keys; reports the fastest and the slowest.

    python TestOutliers.py NAME [-n N]          NAME is a project's name in the catalog, or HOST:PORT

The server's log grows with every operation while the table stays small, so the server compacts its log again
and again (start it with --compact-after 1000, say).  Whatever compaction costs a client shows here, as
operations much slower than the rest: the ten slowest are listed with their place in the series, and the
series is also cut into ten parts, so that a pause at regular intervals, a drift and a bad moment of the
machine look different.

Inserts and removes alternate, each waits for its reply, and the keys are this run's own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import sys
import time
from array import array
from collections.abc import Sequence
from typing import Any

from Figures import NS_PER_MS, format_ms, format_rate, format_table, percentile, summarize
from HashTableClient import HashTableClient, TableError

OPERATIONS = 10_000
KEYS = 10
SLOWEST = 10
PARTS = 10
GIVE_UP_S = 120.0
NS_PER_S = 1_000_000_000
PERCENTS = (50, 90, 99, 99.9)
METHODS = ("insert", "remove")


def measure(table: HashTableClient, prefix: str, operations: int) -> array[int]:
    """Insert and remove in turn, `operations` in all; return when the series began and each one ended, in ns."""
    insert, remove, clock = table.insert, table.remove, time.monotonic_ns
    keys = [f"{prefix}{i}" for i in range(KEYS)]
    stamps = array("q", [clock()])
    for i in range(operations):
        if i % 2:
            remove(keys[i // 2 % KEYS])
        else:
            insert(keys[i // 2 % KEYS], i)
        stamps.append(clock())
    return stamps


def report(stamps: Sequence[int]) -> dict[str, Any]:
    """Work out the figures: times in ms, places in the series counted from 0, seconds from its beginning."""
    latencies = [end - start for start, end in itertools.pairwise(stamps)]
    ordered = sorted(latencies)
    by_latency = sorted(range(len(latencies)), key=latencies.__getitem__)
    return {
        "operations": len(latencies),
        "seconds": (stamps[-1] - stamps[0]) / NS_PER_S,
        "ops_per_s": len(latencies) * NS_PER_S / (stamps[-1] - stamps[0]),
        "mean_ms": summarize(latencies).mean_ms,
        "percentiles_ms": {f"p{percent:g}": percentile(ordered, percent) / NS_PER_MS for percent in PERCENTS},
        "fastest": _operation(by_latency[0], stamps),
        "slowest": [_operation(place, stamps) for place in by_latency[: -SLOWEST - 1 : -1]],
        "parts": [_part(stamps, part) for part in range(PARTS) if len(latencies) >= PARTS],
    }


def _operation(place: int, stamps: Sequence[int]) -> dict[str, Any]:
    return {
        "place": place,
        "method": METHODS[place % 2],
        "ms": (stamps[place + 1] - stamps[place]) / NS_PER_MS,
        "at_s": (stamps[place] - stamps[0]) / NS_PER_S,
    }


def _part(stamps: Sequence[int], part: int) -> dict[str, Any]:
    operations = len(stamps) - 1
    first, end = operations * part // PARTS, operations * (part + 1) // PARTS
    latency = summarize([b - a for a, b in itertools.pairwise(stamps[first : end + 1])])
    return {"first": first, "p50_ms": latency.p50_ms, "p99_ms": latency.p99_ms, "max_ms": latency.max_ms}


def format_report(figures: dict[str, Any]) -> str:
    """Lay the figures out for people."""
    fastest, slowest = figures["fastest"], figures["slowest"][0]
    extremes = f"fastest: {_describe(fastest)}\nslowest: {_describe(slowest)}"
    summary = [["operations", str(figures["operations"])], ["seconds", f"{figures['seconds']:.3f}"]]
    summary += [
        ["operations/s", format_rate(figures["ops_per_s"])],
        ["mean ms", format_ms(figures["mean_ms"])],
    ]
    summary += [[f"{name} ms", format_ms(ms)] for name, ms in figures["percentiles_ms"].items()]
    slowest_rows = [
        [one["method"], str(one["place"]), f"{one['at_s']:.3f}", format_ms(one["ms"])] for one in figures["slowest"]
    ]
    part_rows = [
        [f"from {part['first']}", *(format_ms(part[name]) for name in ("p50_ms", "p99_ms", "max_ms"))]
        for part in figures["parts"]
    ]
    return "\n\n".join(
        [
            extremes,
            format_table(["all", ""], summary),
            format_table(["the slowest", "operation", "at s", "ms"], slowest_rows),
            format_table(["the series", "p50 ms", "p99 ms", "max ms"], part_rows),
        ]
    )


def _describe(operation: dict[str, Any]) -> str:
    return f"{format_ms(operation['ms'])} ms, {operation['method']}, operation {operation['place']}"


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("name", metavar="NAME", help="the project's name in the catalog, or HOST:PORT")
    parser.add_argument("-n", metavar="N", type=int, default=OPERATIONS, help="operations (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--give-up",
        metavar="S",
        type=float,
        default=GIVE_UP_S,
        help="how long to try one request, 0: for ever (%(default)g)",
    )
    options = parser.parse_args()
    if options.n < 1:
        parser.error("-n must be at least 1")
    prefix = f"outliers-{secrets.token_hex(5)}-"
    try:
        with HashTableClient(options.name, give_up_s=options.give_up or None) as table:
            table.insert(f"{prefix}warm", 0)  # connect and open the session before anything is timed
            table.remove(f"{prefix}warm")
            # A pair of operations leaves nothing behind, so an even number of them leaves the table as it was.
            stamps = measure(table, prefix, options.n + options.n % 2)
    except (TableError, KeyError) as failure:
        print(f"TestOutliers: {type(failure).__name__}: {failure}", file=sys.stderr)
        return 1
    figures = report(stamps)
    print(json.dumps(figures, indent=1) if options.json else format_report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
