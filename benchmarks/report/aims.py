"""The section that sets what was aimed for beside what came out."""

from __future__ import annotations

from benchmarks.report.names import remark_on_transport
from benchmarks.report.targets import TARGETS, Target, format_figure
from benchmarks.report.text import join, paragraph, table
from benchmarks.results import Results


def write(results: Results) -> str:
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
                remark_on_transport(results),
            ),
            "\n".join([header, rule, *(line for pair in zip(lines, beneath) for line in pair)]),
            paragraph(
                "To measure one again: `python -m benchmarks.run --only NAME`, where NAME is",
                join(
                    [f"{name} (aim{'s' if ',' in numbers else ''} {numbers})" for name, numbers in _commands().items()]
                )
                + ".",
                "Where the time goes in those that are missed: docs/performance.md." if met < len(measured) else "",
            ),
        ]
    )


def _commands() -> dict[str, str]:
    found: dict[str, list[int]] = {}
    for number, target in enumerate(TARGETS, start=1):
        found.setdefault(target.source.experiment, []).append(number)
    return {name: ", ".join(map(str, numbers)) for name, numbers in found.items()}


def _aim(number: int, target: Target, results: Results) -> list[str]:
    found = target.source.measure(results)
    bound = f"{'<=' if target.at_most else '>='} {target.bound:,g}{target.unit}"
    median, least, greatest = (format_figure(target, figure) for figure in (found.median, found.least, found.greatest))
    rounds = f"{least} to {greatest}, {found.rounds}" if found.rounds > 1 else "1" if found.known else "-"
    return [f"{number:2}  {target.work}", bound, median, rounds, target.verdict(results)]


def _against(target: Target, results: Results) -> str:
    figures = target.source.figures(results) if target.unit == "x" else ""
    return f"{target.against}{': ' if figures else ''}{figures}"
