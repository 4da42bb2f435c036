"""What `kvzmq bench --report FILE` writes: a Markdown file with tables, and plots beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvzmq import __version__
from kvzmq.bench import machine
from kvzmq.bench.outcome import LATENCY_COLUMNS, Outcome, latency_row


def write_report(path: Path, outcomes: Sequence[Outcome], settings: Mapping[str, str]) -> list[Path]:
    """Write the report, and the plots if matplotlib is there. Returns the files written."""
    plots = _write_plots(path, outcomes)
    text = "\n\n".join(
        [
            f"# kvzmq bench, {time.strftime('%Y-%m-%d')}",
            _facts({"kvzmq": __version__, **machine.describe(Path.cwd()), **settings}),
            "The machine is the client's. Writes are durable when they are answered.",
            *(f"![{plot.stem}]({plot.name})" for plot in plots),
            "## Operations per second by number of clients",
            _rates(outcomes),
            *(part for test in _tests(outcomes) for part in _latencies(test, outcomes)),
        ]
    )
    path.write_text(text + "\n", encoding="utf-8")
    return [path, *plots]


def _tests(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(outcome.test for outcome in outcomes))


def _counts(outcomes: Sequence[Outcome]) -> list[int]:
    return sorted({outcome.clients for outcome in outcomes})


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---:"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _rates(outcomes: Sequence[Outcome]) -> str:
    rates = {(outcome.clients, outcome.test): f"{outcome.measured.ops_per_s:,.0f}" for outcome in outcomes}
    tests = _tests(outcomes)
    return _table(
        ["clients", *tests], [[str(count), *(rates[count, test] for test in tests)] for count in _counts(outcomes)]
    )


def _latencies(test: str, outcomes: Sequence[Outcome]) -> list[str]:
    rows = [
        [str(outcome.clients), *(f"{ms:.3f}" for ms in latency_row(outcome.latency))]
        for outcome in outcomes
        if outcome.test == test
    ]
    return [f"## Latency of {test}, milliseconds", _table(["clients", *LATENCY_COLUMNS], rows)]


_PLOTS: dict[str, tuple[str, Callable[[Outcome], float]]] = {
    "throughput": ("operations per second", lambda outcome: outcome.measured.ops_per_s),
    "latency": ("p99 latency, milliseconds", lambda outcome: outcome.latency.p99_ms),
}


def _write_plots(path: Path, outcomes: Sequence[Outcome]) -> list[Path]:
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("svg")
    from matplotlib import pyplot

    written = []
    for name, (label, figure_of) in _PLOTS.items():
        figure, axes = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
        for test in _tests(outcomes):
            points = [(outcome.clients, figure_of(outcome)) for outcome in outcomes if outcome.test == test]
            axes.plot(*zip(*points), marker="o", label=test)
        _label(axes, _counts(outcomes), label)
        target = path.with_name(f"{path.stem}-{name}.svg")
        figure.savefig(target)
        pyplot.close(figure)
        written.append(target)
    return written


def _label(axes: Any, counts: Sequence[int], label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_yscale("log")
    axes.set_xlabel("clients at the same time")
    axes.set_ylabel(label)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
