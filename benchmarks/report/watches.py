"""The section on watches: how many events a watcher takes in, and how soon after the commit."""

from __future__ import annotations

from benchmarks.report.text import decimal, milliseconds, paragraph, rate, table
from benchmarks.results import Results
from benchmarks.run.watches import CHANGES


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
                f"Watchers that catch up with {CHANGES:,} changes the server has kept, again and again, a"
                " process each; events/s of all",
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
