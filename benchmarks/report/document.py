"""Writes REPORT, its plots, and the table in README.

    python -m benchmarks.report [--quick | --full] [--only NAME,...] [--from-results]


It measures first, unless told --from-results. The tables show medians over the rounds. No sentence of the
analysis is fixed: each is made from the figures beside it, or left out when they do not bear it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import readme, sections
from benchmarks.report.text import heading
from benchmarks.results import Results
from benchmarks.run import suite

TARGET = Path(__file__).resolve().parents[2] / "REPORT"
README = TARGET.parent / "README.md"
PLOTS = TARGET.parent / "docs"


def render(results: Results, plots: Sequence[str] = ()) -> str:
    """Return the text of the report."""
    parts = [heading("kvzmq: one client, and many at once", "="), sections.preface(plots)]
    for number, (title, write) in enumerate(sections.SECTIONS, start=1):
        body = write(results)
        parts += [heading(f"{number}. {title}"), body if body else "Not measured in this run."]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Measure, and write REPORT.")
    suite.add_options(parser)
    parser.add_argument(
        "--from-results", action="store_true", help="measure nothing, write from the CSV files that are there"
    )
    parser.add_argument("--output", metavar="FILE", type=Path, default=TARGET, help="the report")
    parser.add_argument("--plots", metavar="DIR", type=Path, default=PLOTS, help="where the plots go")
    options = parser.parse_args(arguments)
    failed: list[str] = []
    if not options.from_results:
        try:
            failed = suite.measure(options)
        except KeyboardInterrupt:
            print("interrupted: the report is made from what there is", file=sys.stderr)
    results = Results(options.results)
    options.output.write_text(render(results, _draw(results, options.plots, options.output)), encoding="utf-8")
    print(f"wrote {options.output}", file=sys.stderr)
    if options.output == TARGET and readme.update(README, results):
        print(f"wrote the table of {README}", file=sys.stderr)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _draw(results: Results, directory: Path, output: Path) -> list[str]:
    try:
        from benchmarks.report import plots
    except ImportError:
        print("no plots: matplotlib is not installed (pip install -e '.[bench]')", file=sys.stderr)
        return []
    written = plots.draw_all(results, directory)
    return [str(path.relative_to(output.parent)) if output.parent in path.parents else path.name for path in written]
