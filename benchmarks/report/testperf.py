"""The figures of TestPerf, as the sections on it need them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.results import Results, number, spread

LEVEL = 0.9
"""A sum that reaches so much of the best one has levelled off: TestPerf says so too."""


def sum_of(
    results: Results,
    transport: str,
    clients: int,
    operation: str,
    field: str = "ops_per_s",
    contender: str = "kvzmq",
    client: int | str = "sum",
) -> float:
    """Return a figure of all clients together, or of one: the median over the rounds, NaN if there is none."""
    named = {"contender": contender, "transport": transport, "clients": clients, "operation": operation}
    return results.median("testperf", field, client=client, **named)


def counts_of(results: Results, transport: str) -> list[int]:
    return results.numbers("testperf", "clients", contender="kvzmq", transport=transport)


def level_of(rates: Sequence[tuple[int, float]]) -> int | None:
    """Return the smallest number of clients whose sum comes within LEVEL of the best; None if that is the largest."""
    known = [(clients, figure) for clients, figure in rates if not math.isnan(figure)]
    if not known:
        return None
    best = max(figure for _, figure in known)
    reached = next(clients for clients, figure in known if figure >= LEVEL * best)
    return None if reached == known[-1][0] else reached


def ranks_of(results: Results, transport: str, count: int, stage: str) -> list[float]:
    """Return the rates of the slowest, the middle and the fastest client: the medians of the rounds' ones."""
    found = [spread(rates) for rates in rates_by_round(results, transport, count, stage)]
    return [
        spread(figures).median for figures in zip(*((each.least, each.median, each.greatest) for each in found))
    ] or [math.nan] * 3


def rates_by_round(results: Results, transport: str, count: int, stage: str) -> list[list[float]]:
    """Return each round's clients' rates; no round in which they are not known."""
    per_round: dict[str, list[float]] = {}
    for row in results.rows("testperf", contender="kvzmq", transport=transport, clients=count, operation=stage):
        if row["client"] != "sum":
            per_round.setdefault(row["round"], []).append(number(row, "ops_per_s"))
    return [rates for rates in per_round.values() if sum(rates) > 0]


def costs_of(results: Results, transport: str, count: int, stage: str) -> tuple[float, float]:
    """Return the processor time that an operation took in the server and elsewhere, microseconds."""
    made, server, all_busy = (
        sum_of(results, transport, count, stage, field) for field in ("ops_per_s", "server_busy", "machine_busy")
    )
    return server / made * 1e6, (all_busy - server) / made * 1e6
