"""The report's sections, in order: each makes its text from the figures, or None when there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.report import (
    aims,
    cluster,
    comparison,
    group_commit,
    growing,
    latency,
    limits,
    many_clients,
    remarks,
    service,
    startup,
    transports,
    watches,
)
from benchmarks.report.text import join, paragraph
from benchmarks.results import Results

Section = Callable[[Results], str]


def preface(plots: Sequence[str]) -> str:
    """Say what this is and how to read it."""
    return paragraph(
        "Written by `make report` from what it has measured, benchmarks/results/*.csv. Figures are medians over the",
        "rounds of a run. Each experiment is a run by itself, some were made on another day: compare within a table.",
        "A change counts when it is on the disk, unless a table says otherwise.",
        f"Plots: {join(plots)}." if plots else "",
    )


def machine(results: Results) -> str:
    """List the facts about the machine."""
    facts = results.rows("machine")
    if not facts:
        return ""
    lines = [[row["fact"], row["value"]] for row in facts]
    disk = results.spread("limits", "syncs_per_s", what="1 insert", how="append")
    if disk.known:
        p50 = results.median("limits", "p50_ms", what="1 insert", how="append")
        p999 = results.median("limits", "p999_ms", what="1 insert", how="append")
        lines.append(
            ["fdatasync", f"{disk.median:,.0f}/s after an append of 100 bytes; p50 {p50:.3f} ms, p99.9 {p999:.2f} ms"]
        )
    wide = max(len(name) for name, _ in lines)
    return "\n".join(f"    {name.ljust(wide)}  {value}" for name, value in lines)


SECTIONS: tuple[tuple[str, Section], ...] = (
    ("The question: how much for one client, how much for many at once?", many_clients.answer),
    ("The same in detail", many_clients.write),
    ("What group commit changes", group_commit.write),
    ("What the bridge costs or saves against ROUTER", transports.write),
    ("Beside what people use instead", comparison.write),
    ("From the start of a program to its first answer", startup.write),
    ("Secured, watched and backed up", service.write),
    ("Growth: rows, memory, recovery, queries", growing.write),
    ("Compaction", growing.compaction),
    ("Latency", latency.write),
    ("Watches", watches.write),
    ("Several servers, their log on an etcd cluster", cluster.write),
    ("Limits: what the disk, ROUTER and epoll give with no table behind them", limits.write),
    ("What surprised", remarks.surprises),
    ("What these figures do not show", remarks.caveats),
    ("The machine", machine),
    ("Every client's figures", many_clients.every_client),
    ("The aims, and what this run says", aims.write),
)
"""The sections, in order: the course's question first, what only those who measure again need last."""
