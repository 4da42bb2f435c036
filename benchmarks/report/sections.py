"""The report's sections, in order: each makes its text from the figures, or None when there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.report import comparison, growing, many_clients, remarks
from benchmarks.report.targets import TARGETS, Target, format_figure
from benchmarks.report.text import join, paragraph, table
from benchmarks.results import Results
from benchmarks.run import watches

Section = Callable[[Results], str]


def preface(plots: Sequence[str]) -> str:
    """Say what this is and how to read it."""
    text = paragraph(
        "This file is written by `make report`, from figures that program has measured: benchmarks/results/*.csv.",
        "Figures are medians over the rounds of a run; contenders took turns within each round.",
        "A ratio of two contenders is the median of the rounds' ratios, which is not the ratio of the medians.",
        "A change counts when it is on the disk, unless a table says otherwise.",
    )
    return text + (f"\n\nPlots: {', '.join(plots)}" if plots else "")


def machine(results: Results) -> str:
    """List the facts about the machine."""
    facts = results.rows("machine")
    if not facts:
        return ""
    lines = [[row["fact"], row["value"]] for row in facts]
    disk = results.spread("limits", "syncs_per_s", what="1 insert", how="append")
    if disk.known:
        p50 = results.median("limits", "p50_ms", what="1 insert", how="append")
        p999 = results.median("limits", "p999_ms", what="1 insert", how="append")
        lines.append(
            ["fdatasync", f"{disk.median:,.0f}/s after an append of 100 bytes; p50 {p50:.3f} ms, p99.9 {p999:.2f} ms"]
        )
    wide = max(len(name) for name, _ in lines)
    return "\n".join(f"    {name.ljust(wide)}  {value}" for name, value in lines)


def aims(results: Results) -> str:
    """Set what was aimed for beside what came out."""
    verdicts = [target.verdict(results) for target in TARGETS]
    measured = [verdict for verdict in verdicts if verdict != "not measured"]
    if not measured:
        return ""
    met = sum(verdict.startswith("met") for verdict in measured)
    narrow = sum("disagree" in verdict for verdict in measured)
    header, rule, *lines = table(
        ("aim", "bound", "median", "rounds", "verdict"),
        [_aim(number, target, results) for number, target in enumerate(TARGETS, start=1)],
    ).splitlines()
    beneath = [f"        against {_against(target, results)}" for target in TARGETS]
    return "\n\n".join(
        [
            paragraph(
                f"Of {len(measured)} aims that were measured, {met} are met.",
                f"In {narrow} the rounds do not agree: another run may say otherwise."
                if narrow
                else "The rounds agree on all of them.",
            ),
            "\n".join([header, rule, *(line for pair in zip(lines, beneath) for line in pair)]),
            paragraph(
                "To measure one again: `python -m benchmarks.run --only NAME`, where NAME is",
                join(
                    [f"{name} (aim{'s' if ',' in numbers else ''} {numbers})" for name, numbers in _commands().items()]
                )
                + ".",
                "Where the time goes in those that are missed: docs/design.md." if met < len(measured) else "",
            ),
        ]
    )


def _commands() -> dict[str, str]:
    found: dict[str, list[int]] = {}
    for number, target in enumerate(TARGETS, start=1):
        found.setdefault(target.experiment, []).append(number)
    return {name: ", ".join(map(str, numbers)) for name, numbers in found.items()}


def _aim(number: int, target: Target, results: Results) -> list[str]:
    found = target.measure(results)
    bound = f"{'<=' if target.at_most else '>='} {target.bound:,g}{target.unit}"
    median, least, greatest = (format_figure(target, figure) for figure in (found.median, found.least, found.greatest))
    rounds = f"{least} to {greatest}, {found.rounds}" if found.rounds > 1 else "1" if found.known else "-"
    return [f"{number:2}  {target.work}", bound, median, rounds, target.verdict(results)]


def _against(target: Target, results: Results) -> str:
    figures = target.figures(results) if target.unit == "x" else ""
    return f"{target.against}{': ' if figures else ''}{figures}"


SECTIONS: tuple[tuple[str, Section], ...] = (
    ("The machine", machine),
    ("The aims, and what this run says", aims),
    ("The question: one client, then ever more at once", many_clients.write),
    ("What group commit changes", many_clients.group_commit),
    ("What the bridge costs or saves against ROUTER", many_clients.transports),
    ("Beside what people use instead", comparison.write),
    ("Limits: what the disk, ROUTER and epoll give with no table behind them", comparison.limits),
    ("Latency", comparison.latency),
    ("Watches", watches.write),
    ("Growth: rows, memory, recovery, queries", growing.write),
    ("Compaction", growing.compaction),
    ("What surprised", remarks.surprises),
    ("What these figures do not show", remarks.caveats),
    ("Every client's figures", many_clients.every_client),
)
"""The sections, in order."""
