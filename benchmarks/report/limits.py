"""The section that sets kvzmq beside what the disk and the transports give with no table behind them."""

from __future__ import annotations

import math

from benchmarks.report.text import decimal, milliseconds, paragraph, rate, spread_of, table, times
from benchmarks.results import Results
from benchmarks.run.storage import HOW, LOG_BYTES_PER_BATCHED_ROW

_ECHOED: tuple[tuple[str, str, str, str, dict[str, object]], ...] = (
    ("lookup, 1 blocking client", "clients", "kvzmq", "router-echo", {"operation": "lookup", "clients": 1}),
    ("lookup, 8 blocking clients", "clients", "kvzmq", "router-echo", {"operation": "lookup", "clients": 8}),
    (
        "the same, frames with no client above",
        "clients",
        "kvzmq, frames alone",
        "router-echo",
        {"operation": "lookup", "clients": 8},
    ),
    (
        "lookup, 8 blocking clients over pyzmq",
        "clients",
        "kvzmq, pyzmq",
        "router-echo, pyzmq",
        {"operation": "lookup", "clients": 8},
    ),
    ("bridge lookup, 1 client", "clients", "kvzmq-bridge", "json-echo", {"operation": "lookup", "clients": 1}),
    ("bridge lookup, 8 clients", "clients", "kvzmq-bridge", "json-echo", {"operation": "lookup", "clients": 8}),
    ("lookup, 64 connections", "sockets", "kvzmq", "router-echo", {"operation": "lookup", "clients": 64}),
    ("bridge lookup, 64 connections", "sockets", "kvzmq-bridge", "json-echo", {"operation": "lookup", "clients": 64}),
    (
        "lookup, 64 in flight of one client",
        "in_flight",
        "kvzmq",
        "router-echo",
        {"operation": "lookup", "in_flight": 64},
    ),
    (
        "insert, 64 in flight of one client",
        "in_flight",
        "kvzmq",
        "router-echo",
        {"operation": "insert", "in_flight": 64},
    ),
)
"""Work, its experiment, kvzmq's contender, the echo that bounds it, and which rows are meant."""


def write(results: Results) -> str:
    """Compare with what the parts alone can do."""
    parts = []
    sentences = []
    if results.has("limits"):
        rows = []
        for what in sorted(
            results.values("limits", "what"), key=lambda what: results.median("limits", "bytes", what=what)
        ):
            for how in HOW:
                wanted = {"what": what, "how": how}
                rows.append(
                    [
                        what, how, rate(results.median("limits", "bytes", **wanted)),
                        rate(results.median("limits", "syncs_per_s", **wanted)),
                        spread_of(results.spread("limits", "syncs_per_s", **wanted)),
                        decimal(results.median("limits", "bytes_per_s", **wanted) / 1e6, 1),
                        *(
                            milliseconds(results.median("limits", field, **wanted))
                            for field in ("p50_ms", "p99_ms", "p999_ms")
                        ),
                    ]
                )  # fmt: skip
        parts += [
            paragraph(
                "The disk alone: writes with an fdatasync each, as long as what kvzmq commits at once; into a"
                " file that grows (`append`),",
                "one that only has its length (`preallocated`), or one that is full of zeros, as kvzmq's log is"
                " (`overwrite`):",
            ),
            table(
                ("as long as", "file", "bytes", "syncs/s", "rounds", "MB/s", "p50 ms", "p99 ms", "p99.9 ms"),
                rows,
                left=2,
            ),
        ]
        sentences += _on_disk(results)
    rows = []
    for what, experiment, ours, theirs, which in _ECHOED:
        mine: dict[str, object] = {"contender": ours, **which}
        bare: dict[str, object] = {"contender": theirs, **which}
        ratio = results.ratio(experiment, "ops_per_s", mine, bare)
        if ratio.known:
            costs = [results.median(experiment, "server_cpu_us_per_op", **each) for each in (mine, bare)]
            rates = [rate(results.median(experiment, "ops_per_s", **each)) for each in (mine, bare)]
            rows.append(
                [
                    what,
                    *rates,
                    decimal(ratio.median),
                    f"{ratio.least:.2f} to {ratio.greatest:.2f}",
                    *(decimal(cost, 1) for cost in costs),
                ]
            )
    if rows:
        parts += [
            paragraph(
                "The transports alone: echoes in Python that decode nothing (ROUTER) or one line of JSON"
                " (epoll). The ROUTER echo's clients send a lookup's frames over the same kind of socket as",
                "kvzmq's and do not look into what comes back; nor do those with no client above, which ask kvzmq.",
                "An echo is a bound only where its processor is full; else a server with a table may come out ahead.",
            ),
            table(("work", "kvzmq/s", "echo/s", "ratio", "rounds", "server us/op", "echo us/op"), rows),
        ]
        sentences += _on_echoes(results)
    return "\n\n".join([*parts, paragraph(*sentences)]) if parts else ""


def _on_disk(results: Results) -> list[str]:
    sentences = []
    single = results.median("clients", "ops_per_s", contender="kvzmq", operation="insert", clients=1)
    prepared = results.median("limits", "syncs_per_s", what="1 insert", how="overwrite")
    if single < prepared:
        sentences.append(
            f"One blocking client makes {rate(single)} inserts/s over ROUTER; the disk alone syncs"
            f" {rate(prepared)} such writes a second into a file of zeros:"
            f" of an insert's {1e3 / single:.2f} ms it takes {1e3 / prepared:.2f} ms."
        )
    for what in sorted(results.values("limits", "what"), key=lambda what: results.median("limits", "bytes", what=what)):
        gain = results.ratio(
            "limits", "syncs_per_s", {"what": what, "how": "overwrite"}, {"what": what, "how": "append"}
        )
        if gain.known:
            length = results.median("limits", "bytes", what=what)
            sentences.append(
                f"Writing {length:,.0f} bytes at a time, a file full of zeros allows {times(gain.median)} as many syncs"
                f" as a file that grows ({gain.least:.1f} to {gain.greatest:.1f})."
            )
    batched = results.median("batches", "ops_per_s", contender="kvzmq", operation="insert", batch=1000)
    disk = results.median("limits", "bytes_per_s", what="1,000 batched rows", how="overwrite")
    if not math.isnan(batched) and not math.isnan(disk):
        sentences.append(
            f"Batches of 1,000 rows write {batched * LOG_BYTES_PER_BATCHED_ROW / 1e6:.0f} MB/s into the log;"
            f" the disk alone takes {disk / 1e6:.0f} MB/s in pieces of that length."
        )
    return sentences


def _on_echoes(results: Results) -> list[str]:
    ratio = results.ratio(
        "in_flight", "ops_per_s", {"contender": "kvzmq", "operation": "insert", "in_flight": 64},
        {"contender": "router-echo", "operation": "insert", "in_flight": 64},
    )  # fmt: skip
    own = results.ratio(
        "in_flight", "ops_per_s", {"contender": "kvzmq", "operation": "insert", "in_flight": 64},
        {"contender": "kvzmq", "operation": "lookup", "in_flight": 64},
    )  # fmt: skip
    sentences = []
    if ratio.known:
        inserts = results.median("in_flight", "ops_per_s", contender="kvzmq", operation="insert", in_flight=64)
        sentences.append(
            f"64 unanswered single inserts of one client reach {rate(inserts)} durable inserts/s,"
            f" {ratio.median:.0%} of what a bare ROUTER does with frames it only sends back."
        )
    if own.median > 0.9:
        sentences.append(
            f"That is {own.median:.0%} of kvzmq's own lookups: with enough in flight the sync is hidden"
            " behind the work."
        )
    elif own.known:
        sentences.append(
            f"That is {own.median:.0%} of kvzmq's own lookups: the rest is the sync, and what a change costs"
            " beyond a lookup."
        )
    return sentences
