"""Tables, bars and paragraphs in plain text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from benchmarks.results import Spread

WIDTH = 100
_BAR = 50


def rate(figure: float) -> str:
    """Write a rate as a whole number, a dash when there is none."""
    return "-" if math.isnan(figure) else f"{figure:,.0f}"


def decimal(figure: float, digits: int = 2) -> str:
    """Write a figure with so many digits after the point."""
    return "-" if math.isnan(figure) else f"{figure:,.{digits}f}"


def milliseconds(figure: float) -> str:
    """Write a latency with as many digits as mean something."""
    return "-" if math.isnan(figure) else f"{figure:.3f}" if figure < 10 else f"{figure:.1f}"


def spread_of(found: Spread) -> str:
    """Write how far the rounds lie apart, in percent of the median."""
    if not found.known or not found.median:
        return "-"
    return f"{found.least / found.median - 1:+.0%} {found.greatest / found.median - 1:+.0%}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lay out rows under their header: the first columns to the left, numbers to the right; an empty row is a gap."""
    filled = [row for row in rows if row]
    widths = [max(len(row[column]) for row in (header, *filled)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        return "    " + "  ".join(cells).rstrip() if row else ""

    rule = "    " + "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def bars(figures: Mapping[str, float], unit: str) -> str:
    """Draw a bar for each figure, from zero."""
    known = {label: figure for label, figure in figures.items() if not math.isnan(figure)}
    if not known:
        return "    (not measured)"
    wide, most = max(map(len, known)), max(known.values())
    return "\n".join(
        f"    {label.ljust(wide)}  {'#' * max(round(figure / most * _BAR), 0 if not figure else 1):<{_BAR}} "
        f" {rate(figure)} {unit}"
        for label, figure in known.items()
    )


def paragraph(*sentences: str) -> str:
    """Join sentences; those that are empty have nothing to say."""
    return textwrap.fill(" ".join(sentence for sentence in sentences if sentence), WIDTH, break_on_hyphens=False)


def bullets(remarks: Sequence[str]) -> str:
    """List remarks; those that are empty have nothing to say."""
    return "\n\n".join(f"  * {paragraph(remark)}".replace("\n", "\n    ") for remark in remarks if remark)


def heading(title: str, line: str = "-") -> str:
    """Underline a title."""
    return f"{title}\n{line * len(title)}"


def join(names: Sequence[str], last: str = "and") -> str:
    """Join names as a sentence does."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}" if names else ""


def times(ratio: float) -> str:
    """Write a ratio as a sentence needs it: 3.2 times, about as much, 40 % less are three ways to say it."""
    if math.isnan(ratio):
        return "not comparable"
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"
