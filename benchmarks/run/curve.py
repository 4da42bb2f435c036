"""What CURVE costs: single operations of 1 and 8 blocking clients, and batches of 1,000 rows, with it and without.

CURVE goes over libzmq's sockets, and kvzmq in plain over its own, unless it is asked for libzmq's. So both are here:
CURVE beside pyzmq in plain is the price of encrypting and of checking rights, pyzmq beside the plain socket that of the
way there.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.run.experiments import OVER_PYZMQ, ROWS, VALUE_BYTES, Turn, batches_of, clients_of, turn_of
from benchmarks.run.measuring import WORKERS, Bench

CONTENDERS = ("kvzmq", OVER_PYZMQ, "kvzmq-curve")
BATCH = 1000


def curve(bench: Bench) -> None:
    """The same operations in plain, in plain over pyzmq, and with CURVE."""
    turns: list[Turn] = []
    operations = ("insert", "lookup")
    with bench.writer("curve") as writer, bench.running(*CONTENDERS) as servers:
        for running in servers.values():
            bench.fill(running, ROWS, VALUE_BYTES)
            for count in (1, WORKERS):
                arguments = clients_of(count, bench.size.seconds)
                turns.append(turn_of(bench, writer, running, operations, "call_in_turn", arguments))
            many = batches_of(bench, BATCH)
            turns.append(turn_of(bench, writer, running, operations, "call_with_batches", many, batch=BATCH))
        bench.take_turns(turns, "CURVE")


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {"curve": curve}
