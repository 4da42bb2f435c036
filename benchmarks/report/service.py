"""The section on what it costs to run kvzmq as a service: CURVE, measuring itself, a backup while it runs."""

from __future__ import annotations

from benchmarks.report.names import title_of
from benchmarks.report.text import decimal, paragraph, rate, table
from benchmarks.results import OVER, PYZMQ, Results

_PLAIN, _OVER_PYZMQ, _CURVE = "kvzmq", f"kvzmq{OVER}{PYZMQ}", f"kvzmq-curve{OVER}{PYZMQ}"
_OPERATIONS = ("lookup", "insert")
_TIMES = ("seconds", "p50_ms", "p99_ms", "max_ms")
_PHASES = ("before", "checkpoint", "transfer", "after")


def write(results: Results) -> str:
    """Compare with the plain server that nobody looks at."""
    return "\n\n".join(part for part in (_curve(results), _metrics(results), _backup(results)) if part)


def _loads(results: Results, experiment: str, contenders: tuple[str, ...]) -> list[list[str]]:
    return [
        [
            title_of(contender), operation, str(clients), str(batch),
            rate(results.median(experiment, "ops_per_s", **wanted)),
            decimal(results.median(experiment, "p50_ms", **wanted), 3),
            decimal(results.median(experiment, "server_cpu_us_per_op", **wanted), 1),
            decimal(results.median(experiment, "client_cpu_us_per_op", **wanted), 1),
        ]
        for operation in _OPERATIONS
        for clients, batch in ((1, 1), (8, 1), (1, 1000))
        for contender in contenders
        if results.rows(
            experiment,
            **(wanted := {"contender": contender, "operation": operation, "clients": clients, "batch": batch}),
        )
    ]  # fmt: skip


_HEADS = (
    "server and client", "operation", "clients", "rows a call", "a second", "p50 ms", "server us", "client us",
)  # fmt: skip


def _curve(results: Results) -> str:
    rows = _loads(results, "curve", (_PLAIN, _OVER_PYZMQ, _CURVE))
    if not rows:
        return ""
    return "\n\n".join(
        [
            paragraph(
                "With CURVE a client goes over libzmq's sockets, in plain over its own. CURVE beside pyzmq in plain",
                "is what encrypting and looking at rights cost; pyzmq beside the plain socket is what the way costs.",
                "Calls of blocking clients, a process each; the last columns are processor time of an operation.",
            ),
            table(_HEADS, rows),
        ]
    )


def _metrics(results: Results) -> str:
    rows = _loads(results, "metrics", ("kvzmq-unobserved", "kvzmq", "kvzmq-metrics"))
    if not rows:
        return ""
    return "\n\n".join(
        [
            paragraph(
                "What a server takes to measure itself: beside one from which the observer behind `stats` was taken",
                "out, and with a page of metrics for Prometheus.",
            ),
            table(_HEADS, rows),
        ]
    )


def _backup(results: Results) -> str:
    found = results.rows("backup")
    if not found:
        return ""
    rows = [
        [
            phase,
            *(
                decimal(results.median("backup", field, phase=phase), 2)
                for field in ("seconds", "p50_ms", "p99_ms", "max_ms")
            ),
        ]
        for phase in _PHASES
    ]
    table_rows, writers = int(found[0]["rows"]), found[0]["writers"]
    return "\n\n".join(
        [
            paragraph(
                f"A backup of {table_rows:,} rows while {writers} processes insert, one row at a time: it took",
                f"{decimal(results.median('backup', 'backup_s'), 1)} s. The server's child writes a checkpoint first,",
                "then that comes over the connection. What the inserts took in each part, milliseconds:",
            ),
            table(("part", "seconds", "p50", "p99", "max"), rows),
        ]
    )
