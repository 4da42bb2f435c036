"""What the report calls things: contenders, ways to the server, and the machine."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.results import Results
from benchmarks.run.peers import PEERS

STAGES = ("insert", "lookup", "size", "query", "remove")
"""The operations of TestPerf, in its order."""

TRANSPORTS = {"bridge": "the bridge", "dealer": "DEALER"}
"""How TestPerf reached the server, by the name in its CSV file."""


def title_of(contender: str) -> str:
    """Return a contender's name for tables."""
    return PEERS[contender].title if contender in PEERS else contender


def short_of(contender: str) -> str:
    """Return a contender's name for sentences."""
    return PEERS[contender].short if contender in PEERS else contender


def in_order(contenders: Iterable[str]) -> list[str]:
    """Return contenders in the order of PEERS; those that are not there come last."""
    order = list(PEERS)
    return sorted(contenders, key=lambda name: order.index(name) if name in PEERS else len(order))


def cores(results: Results) -> int:
    """Return how many processors the run had."""
    found = results.rows("machine", fact="cores")
    return int(found[0]["value"]) if found else 1
