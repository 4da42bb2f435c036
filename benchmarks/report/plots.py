"""The plots, as SVG. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from benchmarks.report.names import BRIDGE, STAGES, measured, promise_of, title_of, transports_of
from benchmarks.results import Results, number
from benchmarks.run.peers import DURABLE, MEMORY, NOTHING

_MARKS = "os^Dv<>P*X"
matplotlib.rcParams.update(
    {"svg.fonttype": "none", "svg.hashsalt": "kvzmq", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3}
)


def draw_all(results: Results, directory: Path, suffix: str = ".svg") -> list[Path]:
    """Draw every plot there are figures for; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in _PLOTS.items():
        figure = draw(results)
        if figure is not None:
            path = directory / f"plot-{name}{suffix}"
            figure.savefig(path, metadata={"Date": None} if suffix == ".svg" else None)
            pyplot.close(figure)
            written.append(path)
    return written


def _by_clients(axes: Any, counts: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("clients at the same time")


def _line(axes: Any, points: Sequence[tuple[float, Any]], label: str, at: int) -> None:
    """Draw medians, with the range of the rounds as bars."""
    known = [(where, found) for where, found in points if found.known]
    if known:
        middles = [found.median for _, found in known]
        ranges = [
            [found.median - found.least for _, found in known],
            [found.greatest - found.median for _, found in known],
        ]
        axes.errorbar(
            [where for where, _ in known],
            middles,
            yerr=ranges,
            marker=_MARKS[at % len(_MARKS)],
            label=label,
            capsize=2,
            markersize=5,
        )


def _clients(results: Results) -> Any:
    ways = transports_of(results)
    if not ways:
        return None
    figure, (panels,) = pyplot.subplots(
        1, len(ways), figsize=(5.5 * len(ways), 5), layout="constrained", sharey=True, squeeze=False
    )
    for axes, (transport, name) in zip(panels, ways.items()):
        counts = results.numbers("testperf", "clients", contender="kvzmq", transport=transport)
        for at, stage in enumerate(STAGES):
            wanted = {"contender": "kvzmq", "transport": transport, "operation": stage, "client": "sum"}
            _line(
                axes,
                [(count, results.spread("testperf", "ops_per_s", clients=count, **wanted)) for count in counts],
                stage,
                at,
            )
        if transport == BRIDGE:
            wanted = {"contender": "one-sync", "operation": "insert", "client": "sum"}
            compared = results.numbers("testperf", "clients", contender="one-sync")
            _line(
                axes,
                [(count, results.spread("testperf", "ops_per_s", clients=count, **wanted)) for count in compared],
                "insert, a sync a change",
                5,
            )
        one = results.median(
            "testperf", "ops_per_s", contender="kvzmq", transport=transport, operation="lookup", client="sum", clients=1
        )
        axes.plot(
            counts,
            [count * one for count in counts],
            linestyle=":",
            color="gray",
            label="lookup, were each client as fast as a lone one",
        )
        _by_clients(axes, counts)
        axes.set_title(f"TestPerf over {name}")
    panels[0].set_ylim(0, 1.1 * _greatest(results))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    panels[0].set_ylabel("operations per second, all clients together\n(bars: from the least to the greatest round)")
    return figure


def _greatest(results: Results) -> float:
    return max(
        (number(row, "ops_per_s") for row in results.rows("testperf", client="sum") if row["ops_per_s"]), default=1.0
    )


def _group_commit(results: Results) -> Any:
    counts = results.numbers("group_commit", "clients")
    if not counts:
        return None
    figure, axes = pyplot.subplots(figsize=(6.5, 4.2), layout="constrained")
    for at, (contender, label) in enumerate(
        (("kvzmq", "one sync for all that arrived together"), ("kvzmq-one-by-one", "a sync for each insert"))
    ):
        _line(
            axes,
            [
                (count, results.spread("group_commit", "ops_per_s", contender=contender, clients=count))
                for count in counts
            ],
            label,
            at,
        )
    _by_clients(axes, counts)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("durable inserts per second")
    axes.legend()
    return figure


def _comparison(results: Results) -> Any:
    if not results.has("clients"):
        return None
    figure, panels = pyplot.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    for axes, operation in zip(panels, ("insert", "lookup")):
        found = {
            title_of(name): results.spread("clients", "ops_per_s", contender=name, operation=operation, clients=8)
            for name in results.values("clients", "contender", operation=operation)
        }
        order = sorted((name for name in found if found[name].known), key=lambda name: found[name].median)
        middles = [found[name].median for name in order]
        ranges = [
            [found[name].median - found[name].least for name in order],
            [found[name].greatest - found[name].median for name in order],
        ]
        places = range(len(order))
        promises = {title_of(name): promise_of(name) for name in results.values("clients", "contender")}
        # Points, not bars: a logarithmic axis has no zero for a bar to begin at.
        axes.errorbar(middles, places, xerr=ranges, fmt="none", ecolor="tab:gray", capsize=3)
        for promise, mark in ((DURABLE, "o"), (MEMORY, "s"), (NOTHING, "x")):
            of_it = [at for at, name in enumerate(order) if promises[name] == promise]
            colours = ["tab:orange" if order[at].startswith("kvzmq") else "tab:blue" for at in of_it]
            axes.scatter([middles[at] for at in of_it], of_it, c=colours, marker=mark, s=45, zorder=3, label=promise)
        axes.set_yticks(places, order)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda figure, _: f"{figure:,.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(f"{operation} operations per second, 8 blocking clients")
        axes.tick_params(axis="y", labelsize=8)
        axes.legend(fontsize=8)
    limits = [axes.get_xlim() for axes in panels]
    for axes in panels:  # one scale, so that the panels can be compared
        axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def _batches(results: Results) -> Any:
    sizes = results.numbers("batches", "batch")
    if not sizes:
        return None
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.4), layout="constrained", sharey=True)
    for axes, operation in zip(panels, ("insert", "lookup")):
        for at, contender in enumerate(results.values("batches", "contender")):
            points = [
                (size, results.spread("batches", "ops_per_s", contender=contender, operation=operation, batch=size))
                for size in sizes
            ]
            _line(axes, points, title_of(contender), at)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("rows in one request")
        axes.set_title(f"{operation}, one client")
        axes.legend(fontsize=8)
    panels[0].set_ylabel("rows per second")
    return figure


def _growth(results: Results) -> Any:
    sizes = results.numbers("growth", "rows")
    if not sizes:
        return None
    figure, axes = pyplot.subplots(figsize=(6.5, 4.2), layout="constrained")
    for at, operation in enumerate(("insert", "lookup", "remove")):
        points = [
            (size, results.spread("growth", "server_cpu_us_per_op", rows=size, operation=operation)) for size in sizes
        ]
        _line(axes, points, operation, at)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rows in the table")
    axes.set_ylabel("server's processor time, microseconds per operation")
    axes.legend()
    return figure


def _latency(results: Results) -> Any:
    fields = {"p50": "p50_ms", "p95": "p95_ms", "p99": "p99_ms", "p99.9": "p999_ms"}
    if not results.has("clients"):
        return None
    figure, axes = pyplot.subplots(figsize=(6.5, 4.2), layout="constrained")
    for at, contender in enumerate(
        measured(results, "clients", ("kvzmq", "kvzmq-bridge", "redis", "one-sync", "sqlite"))
    ):
        wanted = {"contender": contender, "operation": "insert", "clients": 8}
        spreads = [results.spread("clients", field, **wanted) for field in fields.values()]
        _line(axes, [(place + at / 25, found) for place, found in enumerate(spreads)], title_of(contender), at)
    axes.set_xticks(range(len(fields)), list(fields))
    axes.set_yscale("log")
    axes.set_xlabel("percentile of insert, 8 blocking clients")
    axes.set_ylabel("milliseconds")
    axes.legend(fontsize=8)
    return figure


_PLOTS: dict[str, Callable[[Results], Any]] = {
    "clients": _clients,
    "group-commit": _group_commit,
    "comparison": _comparison,
    "batches": _batches,
    "latency": _latency,
    "growth": _growth,
}
