"""What it costs a server to measure itself: single operations of 1 and 8 blocking clients, with it and without.

A server always counts and times what it does, for `stats`; with --metrics it makes a page of that for Prometheus, too.
Both are here beside a server from which the observer was taken out.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.run.experiments import ROWS, VALUE_BYTES, Turn, clients_of, turn_of
from benchmarks.run.measuring import WORKERS, Bench

CONTENDERS = ("kvzmq", "kvzmq-unobserved", "kvzmq-metrics")


def metrics(bench: Bench) -> None:
    """The same operations on servers that measure more and less."""
    turns: list[Turn] = []
    with bench.writer("metrics") as writer, bench.running(*CONTENDERS) as servers:
        for running in servers.values():
            bench.fill(running, ROWS, VALUE_BYTES)
            for count in (1, WORKERS):
                arguments = clients_of(count, bench.size.seconds)
                turns.append(turn_of(bench, writer, running, ("insert", "lookup"), "call_in_turn", arguments))
        bench.take_turns(turns, "metrics")


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {"metrics": metrics}
