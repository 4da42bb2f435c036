"""The section on group commit: one sync for all that arrived together, against one for each request."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.report.text import decimal, milliseconds, paragraph, rate, table, times
from benchmarks.results import Results, spread


def write(results: Results) -> str:
    """Compare one sync for all that arrived together with one for each request."""
    counts = results.numbers("group_commit", "clients")
    if not counts:
        return ""
    rows = []
    gains: dict[int, float] = {}
    for count in counts:
        grouped, single = ({"contender": name, "clients": count} for name in ("kvzmq", "kvzmq-one-by-one"))
        ratio = results.ratio("group_commit", "ops_per_s", grouped, single)
        gains[count] = ratio.median
        rows.append(
            [
                str(count),
                *(rate(results.median("group_commit", "ops_per_s", **each)) for each in (grouped, single)),
                decimal(ratio.median), f"{decimal(ratio.least)} to {decimal(ratio.greatest)}" if ratio.known else "-",
                *(rate(results.median("group_commit", "syncs_per_s", **each)) for each in (grouped, single)),
                decimal(results.median("group_commit", "changes_per_sync", **grouped), 1),
                *(milliseconds(results.median("group_commit", "p99_ms", **each)) for each in (grouped, single)),
            ]
        )  # fmt: skip
    header = ("clients", "inserts/s", "alone", "ratio", "rounds", "syncs/s", "alone", "changes/sync", "p99 ms", "alone")
    return "\n\n".join(
        [
            paragraph(
                "The same server twice: as it is, and with --no-group-commit, which commits each request alone"
                " (columns `alone`).",
                "The clients are connections of one process with one insert unanswered each.",
            ),
            table(header, rows),
            paragraph(*_on_group_commit(results, counts, gains)),
        ]
    )


def _on_group_commit(results: Results, counts: Sequence[int], gains: dict[int, float]) -> list[str]:
    first, last = counts[0], counts[-1]
    sentences = []
    if first == 1 and not math.isnan(gains[first]):
        sentences.append(
            "For one client both do the same, as there is nothing to share a sync with: its ratio,"
            f" {gains[first]:.2f}, says how exact the others are."
        )
    alone = [
        results.median("group_commit", "ops_per_s", contender="kvzmq-one-by-one", clients=count) for count in counts
    ]
    if len(counts) > 1 and max(alone) < 1.6 * min(alone):
        sentences.append(
            f"Without it the rate stays near {rate(spread(alone).median)}/s however many clients there are: it"
            " is the rate of syncs."
        )
    if gains[last] > 1.3:
        sentences.append(f"With it, {last} clients get {times(gains[last])} as many inserts.")
        changes = results.median("group_commit", "changes_per_sync", contender="kvzmq", clients=last)
        sentences.append(f"A sync then carries {changes:.0f} changes of {last} that could be waiting.")
    both = [
        results.median("group_commit", "p99_ms", contender=name, clients=last) for name in ("kvzmq", "kvzmq-one-by-one")
    ]
    if both[0] < both[1]:
        sentences.append(
            f"Latency gains as well: p99 at {last} clients is {milliseconds(both[0])} ms instead of"
            f" {milliseconds(both[1])} ms, as nobody queues behind others' syncs."
        )
    return sentences
