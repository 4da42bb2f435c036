"""The section on latency."""

from __future__ import annotations

from benchmarks.report.names import measured, title_of
from benchmarks.report.text import milliseconds, paragraph, table
from benchmarks.results import Results

_CONTENDERS = ("kvzmq", "kvzmq-bridge", "redis", "one-sync", "sqlite")


def write(results: Results) -> str:
    """List latencies, and compare their tails."""
    rows = []
    for experiment, wanted, who in (
        ("clients", {"clients": 1}, "1 blocking client"),
        ("clients", {"clients": 8}, "8 blocking clients"),
        ("sockets", {"clients": 64}, "64 connections"),
    ):
        for operation in ("insert", "lookup"):
            for contender in measured(results, experiment, _CONTENDERS):
                one = {**wanted, "operation": operation, "contender": contender}
                if results.rows(experiment, **one):
                    figures = [
                        results.median(experiment, field, **one) for field in ("p50_ms", "p99_ms", "p999_ms", "max_ms")
                    ]
                    rows.append([who, operation, title_of(contender), *map(milliseconds, figures)])
            rows.append([])
    if not any(rows):
        return ""
    while not rows[-1]:
        rows.pop()
    sentences = []
    for count, experiment in ((8, "clients"), (64, "sockets")):
        one = {"operation": "insert", "clients": count}
        ours, theirs = (results.median(experiment, "p99_ms", contender=name, **one) for name in ("kvzmq", "one-sync"))
        if ours < 0.8 * theirs:
            sentences.append(
                f"With {count} clients 99 of 100 inserts are done in {milliseconds(ours)} ms; where each waits"
                f" for its own sync in turn it takes {milliseconds(theirs)} ms."
            )
    return "\n\n".join(
        [
            "Closed loop: each client sends the next operation when the reply to the last is there."
            " Milliseconds, medians over the rounds,",
            table(("clients", "operation", "contender", "p50", "p99", "p99.9", "max"), rows, left=3),
            paragraph(
                *sentences,
                "The longest of a run is one event, and differs from run to run more than anything else here.",
            ),
        ]
    ).replace("rounds,\n", "rounds:\n")
