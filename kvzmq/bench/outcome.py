"""What one test of `kvzmq bench` gave, and the order in which its latencies are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kvzmq.bench.load import Measured, Summary

LATENCY_COLUMNS = ("avg", "min", "p50", "p95", "p99", "max")
"""The order of redis-benchmark."""


class Outcome(NamedTuple):
    """What one test gave with one number of clients."""

    test: str
    clients: int
    measured: Measured
    latency: Summary


def latency_row(latency: Summary) -> Sequence[float]:
    """Return a latency's figures in the order of `LATENCY_COLUMNS`, milliseconds."""
    return (latency.mean_ms, latency.min_ms, latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms)
