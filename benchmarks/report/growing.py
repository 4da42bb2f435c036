"""The sections on size: rows, memory, recovery, queries, compaction."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.report.names import cores, title_of
from benchmarks.report.text import decimal, milliseconds, paragraph, rate, table, times
from benchmarks.results import Results, number


def write(results: Results) -> str:
    """Say what a larger table costs."""
    parts = [part for make in (_operations, _memory, _recovery, _queries) for part in make(results)]
    return "\n\n".join(part for part in parts if part)


def _operations(results: Results) -> list[str]:
    sizes = results.numbers("growth", "rows")
    if not sizes:
        return []
    rows = []
    for size in sizes:
        cells = [f"{size:,}"]
        for operation in ("insert", "lookup", "remove"):
            wanted = {"rows": size, "operation": operation}
            cells += [
                rate(results.median("growth", "ops_per_s", **wanted)),
                decimal(results.median("growth", "server_cpu_us_per_op", **wanted), 1),
            ]
        rows.append(cells)
    header = ("rows", "insert/s", "server us", "lookup/s", "server us", "remove/s", "server us")
    return [
        "One blocking client, single operations on tables of different size, all servers in the same run:",
        table(header, rows),
        paragraph(*_on_operations(results, sizes)),
    ]


def _on_operations(results: Results, sizes: Sequence[int]) -> list[str]:
    if len(sizes) < 2:
        return []
    sentences = []
    for operation in ("insert", "lookup"):
        ratio = results.ratio(
            "growth",
            "server_cpu_us_per_op",
            {"rows": sizes[-1], "operation": operation},
            {"rows": sizes[0], "operation": operation},
        )
        relation = "the same as" if abs(ratio.median - 1) < 0.05 else f"{ratio.median:.2f} times"
        sentences.append(
            f"With {sizes[-1]:,} rows {'an insert' if operation == 'insert' else 'a lookup'} costs the server"
            f" {relation} what it costs with {sizes[0]:,}."
        )
    return sentences


def _memory(results: Results) -> list[str]:
    if not results.has("memory"):
        return []
    rows = [
        [
            title_of(row["contender"]),
            f"{int(row['rows']):,}",
            rate(number(row, "bytes_per_row")),
            rate(number(row, "load_rows_per_s")),
        ]
        for row in results.rows("memory")
    ]
    return [
        paragraph(
            "Memory (what the server's resident memory grew by; 16-byte keys, 32-byte values), and how fast one"
            " client filled it, 1,000 rows at",
            "a time:",
        ),
        table(("server", "rows", "bytes a row", "rows/s"), rows),
    ]


def _recovery(results: Results) -> list[str]:
    if not results.has("recovery"):
        return []
    rows = []
    for size in results.numbers("recovery", "rows"):
        for contender in results.values("recovery", "contender"):
            for source in ("log", "checkpoint", "compaction"):
                wanted = {"rows": size, "contender": contender, "from": source}
                found = results.spread("recovery", "seconds", **wanted)
                if found.known:
                    what = {
                        "log": "start from the log",
                        "checkpoint": "start from the checkpoint",
                        "compaction": "write the checkpoint",
                    }[source]
                    if contender == "redis":
                        what = {"checkpoint": "start from the RDB", "compaction": "write the RDB (SAVE)"}[source]
                    size_mb = results.median("recovery", "file_bytes", **wanted) / 1e6
                    rows.append(
                        [
                            f"{size:,}",
                            contender,
                            what,
                            decimal(found.median),
                            f"{found.least:.2f} to {found.greatest:.2f}",
                            decimal(size_mb, 1),
                        ]
                    )
    return [
        paragraph(
            "From starting the process to the first answer, seconds; and how long a checkpoint takes to write"
            " (kvzmq: in a process of its own,",
            "which recovers first):",
        ),
        table(("rows", "server", "what", "seconds", "rounds", "file, MB"), rows, left=3),
    ]


def _queries(results: Results) -> list[str]:
    sizes = results.numbers("queries", "rows", contender="kvzmq")
    if not sizes:
        return []
    rows = []
    for contender in ("kvzmq", "one-sync-filled"):
        for batch in results.numbers("queries", "batch", contender=contender):
            for size in results.numbers("queries", "rows", contender=contender):
                wanted = {"contender": contender, "batch": batch, "rows": size}
                made, p50_ms, cpu_us = (
                    results.median("queries", field, **wanted)
                    for field in ("ops_per_s", "p50_ms", "server_cpu_us_per_op")
                )
                cells = [f"{size:,}", title_of(contender), str(batch)]
                rows.append([*cells, rate(made), milliseconds(p50_ms), decimal(cpu_us, 1)])
    sentences = []
    for batch in results.numbers("queries", "batch", contender="kvzmq") if len(sizes) > 1 else ():
        least, most = ({"contender": "kvzmq", "rows": size, "batch": batch} for size in (sizes[0], sizes[-1]))
        slower, dearer = (results.ratio("queries", field, most, least) for field in ("p50_ms", "server_cpu_us_per_op"))
        sentences.append(
            f"From {sizes[0]:,} to {sizes[-1]:,} rows"
            f" {'a lone query' if batch == 1 else f'one of {batch} together'} takes {decimal(slower.median)}"
            " times as long"
            f" ({decimal(slower.least)} to {decimal(slower.greatest)}) and {decimal(dearer.median)} times the"
            " server's processor."
        )
    scanning = {"contender": "one-sync-filled"}
    scan = results.ratio("queries", "ops_per_s", {"contender": "kvzmq", "rows": 100_000, "batch": 1}, scanning)
    cost = results.ratio(
        "queries", "server_cpu_us_per_op", scanning, {"contender": "kvzmq", "rows": 100_000, "batch": 1}
    )
    if scan.known:
        sentences.append(
            "A scan of 100,000 rows, which the select server holds as Python objects ready to be looked at,"
            f" takes {times(scan.median)} as long, "
            f"and costs its server {times(cost.median)} as much."
        )
    header = ("rows", "server", "together", "queries/s", "p50 ms", "server us")
    asked = (
        "Queries with 10 matches, one blocking client over ZeroMQ, one by one and 64 in a pipeline (the"
        " scan: over lines of JSON):"
    )
    return [paragraph(asked), table(header, rows, left=2), paragraph(*sentences)]


def compaction(results: Results) -> str:
    """Compare inserts during a compaction with inserts without."""
    if not results.has("compaction"):
        return ""
    rows = []
    for row in results.rows("compaction"):
        latencies = [milliseconds(number(row, field)) for field in ("p50_ms", "p99_ms", "p999_ms", "max_ms")]
        cells = [row["round"], f"{row['phase']}, {row['phases']} times", decimal(number(row, "seconds"), 1)]
        rows.append([*cells, rate(number(row, "ops_per_s")), *latencies])
    table_rows = results.numbers("compaction", "rows")[0]
    sentences = []
    quiet, busy = (
        {name: results.median("compaction", name, phase=phase) for name in ("ops_per_s", "p50_ms", "p999_ms", "max_ms")}
        for phase in ("quiet", "compacting")
    )
    if not math.isnan(quiet["p999_ms"]) and not math.isnan(busy["p999_ms"]):
        tail, speed = (
            results.ratio("compaction", field, {"phase": "compacting"}, {"phase": "quiet"})
            for field in ("p999_ms", "ops_per_s")
        )
        sentences.append(
            f"While the child compacts, the client makes {speed.median:.0%} of its usual inserts"
            f" ({speed.least:.0%} to {speed.greatest:.0%}),"
            f" and the p99.9 is {tail.median:.1f} times the usual one ({tail.least:.1f} to {tail.greatest:.1f})."
        )
        longest, usual = (
            results.spread("compaction", "max_ms", phase=phase).greatest for phase in ("compacting", "quiet")
        )
        took = results.median("compaction", "seconds", phase="compacting") / results.median(
            "compaction", "phases", phase="compacting"
        )
        sentences.append(
            f"The longest insert during any compaction took {longest:.0f} ms, between them {usual:.0f} ms; a"
            f" compaction took {took:.1f} s."
        )
        if tail.least > 1:
            sentences.append(
                f"Client, server and child are three processes on {cores(results)} processors;"
                " docs/performance.md says what was tried against the tail."
            )
    return "\n\n".join(
        [
            paragraph(
                f"One client inserts without end into a table of {table_rows:,} rows, while the server compacts"
                " again and again; between, it does not.",
                "The phases are told apart from outside, by the presence of the sealed log; three of each kind"
                " in turn are a round, and its figures are of their inserts together.",
            ),
            table(("round", "phase", "seconds", "inserts/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"), rows, left=2),
            paragraph(*sentences),
        ]
    )
