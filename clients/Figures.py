"""What the measuring programs say about latencies, and how they print it.  No clock, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

NS_PER_MS = 1_000_000


class Latency(NamedTuple):
    """The distribution of some latencies, in milliseconds; NaN where there were none."""

    min_ms: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float


def summarize(latencies_ns: Sequence[int]) -> Latency:
    """Describe latencies given in nanoseconds, in any order."""
    if not latencies_ns:
        return Latency(*[math.nan] * len(Latency._fields))
    ordered = sorted(latencies_ns)
    picked = (
        ordered[0],
        sum(ordered) / len(ordered),
        percentile(ordered, 50),
        percentile(ordered, 99),
        ordered[-1],
    )
    return Latency(*(ns / NS_PER_MS for ns in picked))


def percentile(ordered: Sequence[int], percent: float) -> int:
    """Return the least of the sorted values that at least `percent` % of them do not exceed (nearest rank).

    A value that occurred, never one in between: a p99 of few values is then their worst, not a flattering mix.
    """
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def format_ms(value_ms: float) -> str:
    """Write milliseconds to the microsecond, or a dash when there is nothing to say."""
    return "-" if math.isnan(value_ms) else f"{value_ms:.3f}"


def format_rate(per_second: float) -> str:
    """Write a rate as a whole number, or a dash when there is nothing to say."""
    return "-" if math.isnan(per_second) else f"{per_second:,.0f}"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under their header: the first column to the left, the numbers to the right.

    An empty row stays an empty line, to set groups apart.
    """
    columns = zip(header, *(row for row in rows if row), strict=True)
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(_format_row(row, widths) for row in (header, *rows))


def _format_row(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=False))
    )
    return "  ".join(cells).rstrip()
