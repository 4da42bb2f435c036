"""Figures over time, in columns of bounded length. No I/O.

A point has a number, which counts from 1 and never repeats, a time and values by name; the oldest points are dropped.
Whoever has seen the points up to a number asks for those after it. So nothing is queued for a reader, however slow: it
gets what is still there, and the first number tells it whether that is all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice

import msgspec

COLUMNS_MAX = 160
"""How many names there may be: 35 operations twice, and what else is shown."""

_DIGITS = 5
"""How many digits of a value are kept: a chart shows three."""


class Points(msgspec.Struct, frozen=True):
    """Some points in a row.

    first    the number of the first one, also if there is none
    times    seconds since 1970, one a point
    columns  the values by name, None where there was none
    """

    first: int
    times: list[float]
    columns: dict[str, list[float | None]]


class Ring:
    """The latest `points_max` points."""

    def __init__(self, points_max: int) -> None:
        self.points_max = points_max
        self.last = 0
        """The number of the latest point, 0 if there was none."""
        self._times: deque[float] = deque(maxlen=points_max)
        self._columns: dict[str, deque[float | None]] = {}

    def add(self, time_s: float, values: Mapping[str, float | None]) -> None:
        """Append a point. Names that are new were None before; beyond COLUMNS_MAX they are left out."""
        for name in values:
            if name not in self._columns and len(self._columns) < COLUMNS_MAX:
                self._columns[name] = deque([None] * len(self._times), maxlen=self.points_max)
        self._times.append(round(time_s, 2))
        self.last += 1
        for name, column in self._columns.items():
            value = values.get(name)
            column.append(None if value is None else _rounded(value))

    def after(self, number: int) -> Points:
        """Return the points after that of a number: all that are left, if some were dropped; none if it is the last."""
        kept = len(self._times)
        count = min(kept, max(0, self.last - number))
        start = kept - count
        return Points(
            self.last - count + 1,
            list(islice(self._times, start, None)),
            {name: list(islice(column, start, None)) for name, column in self._columns.items()},
        )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
