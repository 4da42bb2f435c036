"""Histograms with fixed bounds: adding to one costs the same whatever it holds, and two of them can be added up.

A value belongs to the first bound that it does not exceed, as in Prometheus. What is read from one is as exact as the
distance between two bounds, except the number of values, their sum and their maximum.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

TIMES_NS = tuple(factor * 10**power for power in range(3, 10) for factor in (1, 2, 5)) + (10**10,)
"""Bounds of times: 1, 2 and 5 us up to 5 s, and 10 s."""

COUNTS = tuple(factor * 10**power for power in range(4) for factor in (1, 2, 5)) + (10_000,)
"""Bounds of numbers: 1, 2, 5 up to 5,000, and 10,000."""


class Histogram:
    """How many values there were up to each bound; the last count is of those beyond all bounds."""

    __slots__ = ("bounds", "counts", "max", "sum")

    def __init__(self, bounds: Sequence[int] = TIMES_NS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0
        self.max = 0

    def add(self, value: int, times: int = 1) -> None:
        """Count a value, or several that are equal."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times
        if value > self.max:
            self.max = value

    def add_all(self, values: Iterable[int]) -> None:
        """Count many values: a sort in C costs each of them a sixth of `add`."""
        ordered = sorted(values)
        if not ordered:
            return
        below = 0
        for at, bound in enumerate(self.bounds):
            upto = bisect_right(ordered, bound, below)
            self.counts[at] += upto - below
            below = upto
        self.counts[-1] += len(ordered) - below
        self.sum += sum(ordered)
        self.max = max(self.max, ordered[-1])

    def merge(self, other: Histogram) -> None:
        """Count all that another one of the same bounds has counted."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts)]
        self.sum += other.sum
        self.max = max(self.max, other.max)

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return what `share` of the values did not exceed, between two bounds in proportion; 0 if there were none."""
        wanted = share * self.count
        seen = 0
        for at, count in enumerate(self.counts):
            if count and seen + count >= wanted:
                lower = self.bounds[at - 1] if at else 0
                upper = min(self.bounds[at], self.max) if at < len(self.bounds) else self.max
                return lower + max(0.0, (wanted - seen) / count) * max(0, upper - lower)
            seen += count
        return 0.0

    def describe_s(self) -> dict[str, Any]:
        """Return what it says of times in nanoseconds, as seconds; `buckets` are the counts by bound."""
        return {
            "count": self.count,
            "sum_s": self.sum / 1e9,
            "p50_s": round(self.quantile(0.5) / 1e9, 9),
            "p99_s": round(self.quantile(0.99) / 1e9, 9),
            "max_s": self.max / 1e9,
            "buckets": self.counts,
        }

    def describe(self) -> dict[str, Any]:
        """Return what it says of numbers; `buckets` are the counts by bound."""
        return {
            "count": self.count,
            "sum": self.sum,
            "p50": round(self.quantile(0.5), 1),
            "p99": round(self.quantile(0.99), 1),
            "max": self.max,
            "buckets": self.counts,
        }


class Windows:
    """A histogram of times as it was at first, lately, and in all.

    What a disk did when the server had just begun is what its later times are compared with.

    Args:
        first_min: how many values make a first time to compare with
    """

    def __init__(self, first_min: int) -> None:
        self._first_min = first_min
        self._past = Histogram()  # all but the current window
        self._previous = Histogram()
        self.current = Histogram()
        """The window that values are added to."""
        self.first: Histogram | None = None
        """The first windows that held enough values together, or None before they do."""

    def turn(self) -> None:
        """Begin the next window."""
        self._past.merge(self.current)
        if self.first is None and self._past.count >= self._first_min:
            self.first = Histogram()
            self.first.merge(self._past)
        self._previous, self.current = self.current, Histogram()

    def in_all(self) -> Histogram:
        """Return all values there were."""
        return _sum_of(self._past, self.current)

    def recent(self) -> Histogram:
        """Return the values of the current window and the one before."""
        return _sum_of(self._previous, self.current)


def _sum_of(*histograms: Histogram) -> Histogram:
    found = Histogram()
    for each in histograms:
        found.merge(each)
    return found
