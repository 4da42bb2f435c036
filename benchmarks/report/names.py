"""What the report calls things: contenders, ways to the server, and the machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.results import OVER, Results
from benchmarks.run.peers import FRAMES_ALONE, PEERS

STAGES = ("insert", "lookup", "size", "query", "remove")
"""The operations of TestPerf, in its order."""

BRIDGE = "bridge"
TRANSPORTS = {
    BRIDGE: "the bridge",
    "dealer": "ZeroMQ",
    "plain socket": "ZeroMQ (plain socket)",
    "pyzmq": "ZeroMQ (pyzmq)",
}
"""How TestPerf reached the server, by the name in its CSV file: lines of JSON over TCP, or ZeroMQ by some client."""


def transports_of(results: Results) -> dict[str, str]:
    """Return the ways TestPerf took in this run, with their names for sentences."""
    taken = results.values("testperf", "transport", contender="kvzmq")
    return {way: TRANSPORTS.get(way, way) for way in sorted(taken, key=lambda way: _place(way, TRANSPORTS))}


def zeromq_of(results: Results) -> str:
    """Return the first way over ZeroMQ, to be compared with the bridge; nothing if there was none."""
    return next((way for way in transports_of(results) if way != BRIDGE), "")


def title_of(contender: str) -> str:
    """Return a contender's name for tables."""
    name, over, transport = contender.partition(OVER)
    return (PEERS[name].title if name in PEERS else name) + over + transport


def short_of(contender: str) -> str:
    """Return a contender's name for sentences."""
    name, over, transport = contender.partition(OVER)
    return (PEERS[name].short if name in PEERS else name) + (f" over {transport}" if over else "")


def promise_of(contender: str) -> str:
    """Return what an acknowledged change has survived at a contender."""
    name = contender.partition(OVER)[0]
    return PEERS[name].promise if name in PEERS else ""


def remark_on_transport(results: Results) -> str:
    """Say what kvzmq's client has spoken ZMTP over, as far as the figures tell."""
    if not results.has("clients"):
        return ""
    if not results.names_transport("clients"):
        return "These figures do not name kvzmq's transport: its client was a DEALER of libzmq's (pyzmq) then."
    return (
        "kvzmq's client has a plain socket of its own; `pyzmq` names a DEALER of libzmq's in its place,"
        f" `{FRAMES_ALONE}` the plain socket with no client above it."
    )


def in_order(contenders: Iterable[str]) -> list[str]:
    """Return contenders in the order of PEERS, one over several transports together; unknown ones come last."""
    return sorted(contenders, key=lambda name: (_place(name.partition(OVER)[0], PEERS), name))


def measured(results: Results, experiment: str, names: Sequence[str], **wanted: object) -> list[str]:
    """Return those of some contenders that took part, over whichever transport."""
    found = results.values(experiment, "contender", **wanted)
    return [each for name in names for each in in_order(found) if each.partition(OVER)[0] == name]


def _place(name: str, order: Iterable[str]) -> int:
    known = list(order)
    return known.index(name) if name in known else len(known)


def cores(results: Results) -> int:
    """Return how many processors the run had."""
    found = results.rows("machine", fact="cores")
    return int(found[0]["value"]) if found else 1
