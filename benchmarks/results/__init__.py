"""The raw figures: one CSV file for each experiment, a line as soon as it is measured.

An interrupted run leaves what it has measured. Cells are text; `number` reads one. A contender that was measured over
another transport than its usual one is read as another contender, `kvzmq, pyzmq`, so that their figures never mix.
Files from before kvzmq's client had a socket of its own have no column `transport`: all of it was libzmq's DEALER.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

DIRECTORY = Path(__file__).parent

OVER = ", "
"""Between a contender's name and its transport."""

USUAL_TRANSPORT = "plain socket"
"""What kvzmq's client speaks ZMTP over unless it is told otherwise."""

PYZMQ = "pyzmq"
"""A DEALER socket of libzmq's."""

_TRANSPORT_APART = ("testperf", "sockets", "in_flight", "group_commit")
"""Experiments whose column `transport` makes no other contender: TestPerf's asks for it by that column, and the load of
the others has one transport only."""

Row = dict[str, str]


class Spread(NamedTuple):
    """The rounds' figures: their median, and how far they lie apart."""

    median: float
    least: float
    greatest: float
    rounds: int

    @property
    def known(self) -> bool:
        """Whether there was anything to take a median of."""
        return not math.isnan(self.median)


NONE = Spread(math.nan, math.nan, math.nan, 0)


def spread(figures: Iterable[float]) -> Spread:
    """Describe the rounds' figures; those that are NaN do not count."""
    known = [figure for figure in figures if not math.isnan(figure)]
    if not known:
        return NONE
    return Spread(statistics.median(known), min(known), max(known), len(known))


def number(row: Mapping[str, str], field: str) -> float:
    """Return a cell as a number; NaN where there is none."""
    try:
        return float(row.get(field) or math.nan)
    except ValueError:
        return math.nan


class Writer:
    """Writes one experiment's file, replacing an older one.

    Args:
        fields: the columns
    """

    def __init__(self, directory: Path, name: str, fields: Sequence[str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = (directory / f"{name}.csv").open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, fields, restval="", lineterminator="\n")
        self._writer.writeheader()
        self._file.flush()

    def add(self, **row: Any) -> None:
        """Write a line; numbers with as many digits as mean something."""
        self._writer.writerow({name: _cell(value) for name, value in row.items()})
        self._file.flush()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else str(value)


def _named(experiment: str, row: Row) -> Row:
    transport = row.get("transport")
    if not transport or transport == USUAL_TRANSPORT or experiment in _TRANSPORT_APART:
        return row
    return {**row, "contender": row["contender"] + OVER + transport}


class Results:
    """All figures of a run, read from its directory."""

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, list[Row]] = {}
        for path in sorted(directory.glob("*.csv")):
            with path.open(newline="", encoding="utf-8") as file:
                self._files[path.stem] = [_named(path.stem, row) for row in csv.DictReader(file)]

    def rows(self, experiment: str, **wanted: object) -> list[Row]:
        """Return an experiment's rows that hold what is wanted; none if it was not measured."""
        return [
            row
            for row in self._files.get(experiment, ())
            if all(row.get(field) == str(value) for field, value in wanted.items())
        ]

    def has(self, experiment: str) -> bool:
        """Say whether an experiment gave any figures."""
        return bool(self._files.get(experiment))

    def names_transport(self, experiment: str) -> bool:
        """Say whether an experiment's figures name the transport of kvzmq's client."""
        return any(row.get("transport") for row in self.rows(experiment))

    def values(self, experiment: str, field: str, **wanted: object) -> list[str]:
        """Return the different contents of a column, in order of their first appearance."""
        return list(dict.fromkeys(row[field] for row in self.rows(experiment, **wanted) if row.get(field)))

    def numbers(self, experiment: str, field: str, **wanted: object) -> list[int]:
        """Return the different whole numbers in a column, sorted."""
        return sorted({int(float(value)) for value in self.values(experiment, field, **wanted)})

    def spread(self, experiment: str, field: str, **wanted: object) -> Spread:
        """Return the rounds' spread of one figure."""
        return spread(number(row, field) for row in self.rows(experiment, **wanted))

    def median(self, experiment: str, field: str, **wanted: object) -> float:
        """Return the median over the rounds of one figure; NaN if it was not measured."""
        return self.spread(experiment, field, **wanted).median

    def by_round(self, experiment: str, field: str, **wanted: object) -> dict[str, float]:
        """Return one figure by round: the median if a round has several."""
        found: dict[str, list[float]] = {}
        for row in self.rows(experiment, **wanted):
            found.setdefault(row.get("round", ""), []).append(number(row, field))
        return {name: spread(figures).median for name, figures in found.items()}

    def ratio(self, experiment: str, field: str, ours: Mapping[str, object], theirs: Mapping[str, object]) -> Spread:
        """Return the spread of the rounds' ratios of one figure of two contenders."""
        return ratio_of(self.by_round(experiment, field, **ours), self.by_round(experiment, field, **theirs))


def ratio_of(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Spread:
    """Return the spread of the ratios of what two contenders gave in the same rounds."""
    return spread(ours[name] / theirs[name] for name in ours if theirs.get(name))
