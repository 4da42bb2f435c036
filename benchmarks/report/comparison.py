"""The section that sets kvzmq beside what people use instead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from benchmarks.report.names import in_order, measured, promise_of, remark_on_transport, short_of, title_of
from benchmarks.report.text import bars, decimal, join, milliseconds, paragraph, rate, table
from benchmarks.results import Results, Spread
from benchmarks.run.peers import MEMORY, NOTHING

_NEAR = 0.1
"""Ratios so near to 1 are called even."""


def _contenders(results: Results, experiment: str, **wanted: object) -> list[str]:
    """Return who was measured, in the order of PEERS."""
    return in_order(results.values(experiment, "contender", **wanted))


def write(results: Results) -> str:
    """Compare the operations of all contenders."""
    parts = [
        part
        for make in (_clients, _libraries, _sockets, _batches, _tasks, _ycsb, _values)
        for part in make(results)
        if part
    ]
    return "\n\n".join(parts)


def _against(
    results: Results, experiment: str, contender: str, others: Sequence[str], **wanted: object
) -> dict[str, Spread]:
    ours = {"contender": contender, **wanted}
    found = {
        other: results.ratio(experiment, "ops_per_s", ours, {"contender": other, **wanted})
        for other in others
        if not other.startswith("kvzmq")
    }
    return {other: ratio for other, ratio in found.items() if ratio.known}


def judge(what: str, ratios: Mapping[str, Spread]) -> str:
    """Say whom kvzmq is ahead of, even with, and behind, and of whom not in every round."""
    groups: dict[str, list[str]] = {
        "ahead of": [],
        "ahead, but not in every round, of": [],
        "even with": [],
        "behind, but not in every round,": [],
        "behind": [],
    }
    for name, ratio in ratios.items():
        if ratio.median > 1 + _NEAR:
            groups["ahead of" if ratio.least > 1 else "ahead, but not in every round, of"].append(
                f"{short_of(name)} ({decimal(ratio.median, 1)}x)"
            )
        elif ratio.median < 1 - _NEAR:
            groups["behind" if ratio.greatest < 1 else "behind, but not in every round,"].append(
                f"{short_of(name)} ({1 / ratio.median:.1f}x)"
            )
        else:
            groups["even with"].append(short_of(name))
    said = [f"{relation} {join(names)}" for relation, names in groups.items() if names]
    return f"{what}: kvzmq is {'; '.join(said)}." if said else ""


def _clients(results: Results) -> list[str]:
    if not results.has("clients"):
        return []
    counts = (1, 8)
    parts = [
        paragraph(
            "Contenders take turns within each round. A ratio of two is the median of the rounds' ratios, which is not",
            'the ratio of the medians. "Ahead" and "behind" are said of a tenth or more.',
        ),
        paragraph(
            "Blocking clients, a process each, single operations/s, on 10,000 rows with values of 32 bytes. `rounds`",
            "is how far the rounds lie from their median; a dash: the clients had no rows left to remove before half",
            "of the time was over.",
            "`client us` is the processor time of the client's process for an operation, with 8 clients.",
            remark_on_transport(results),
        ),
    ]
    for operation in ("insert", "lookup", "remove"):
        rows = []
        for contender in _contenders(results, "clients", operation=operation):
            cells = [title_of(contender), promise_of(contender)]
            for count in counts:
                found = results.spread("clients", "ops_per_s", contender=contender, operation=operation, clients=count)
                p99 = results.median("clients", "p99_ms", contender=contender, operation=operation, clients=count)
                apart = (
                    f"{found.least / found.median - 1:+.0%} {found.greatest / found.median - 1:+.0%}"
                    if found.known
                    else ""
                )
                cells += [rate(found.median), apart, milliseconds(p99)]
            cpu = results.median("clients", "server_cpu_us_per_op", contender=contender, operation=operation, clients=8)
            own = results.median("clients", "client_cpu_us_per_op", contender=contender, operation=operation, clients=8)
            rows.append([*cells, decimal(cpu, 1), decimal(own, 1)])
        rows.sort(key=lambda row: -float(row[5].replace(",", "").replace("-", "0") or 0))
        sides = ("server us", "client us")
        header = (operation, "promise", "1 client", "rounds", "p99 ms", "8 clients", "rounds", "p99 ms", *sides)
        parts.append(table(header, rows, left=2))
    sentences = []
    for operation, promise in (("insert", "durable"), ("lookup", None)):
        others = [
            name
            for name in _contenders(results, "clients", operation=operation)
            if promise_of(name) != NOTHING and (promise is None or promise_of(name) == promise)
        ]
        for count in counts:
            what = f"{'Durable insert' if promise else 'Lookup'}, {count} client{'s' if count > 1 else ''}"
            sentences.append(
                judge(what, _against(results, "clients", "kvzmq", others, operation=operation, clients=count))
            )
    files = [name for name in ("sqlite", "diskcache") if results.rows("clients", contender=name)]
    memory = [short_of(name) for name in _contenders(results, "clients") if promise_of(name) == MEMORY]
    notes = []
    if files:
        notes.append(
            f"{join([short_of(name) for name in files])} have no server: every client opens the files, and a"
            " lookup is a call into the page cache."
        )
    if memory:
        notes.append(
            f"{join(memory)} forget everything when they end; their inserts cannot be compared with durable ones."
        )
    if results.rows("clients", contender="etcd"):
        notes.append(
            "etcd is asked through its JSON gateway, as there is no maintained Python client; its lookups are"
            " linearizable, as kvzmq's are."
        )
    return [*parts, paragraph(*sentences), paragraph(*notes)]


def _libraries(results: Results) -> list[str]:
    return _plain(
        results,
        "libraries",
        "64 blocking clients of the libraries themselves (eight threads in each of eight processes), operations/s:",
        64,
    )


def _sockets(results: Results) -> list[str]:
    if not results.has("sockets"):
        return []
    rows = []
    for operation in ("insert", "lookup"):
        for contender in _contenders(results, "sockets", operation=operation):
            wanted = {"contender": contender, "operation": operation}
            cells = [operation, title_of(contender)]
            for count in results.numbers("sockets", "clients"):
                cells.append(rate(results.median("sockets", "ops_per_s", clients=count, **wanted)))
            at_most = max(results.numbers("sockets", "clients"))
            for field in ("p99_ms", "server_cpu_us_per_op", "client_cpu_us_per_op"):
                cells.append(
                    decimal(results.median("sockets", field, clients=at_most, **wanted), 2 if field == "p99_ms" else 1)
                )
            rows.append(cells)
        rows.append([])
    counts = [f"{count} clients" for count in results.numbers("sockets", "clients")]
    header = ("operation", "contender", *counts, "p99 ms", "server us/op", "client us/op")
    most = max(results.numbers("sockets", "clients"))
    sentences = [
        judge(
            f"Durable insert, {most} bare connections",
            _against(results, "sockets", "kvzmq", ("redis", "one-sync"), operation="insert", clients=most),
        )
    ]
    sentences += _why_redis(results, most)
    return [
        paragraph(
            "Bare connections of one process, one operation unanswered on each, operations/s. The client is an"
            " event loop in Python that does",
            "nothing else, for kvzmq with DEALER sockets of libzmq's (the last three columns: with the most"
            " connections):",
        ),
        table(header, rows[:-1], left=2),
        paragraph(*sentences),
    ]


def _why_redis(results: Results, count: int) -> list[str]:
    def figure(contender: str, field: str) -> float:
        return results.median("sockets", field, contender=contender, operation="insert", clients=count)

    ours, theirs = figure("kvzmq", "ops_per_s"), figure("redis", "ops_per_s")
    if math.isnan(ours) or math.isnan(theirs) or ours >= 1.5 * theirs:
        return []
    cost, their_cost = figure("kvzmq", "server_cpu_us_per_op"), figure("redis", "server_cpu_us_per_op")
    client, their_client = figure("kvzmq", "client_cpu_us_per_op"), figure("redis", "client_cpu_us_per_op")
    return [
        "Redis shares a sync among what arrives together as well, and has less to do for each change:",
        f"an insert costs Redis' server {their_cost:.0f} us and its bare client {their_client:.0f} us,",
        f"kvzmq's server {cost:.0f} us (Python, and libzmq's thread) and its bare client {client:.0f} us.",
    ]


def _plain(results: Results, experiment: str, title: str, count: int) -> list[str]:
    if not results.has(experiment):
        return []
    rows = []
    for operation in results.values(experiment, "operation"):
        for contender in _contenders(results, experiment, operation=operation):
            wanted = {"contender": contender, "operation": operation}
            rows.append(
                [
                    operation, title_of(contender), rate(results.median(experiment, "ops_per_s", **wanted)),
                    *(milliseconds(results.median(experiment, field, **wanted)) for field in ("p50_ms", "p99_ms")),
                    *(
                        decimal(results.median(experiment, f"{side}_cpu_us_per_op", **wanted), 1)
                        for side in ("server", "client")
                    ),
                    decimal(results.median(experiment, "machine_busy", **wanted), 1),
                ]
            )  # fmt: skip
    header = ("operation", "contender", "sum/s", "p50 ms", "p99 ms", "server us/op", "client us/op", "processors busy")
    sentences = [
        judge(
            operation.capitalize(),
            _against(results, experiment, "kvzmq", ("redis",), operation=operation, clients=count),
        )
        for operation in results.values(experiment, "operation")
    ]
    return [title, table(header, rows, left=2), paragraph(*sentences)]


def _batches(results: Results) -> list[str]:
    if not results.has("batches"):
        return []
    sizes = results.numbers("batches", "batch")
    parts = ["One client that asks for many rows at a time, rows/s:"]
    for operation in ("insert", "lookup"):
        rows = [
            [
                title_of(contender),
                *(
                    rate(results.median("batches", "ops_per_s", contender=contender, operation=operation, batch=size))
                    for size in sizes
                ),
            ]
            for contender in _contenders(results, "batches")
        ]
        parts.append(table((operation, *(f"{size:,} rows" for size in sizes)), rows))
    shown = 1000 if 1000 in sizes else sizes[-1]
    drawn = {
        title_of(contender): results.median(
            "batches", "ops_per_s", contender=contender, operation="insert", batch=shown
        )
        for contender in _contenders(results, "batches")
    }
    parts += [f"insert, {shown:,} rows at a time:", bars(drawn, "rows/s")]
    sentences = [
        judge(
            f"{operation.capitalize()}, {shown:,} rows at a time",
            _against(results, "batches", "kvzmq", _contenders(results, "batches"), operation=operation, batch=shown),
        )
        for operation in ("insert", "lookup")
    ]
    pipeline, many = (
        results.median("batches", "client_cpu_us_per_op", contender=name, operation="insert", batch=shown)
        for name in ("redis", "redis-many")
    )
    if many < 0.5 * pipeline:
        sentences.append(
            f"What a pipeline costs is redis-py's own work on each command, {pipeline:.1f} us a row; with one"
            f" MSET it is {many:.1f} us."
            " A kvzmq client is to be compared with both: like a pipeline it may hold any operations, like MSET"
            " it is one change, all or nothing."
        )
    return [*parts, paragraph(*sentences)]


_KINDS = {"tasks": (1, 64, 1000), "threads": (1, 8, 32), "lasting_tasks": (8, 50, 1000)}
"""How many there are of each kind of `tasks`."""


def _tasks(results: Results) -> list[str]:
    if not results.has("tasks"):
        return []
    rows = []
    for kind, counts in _KINDS.items():
        for operation in ("insert", "lookup"):
            for contender in measured(results, "tasks", ("kvzmq", "redis"), operation=operation, batch=kind):
                wanted = {"contender": contender, "operation": operation, "batch": kind}
                if results.rows("tasks", **wanted):
                    rates = [rate(results.median("tasks", "ops_per_s", clients=count, **wanted)) for count in counts]
                    cpu = [
                        results.median("tasks", f"{side}_cpu_us_per_op", clients=counts[-1], **wanted)
                        for side in ("server", "client")
                    ]
                    rows.append(
                        [
                            kind.replace("_", " "),
                            operation,
                            title_of(contender),
                            *rates,
                            *(decimal(each, 1) for each in cpu),
                        ]
                    )
        rows.append([])
    if not any(rows):
        return []
    header = ("kind", "operation", "contender", "few", "more", "most", "server us/op", "client us/op")
    sentences = []
    for kind, count in (("tasks", 1000), ("threads", 32)):
        for operation in ("insert", "lookup"):
            what = (
                f"{operation.capitalize()}, {count:,} {'asyncio tasks' if kind == 'tasks' else 'threads on one client'}"
            )
            sentences.append(
                judge(
                    what,
                    _against(results, "tasks", "kvzmq", ("redis",), operation=operation, batch=kind, clients=count),
                )
            )
    share = results.median("tasks", "server_busy", contender="kvzmq", operation="lookup", batch="tasks", clients=1000)
    if share < 0.5:
        sentences.append(
            f"With 1,000 tasks kvzmq's server is busy for {share:.0%} of a processor only: the client's process"
            " is what limits."
        )
    return [
        paragraph(
            "One process, single operations written the natural way: 1, 64 or 1,000 asyncio tasks with an"
            " operation each, awaited together,",
            "again and again; 1, 8 or 32 threads that share a client; or 8, 50 or 1,000 tasks that last and do one"
            " operation after the other, operations/s (the last two columns: with the most):",
        ),
        table(header, rows[:-1], left=3),
        paragraph(*sentences),
    ]


def _ycsb(results: Results) -> list[str]:
    if not results.has("ycsb"):
        return []
    rows = []
    for contender in _contenders(results, "ycsb"):
        cells = [title_of(contender)]
        for mix in ("ycsb-a", "ycsb-b"):
            for count in results.numbers("ycsb", "clients"):
                cells.append(
                    rate(results.median("ycsb", "ops_per_s", contender=contender, operation=mix, clients=count))
                )
        rows.append(cells)
    names = [
        f"{mix[-1].upper()}, {count}" for mix in ("ycsb-a", "ycsb-b") for count in results.numbers("ycsb", "clients")
    ]
    most = max(results.numbers("ycsb", "clients"))
    sentences = [
        judge(
            f"Workload {mix[-1].upper()}, {most} clients",
            _against(results, "ycsb", "kvzmq", _contenders(results, "ycsb"), operation=mix, clients=most),
        )
        for mix in ("ycsb-a", "ycsb-b")
    ]
    return [
        paragraph(
            "YCSB's workloads A (half of the operations write) and B (a twentieth), 1,000-byte values, keys"
            " after Zipf over 10,000 rows,",
            "with so many clients, operations/s:",
        ),
        table(("contender", *names), rows),
        paragraph(*sentences),
    ]


def _values(results: Results) -> list[str]:
    if not results.has("values"):
        return []
    lengths = results.numbers("values", "value_bytes")
    rows = []
    for operation in ("insert", "lookup"):
        for contender in _contenders(results, "values"):
            rates = [
                rate(
                    results.median("values", "ops_per_s", contender=contender, operation=operation, value_bytes=length)
                )
                for length in lengths
            ]
            largest = results.median(
                "values", "ops_per_s", contender=contender, operation=operation, value_bytes=lengths[-1]
            )
            rows.append([operation, title_of(contender), *rates, decimal(largest * lengths[-1] / 1e6, 0)])
        rows.append([])
    header = ("operation", "contender", *(f"{length:,} B" for length in lengths), "MB/s at the largest")
    sentences = [
        judge(
            f"{operation.capitalize()} of {lengths[-1]:,} bytes",
            _against(
                results, "values", "kvzmq", _contenders(results, "values"), operation=operation, value_bytes=lengths[-1]
            ),
        )
        for operation in ("insert", "lookup")
    ]
    return [
        "One client, values of different lengths, operations/s:",
        table(header, rows[:-1], left=2),
        paragraph(*sentences),
    ]
