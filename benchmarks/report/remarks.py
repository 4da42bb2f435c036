"""What surprised, and what the figures do not show. A remark is made only where this run bears it."""

from __future__ import annotations

import math
from collections.abc import Callable

from benchmarks.report.names import BRIDGE, STAGES, cores, transports_of, zeromq_of
from benchmarks.report.text import bullets, join, times
from benchmarks.results import Results, number, spread


def surprises(results: Results) -> str:
    """List what one would not have guessed."""
    return bullets([make(results) for make in _SURPRISES]) or "Nothing."


def _bridge_beats_router(results: Results) -> str:
    wanted = {"contender": "kvzmq", "operation": "lookup", "client": "sum", "clients": 1}
    bridge, zeromq = ({**wanted, "transport": way} for way in (BRIDGE, zeromq_of(results)))
    ratio = results.ratio("testperf", "ops_per_s", bridge, zeromq)
    if not ratio.least > 1.1:
        return ""
    costs = [
        sum(
            results.median("clients", f"{side}_cpu_us_per_op", contender=name, operation="lookup", clients=1)
            for side in ("server", "client")
        )
        for name in ("kvzmq-bridge", "kvzmq")
    ]
    cost = (
        f": a lookup costs server and client together {costs[0]:.0f} us there and {costs[1]:.0f} us here"
        if costs[0] < costs[1]
        else ""
    )
    return (
        f"For one blocking client plain lines of JSON are {times(ratio.median)} as fast as MessagePack over"
        f" ZeroMQ{cost}."
    )


def _mset(results: Results) -> str:
    ratio = results.ratio(
        "batches",
        "ops_per_s",
        {"contender": "redis-many", "operation": "insert", "batch": 1000},
        {"contender": "redis", "operation": "insert", "batch": 1000},
    )
    if not ratio.least > 2:
        return ""
    costs = []
    for side in ("client", "server"):
        pipeline, many = (
            results.median("batches", f"{side}_cpu_us_per_op", contender=name, operation="insert", batch=1000)
            for name in ("redis", "redis-many")
        )
        costs.append(f"{pipeline:.1f} instead of {many:.1f} us")
    return (
        f"A thousand rows in one MSET go into Redis {times(ratio.median)} as fast as in a pipeline of a"
        " thousand SETs, which is what people write:"
        f" a row costs the Python client {costs[0]}, and Redis {costs[1]}."
    )


def _file_growth(results: Results) -> str:
    ratio = results.ratio(
        "limits", "syncs_per_s", {"what": "1 insert", "how": "overwrite"}, {"what": "1 insert", "how": "append"}
    )
    if not ratio.least > 1.15:
        return ""
    return (
        "A sync of a hundred bytes costs less over zeros written before than at the end of a file that"
        f" grows: {times(ratio.median)} as many a second."
    )


def _sqlite(results: Results) -> str:
    lookups = results.ratio(
        "clients",
        "ops_per_s",
        {"contender": "sqlite", "operation": "lookup", "clients": 1},
        {"contender": "redis-memory", "operation": "lookup", "clients": 1},
    )
    if not lookups.least > 2:
        return ""
    return (
        "For reads from one machine no server comes near a library: SQLite answers a lookup"
        f" {times(lookups.median)} as fast as Redis does over"
        " loopback. A server earns its place with several writers at once, with several machines, or with watches."
    )


def _fewer_with_more(results: Results) -> str:
    worst = (1.0, "", "", 0, 0)
    for transport, name in transports_of(results).items():
        for stage in STAGES:
            counts = results.numbers("testperf", "clients", contender="kvzmq", transport=transport)
            sums = {
                count: results.median(
                    "testperf",
                    "ops_per_s",
                    contender="kvzmq",
                    transport=transport,
                    clients=count,
                    operation=stage,
                    client="sum",
                )
                for count in counts
            }
            if len(sums) > 1:
                best = max(sums, key=lambda count: sums[count])
                worst = min(worst, (sums[counts[-1]] / sums[best], stage, name, best, counts[-1]))
    share, stage, name, best, last = worst
    if share > 0.8:
        return ""
    return (
        f"More clients can make less together: {stage} over {name} falls to {share:.0%} of its best sum"
        f" between {best} and {last} clients."
    )


def _two_beat_one(results: Results) -> str:
    found = []
    for transport, name in transports_of(results).items():
        for stage in STAGES:
            wanted = {"contender": "kvzmq", "transport": transport, "operation": stage, "client": "sum"}
            ratio = results.ratio("testperf", "ops_per_s", {**wanted, "clients": 2}, {**wanted, "clients": 1})
            if ratio.least > 2:
                found.append(f"{stage} over {name} ({times(ratio.median)})")
    if not found:
        return ""
    return (
        f"Two clients make more than twice of what one makes: {join(found)}. Each is faster than a lone one,"
        " which lets the processors"
        " sleep between its requests; waking them takes time. That is the likely reason, not a measured one."
    )


def _processes_share_less(results: Results) -> str:
    wanted = {"contender": "kvzmq", "clients": 64, "operation": "insert"}
    way = zeromq_of(results)
    processes = results.median("testperf", "changes_per_sync", transport=way, client="sum", **wanted)
    connections = results.median("group_commit", "changes_per_sync", **wanted)
    if not connections > 2 * processes:
        return ""
    return (
        f"64 processes share a sync among {processes:.1f} inserts over {transports_of(results)[way]}, 64"
        f" connections of a single process among {connections:.0f}:"
        " with so few processors the processes do not get to send their requests while the disk works; one event"
        " loop has sent them all."
    )


def _in_flight(results: Results) -> str:
    own = results.ratio(
        "in_flight",
        "ops_per_s",
        {"contender": "kvzmq", "operation": "insert", "in_flight": 64},
        {"contender": "kvzmq", "operation": "lookup", "in_flight": 64},
    )
    if not own.least > 0.9:
        return ""
    return f"With 64 in flight durable inserts run at {own.median:.0%} of the rate of lookups, which sync nothing."


_SURPRISES: tuple[Callable[[Results], str], ...] = (
    _bridge_beats_router,
    _in_flight,
    _mset,
    _file_growth,
    _sqlite,
    _two_beat_one,
    _fewer_with_more,
    _processes_share_less,
)


def caveats(results: Results) -> str:
    """Say what must not be read into the figures."""
    noise = _noise(results)
    sync_ms = results.median("limits", "p50_ms", what="1 insert", how="overwrite")
    remarks = [
        "Everything ran on one machine over loopback. A network adds its latency to every single operation, and"
        " hides less and less of it"
        " as more is in flight; nothing here says how much.",
        f"Clients and server share {cores(results)} processors. With several clients a good part of a figure is"
        " the clients' own Python:"
        " on separate machines the server would reach more, and contenders with costly clients would gain most.",
        f"The disk answers an fdatasync in {sync_ms:.2f} ms (median). What it promises by that, this suite"
        " cannot test; on a slower disk"
        " the gain of group commit is larger and single inserts are slower, on one with power-loss protection"
        " it is the other way round."
        if not math.isnan(sync_ms)
        else "",
        "All loads are closed loops: a slow answer delays the next question, so that queueing under a given"
        " arrival rate is not shown.",
        f"The rounds of one figure lie {noise[0]:.0%} apart for the middle one of all figures, and {noise[1]:.0%} or"
        " more for a tenth of them:"
        " differences smaller than that mean nothing unless every round shows them."
        if noise
        else "",
        "The peers are run with their defaults but for the promise, by their usual Python clients. Other"
        " clients, and tuning, move them:"
        " the processor times a server spends on an operation say more about the server than the rates do.",
    ]
    return bullets(remarks)


def _noise(results: Results) -> tuple[float, float] | None:
    widths = []
    for experiment, wanted in (
        ("clients", {}),
        ("sockets", {}),
        ("batches", {}),
        ("in_flight", {}),
        ("testperf", {"client": "sum"}),
    ):
        groups: dict[tuple[str | None, ...], list[float]] = {}
        for row in results.rows(experiment, **wanted):
            names = ("contender", "operation", "transport", "clients", "in_flight", "batch")
            groups.setdefault(tuple(row.get(name) for name in names), []).append(number(row, "ops_per_s"))
        for figures in groups.values():
            found = spread(figures)
            if found.rounds > 1:
                widths.append((found.greatest - found.least) / found.median)
    if not widths:
        return None
    widths.sort()
    return widths[len(widths) // 2], widths[len(widths) * 9 // 10]
