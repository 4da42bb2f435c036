"""The experiment on watches: how many events one watcher takes in, and how soon after the commit; and its section."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from benchmarks.report.text import decimal, milliseconds, paragraph, rate, table
from benchmarks.results import Results, Writer
from benchmarks.run.drivers import Sample
from benchmarks.run.experiments import VALUE_BYTES, Turn, turn_of
from benchmarks.run.measuring import WORKERS, Bench, client_of
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
                round=at, contender=running.peer.name, operation=role, clients=1, batch="following",
                operations=len(latencies), **summarize(latencies)._asdict(),
            )  # fmt: skip

    return turn


def write(results: Results) -> str:
    """Say what watching costs and how late an event is."""
    if not results.has("watches"):
        return ""
    rows = []
    for shell in ("blocking", "asyncio"):
        for count in results.numbers("watches", "clients", operation=shell):
            wanted = {"operation": shell, "clients": count}
            found = results.spread("watches", "ops_per_s", **wanted)
            costs = [results.median("watches", f"{side}_cpu_us_per_op", **wanted) for side in ("server", "client")]
            rows.append(
                [
                    shell,
                    str(count),
                    rate(found.median),
                    f"{rate(found.least)} to {rate(found.greatest)}",
                    *(decimal(cost, 1) for cost in costs),
                ]
            )
    late = [
        [
            role,
            *(
                milliseconds(results.median("watches", field, operation=role))
                for field in ("min_ms", "p50_ms", "p99_ms", "max_ms")
            ),
        ]
        for role in ("insert answered", "event received")
    ]
    one = results.median("watches", "ops_per_s", operation="blocking", clients=1)
    gap = results.median("watches", "p50_ms", operation="event received") - results.median(
        "watches", "p50_ms", operation="insert answered"
    )
    return "\n\n".join(
        [
            paragraph(
                f"Watchers that catch up with {CHANGES:,} changes the server has kept, again and again, a process each; events/s of all",
                "together, and processor time of an event:",
            ),
            table(("client", "watchers", "events/s", "rounds", "server us", "client us"), rows),
            "A client inserts, one row after the other, and another one watches; from the call of the insert until:",
            table(("", "min ms", "p50 ms", "p99 ms", "max ms"), late),
            paragraph(
                f"One watcher takes in {rate(one)} events a second.",
                f"An event comes {gap * 1000:+.0f} us after the writer has its answer (medians)"
                + (
                    ": both leave the server in the same step, the answer first, after the same sync."
                    if abs(gap) < 0.2
                    else "."
                ),
            ),
        ]
    )


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {"watches": watches}
