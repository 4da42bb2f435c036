"""The latest rates of a server, one after the other, for lines and sparklines; None where there is a gap.

recent = Recent()
recent.add(snapshot)        each time the server has answered
recent.miss()               each time it has not
recent.latest               what happened between the last two answers, or None
recent.line("requests", 30) the last 30 values of a figure
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kvzmq.observing.rates import Rates, Snapshot, compare

KEPT_MAX = 600
"""How many rates are kept unless told otherwise: ten minutes of one a second."""

FIGURES: Mapping[str, Callable[[Rates, Snapshot], float]] = {
    "requests": lambda rates, _: rates.requests_per_s,
    "operations": lambda rates, _: rates.operations_per_s,
    "changes": lambda rates, _: rates.changes_per_s,
    "syncs": lambda rates, _: rates.syncs_per_s,
    "changes_per_sync": lambda rates, _: rates.changes_per_sync,
    "latency_p50": lambda rates, _: rates.latency.p50_s,
    "latency_p99": lambda rates, _: rates.latency.p99_s,
    "sync_p50": lambda rates, _: rates.sync.p50_s,
    "sync_p99": lambda rates, _: rates.sync.p99_s,
    "cpu": lambda rates, _: rates.cpu_share,
    "logged": lambda rates, _: rates.logged_bytes_per_s,
    "memory": lambda _, snapshot: snapshot.stats.get("resident_bytes") or 0.0,
    "log": lambda _, snapshot: snapshot.stats.get("log_bytes") or 0.0,
}
"""What a line can be drawn of, by name."""


class Recent:
    """The last KEPT_MAX rates of one server.

    Args:
        kept_max: how many
    """

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self.snapshot: Snapshot | None = None
        """The last answer."""
        self.latest: Rates | None = None
        """What happened before the last answer; None before there are two, and after a server was started anew."""
        self._kept: deque[_Kept | None] = deque(maxlen=kept_max)

    def add(self, snapshot: Snapshot) -> Rates | None:
        """Take in an answer. Returns what happened since the one before, if both are of one run of the server."""
        before, self.snapshot = self.snapshot, snapshot
        if before is None:
            return None
        rates = self.latest = compare(before, snapshot)
        self._kept.append(
            None
            if rates is None
            else _Kept(
                {name: value(rates, snapshot) for name, value in FIGURES.items()},
                {name: of.per_s for name, of in rates.operations.items()},
            )
        )
        return rates

    def miss(self) -> None:
        """Note that the server did not answer: lines have a gap."""
        if self.snapshot is not None:
            self._kept.append(None)

    def line(self, figure: str, number: int) -> Sequence[float | None]:
        """Return the last `number` values of one of FIGURES, the oldest first."""
        return [None if kept is None else kept.figures[figure] for kept in self._last(number)]

    def operation_line(self, name: str, number: int) -> Sequence[float | None]:
        """Return how many operations of a kind there were a second, for the last `number` times."""
        return [None if kept is None else kept.operations.get(name, 0.0) for kept in self._last(number)]

    def _last(self, number: int) -> Sequence[_Kept | None]:
        return list(self._kept)[-number:] if number > 0 else ()


class _Kept(NamedTuple):
    """What is kept of one time: a few numbers, as its clients and histograms would be megabytes."""

    figures: Mapping[str, float]
    operations: Mapping[str, float]
