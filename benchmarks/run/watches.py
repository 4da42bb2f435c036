"""The experiment on watches: how many events one watcher takes in, and how soon after the commit."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from benchmarks.results import Writer
from benchmarks.run.experiments import VALUE_BYTES, Turn, turn_of
from benchmarks.run.measuring import WORKERS, Bench, client_of, columns_of
from benchmarks.run.open_tables import Sample
from benchmarks.run.peers import Running
from kvzmq.bench.load import summarize

CHANGES = 50_000
"""How many changes a watcher catches up with: fewer than a server keeps."""


def watches(bench: Bench) -> None:
    """Watchers that catch up with kept changes, as fast as they can; and one that follows a lone writer."""
    with bench.writer("watches") as writer, bench.running("kvzmq") as servers:
        turns: list[Turn] = []
        for running in servers.values():
            bench.fill(running, CHANGES, VALUE_BYTES)
            for shell, count in (("blocking", 1), ("blocking", WORKERS), ("asyncio", 1)):
                turns.append(
                    turn_of(bench, writer, running, (shell,), "catch_up", _watchers(bench, count), batch="catching up")
                )
            turns.append(_following(bench, writer, running))
        bench.take_turns(turns, "watches")


def _watchers(bench: Bench, count: int) -> Callable[[str], list[dict[str, Any]]]:
    return lambda shell: [{"shell": shell, "changes": CHANGES, "seconds": bench.size.seconds}] * count


def _following(bench: Bench, writer: Writer, running: Running) -> Turn:
    """Return what measures, of inserts one after the other, when each was answered and when its event came."""
    roles = ("event received", "insert answered")

    def turn(at: int) -> None:
        running.resume()
        arguments = [
            {**client_of(running), "writes": role == roles[1], "seconds": bench.size.seconds} for role in roles
        ]
        samples: list[Sample] = bench.workers.run_together("follow", arguments, lambda: None)
        running.pause()
        for role, sample in zip(roles, samples):
            latencies = array("q", sample.latencies_ns)
            writer.add(
                round=at, **columns_of(running), operation=role, clients=1, batch="following",
                operations=len(latencies), **summarize(latencies)._asdict(),
            )  # fmt: skip

    return turn


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {"watches": watches}
