"""The one table that README shows, between two comments there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from benchmarks.report.text import rate
from benchmarks.results import Results

BEGIN, END = "<!-- written by make report -->", "<!-- end -->"


class _Line(NamedTuple):
    """One line of the table: the same work by kvzmq and by another, in the same rounds."""

    work: str
    experiment: str
    wanted: dict[str, object]
    other: str
    ours: str = "kvzmq"


def _lines() -> list[_Line]:
    lines = []
    for operation, name in (("insert", "durable insert"), ("lookup", "lookup")):
        one_command = "MSET" if operation == "insert" else "MGET"
        lines += [
            _Line(
                f"{name}, 1,000 rows a request, one client", "batches", {"operation": operation, "batch": 1000}, "redis"
            ),
            _Line(
                f"the same beside one {one_command} of 1,000",
                "batches",
                {"operation": operation, "batch": 1000},
                "redis-many",
            ),
            _Line(
                f"{name}, 1,000 asyncio tasks, one client",
                "tasks",
                {"operation": operation, "batch": "tasks", "clients": 1000},
                "redis",
            ),
            _Line(f"{name}, 64 blocking clients", "libraries", {"operation": operation, "clients": 64}, "redis"),
            _Line(f"{name}, 8 blocking clients", "clients", {"operation": operation, "clients": 8}, "redis"),
            _Line(
                f"{name}, 8 blocking clients, JSON bridge",
                "clients",
                {"operation": operation, "clients": 8},
                "redis",
                "kvzmq-bridge",
            ),
        ]
    return lines


def write_table(results: Results) -> str:
    """Return the table, or nothing if a figure is missing."""
    rows = [
        "| operations a second | kvzmq | Redis, `appendfsync always`, redis-py | ratio | of the rounds |",
        "|---|--:|--:|--:|--:|",
    ]
    for line in _lines():
        ours, theirs = {"contender": line.ours, **line.wanted}, {"contender": line.other, **line.wanted}
        ratio = results.ratio(line.experiment, "ops_per_s", ours, theirs)
        if not ratio.known:
            return ""
        figures = [rate(results.median(line.experiment, "ops_per_s", **wanted)) for wanted in (ours, theirs)]
        rows.append(
            f"| {line.work} | {figures[0]} | {figures[1]} | {ratio.median:.1f}x | {ratio.least:.1f} to"
            f" {ratio.greatest:.1f} |"
        )
    rounds = results.spread("batches", "ops_per_s", contender="kvzmq", operation="insert", batch=1000).rounds
    plotted = results.spread(
        "testperf", "ops_per_s", contender="kvzmq", transport="bridge", operation="insert", client="sum", clients=1
    ).rounds
    return f"Medians of {rounds} rounds of one run, the plot of {plotted}:\n\n" + "\n".join(rows)


def update(path: Path, results: Results) -> bool:
    """Put the table into a file, in place of the one there; False if there is no table or no place for it."""
    table, text = write_table(results), path.read_text(encoding="utf-8")
    written, places = re.subn(f"(?s){re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{table}\n{END}", text)
    if not table or places != 1:
        return False
    path.write_text(written, encoding="utf-8")
    return True
