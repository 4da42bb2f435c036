"""What surprised, and what the figures do not show. A remark is made only where this run bears it."""

from __future__ import annotations

import math
from collections.abc import Callable

from benchmarks.many_clients import STAGES, TRANSPORTS, cores
from benchmarks.results import Results, number, spread
from benchmarks.text import paragraph, times


def surprises(results: Results) -> str:
    """List what one would not have guessed."""
    found = [remark for make in _SURPRISES if (remark := make(results))]
    return "\n\n".join(f"  * {paragraph(remark)}".replace("\n", "\n    ") for remark in found) or "Nothing."


def _bridge_beats_router(results: Results) -> str:
    wanted = {"contender": "kvzmq", "operation": "lookup", "client": "sum", "clients": 1}
    ratio = results.ratio("testperf", "ops_per_s", {**wanted, "transport": "bridge"}, {**wanted, "transport": "dealer"})
    if not ratio.least > 1.1:
        return ""
    return (
        f"For one blocking client plain JSON lines are {times(ratio.median)} as fast as MessagePack over ZeroMQ. A single request has nobody to"
        " share libzmq's hand-overs between threads with; the encoding hardly matters."
    )


def _mset(results: Results) -> str:
    ratio = results.ratio(
        "batches", "ops_per_s", {"contender": "redis-many", "operation": "insert", "batch": 1000}, {"contender": "redis", "operation": "insert", "batch": 1000}
    )
    if not ratio.least > 2:
        return ""
    return (
        f"A thousand rows in one MSET go into Redis {times(ratio.median)} as fast as in a pipeline of a thousand SETs. The pipeline is what people"
        " write, and its price is paid in the Python client, not in Redis."
    )


def _file_growth(results: Results) -> str:
    ratio = results.ratio("limits", "syncs_per_s", {"what": "1 insert", "how": "preallocated"}, {"what": "1 insert", "how": "append"})
    if not ratio.least > 1.15:
        return ""
    return f"A sync costs less when the file does not grow: {times(ratio.median)} as many a second in a preallocated file."


def _sqlite(results: Results) -> str:
    lookups = results.ratio(
        "clients", "ops_per_s", {"contender": "sqlite", "operation": "lookup", "clients": 1}, {"contender": "redis-memory", "operation": "lookup", "clients": 1}
    )
    if not lookups.least > 2:
        return ""
    return (
        f"For reads from one machine no server comes near a library: SQLite answers a lookup {times(lookups.median)} as fast as Redis does over"
        " loopback. A server earns its place with writers, with several machines, or with watches."
    )


def _fewer_with_more(results: Results) -> str:
    worst = (1.0, "", "", 0, 0)
    for transport, name in TRANSPORTS.items():
        for stage in STAGES:
            counts = results.numbers("testperf", "clients", contender="kvzmq", transport=transport)
            sums = {
                count: results.median("testperf", "ops_per_s", contender="kvzmq", transport=transport, clients=count, operation=stage, client="sum")
                for count in counts
            }
            if len(sums) > 1:
                best = max(sums, key=lambda count: sums[count])
                worst = min(worst, (sums[counts[-1]] / sums[best], stage, name, best, counts[-1]))
    share, stage, name, best, last = worst
    if share > 0.8:
        return ""
    return f"More clients can make less together: {stage} over {name} falls to {share:.0%} of its best sum between {best} and {last} clients."


def _in_flight(results: Results) -> str:
    own = results.ratio(
        "in_flight", "ops_per_s", {"contender": "kvzmq", "operation": "insert", "in_flight": 64}, {"contender": "kvzmq", "operation": "lookup", "in_flight": 64}
    )
    if not own.least > 0.9:
        return ""
    return f"With 64 in flight durable inserts run at {own.median:.0%} of the rate of lookups, which sync nothing."


_SURPRISES: tuple[Callable[[Results], str], ...] = (_bridge_beats_router, _in_flight, _mset, _file_growth, _sqlite, _fewer_with_more)


def caveats(results: Results) -> str:
    """Say what must not be read into the figures."""
    noise = _noise(results)
    sync_ms = results.median("limits", "p50_ms", what="1 insert", how="append")
    remarks = [
        "Everything ran on one machine over loopback. A network adds its latency to every single operation, and hides less and less of it"
        " as more is in flight; nothing here says how much.",
        f"Clients and server share {cores(results)} processors. With several clients a good part of a figure is the clients' own Python:"
        " on separate machines the server would reach more, and contenders with costly clients would gain most.",
        f"The disk answers an fdatasync in {sync_ms:.2f} ms (median). What it promises by that, this suite cannot test; on a slower disk"
        " the gain of group commit is larger and single inserts are slower, on one with power-loss protection it is the other way round."
        if not math.isnan(sync_ms)
        else "",
        "All loads are closed loops: a slow answer delays the next question, so that queueing under a given arrival rate is not shown.",
        f"The rounds of one figure lie {noise[0]:.0%} apart in the middle of all figures, and {noise[1]:.0%} in the worst tenth: differences"
        " smaller than that are none."
        if noise
        else "",
        "The peers are run with their defaults but for the promise, by their usual Python clients. Other clients, and tuning, move them:"
        " the processor times a server spends on an operation say more about the server than the rates do.",
    ]
    return "\n\n".join(f"  * {paragraph(remark)}".replace("\n", "\n    ") for remark in remarks if remark)


def _noise(results: Results) -> tuple[float, float] | None:
    widths = []
    for experiment in ("clients", "sockets", "batches", "in_flight"):
        groups: dict[tuple[str, ...], list[float]] = {}
        for row in results.rows(experiment):
            groups.setdefault(tuple(row[name] for name in ("contender", "operation", "clients", "in_flight", "batch")), []).append(number(row, "ops_per_s"))
        for figures in groups.values():
            found = spread(figures)
            if found.rounds > 1:
                widths.append((found.greatest - found.least) / found.median)
    if not widths:
        return None
    widths.sort()
    return widths[len(widths) // 2], widths[len(widths) * 9 // 10]


