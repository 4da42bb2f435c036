"""The sections on the course's question: one client, then ever more at once, each and in sum."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.names import STAGES, cores, transports_of
from benchmarks.report.scaling import analyse, summary
from benchmarks.report.testperf import costs_of, counts_of, level_of, ranks_of, sum_of
from benchmarks.report.text import bars, decimal, milliseconds, paragraph, rate, table
from benchmarks.results import Results


def answer(results: Results) -> str:
    """Answer the course's question in short: what was run, what one client makes, what many make, and why."""
    ways = transports_of(results)
    if not ways:
        return ""
    parts = []
    for way, name in ways.items():
        counts = counts_of(results, way)
        parts += [paragraph(said) for said in summary(results, way, name)]
        parts += [f"All clients together over {name}, operations/s:", _sums_table(results, way, counts)]
        parts += [
            f"Each client over {name}, operations/s (the middle one; all of them are listed near the end):",
            _middle_table(results, way, counts),
        ]
        if way == next(iter(ways)):
            parts.append(_what_was_run(results))
    return "\n\n".join(part for part in parts if part)


def _what_was_run(results: Results) -> str:
    return paragraph(
        f"What was run: clients/TestPerf.py beside one server, all on one machine with {cores(results)} processors.",
        "Every client is a process of its own and does one operation after the other: insert, lookup, size, query",
        "(four matches) and remove, each for the same time, all clients in step. A sum counts only what was done while",
        "all of them were at work. A dash: some had no rows left to remove before half of the time was over.",
        "Over the bridge, requests are lines of JSON over TCP; over ZeroMQ, MessagePack from the package's client to",
        "the server's ROUTER socket.",
    )


def write(results: Results) -> str:
    """Say in detail what each client had, what the machine was doing, and what follows from that."""
    ways = transports_of(results)
    if not ways:
        return ""
    parts = [paragraph(*sentences) for sentences in analyse(results) if any(sentences)]
    for way, name in ways.items():
        counts = counts_of(results, way)
        parts += [
            f"Single clients over {name}, operations/s: the slowest, the middle and the fastest one:",
            _singles_table(results, way, counts),
        ]
        for stage in ("insert", "lookup"):
            drawn = {
                f"{count:2} client{'s' if count > 1 else ' '}": sum_of(results, way, count, stage) for count in counts
            }
            parts += [f"Sums of {stage} over {name}:", bars(drawn, "/s")]
    parts += [
        paragraph(
            f"What the machine was doing meanwhile. `server` and `all` are processors kept busy, of {cores(results)};",
            "`server us` and `others us` are what an operation took of them, in microseconds: in the server's process,",
            "and in everything else, clients and kernel.",
        ),
        _machine_table(results),
    ]
    return "\n\n".join(parts)


def _sums_table(results: Results, way: str, counts: Sequence[int]) -> str:
    rows = [[str(count), *(rate(sum_of(results, way, count, stage)) for stage in STAGES)] for count in counts]
    levels = [level_of([(count, sum_of(results, way, count, stage)) for count in counts]) for stage in STAGES]
    return table(("clients", *STAGES), [*rows, [], ["levels off at", *(str(level or "-") for level in levels)]])


def _middle_table(results: Results, way: str, counts: Sequence[int]) -> str:
    def middle(count: int, stage: str) -> float:
        return sum_of(results, way, 1, stage) if count == 1 else ranks_of(results, way, count, stage)[1]

    return table(
        ("clients", *STAGES), [[str(count), *(rate(middle(count, each)) for each in STAGES)] for count in counts]
    )


def _singles_table(results: Results, transport: str, counts: Sequence[int]) -> str:
    stages = ("insert", "lookup", "query")
    rows = []
    for count in counts:
        cells = [str(count)]
        for stage in stages:
            if count == 1:
                cells += ["", rate(sum_of(results, transport, 1, stage)), ""]
            else:
                cells += [rate(figure) for figure in ranks_of(results, transport, count, stage)]
        rows.append(cells)
    return table(("clients", *(name for stage in stages for name in (f"{stage}: slowest", "middle", "fastest"))), rows)


def _machine_table(results: Results) -> str:
    header = (
        "over",
        "clients",
        "operation",
        "sum/s",
        "p50 ms",
        "p99 ms",
        "server",
        "all",
        "server us",
        "others us",
        "syncs/s",
        "changes/sync",
    )
    rows: list[list[str]] = []
    for transport, name in transports_of(results).items():
        for stage in STAGES:
            for count in counts_of(results, transport):

                def figure(field: str, stage: str = stage, count: int = count, transport: str = transport) -> float:
                    return sum_of(results, transport, count, stage, field)

                writes = stage in ("insert", "remove")
                rows.append(
                    [
                        name.removeprefix("the "), str(count), stage, rate(figure("ops_per_s")),
                        milliseconds(figure("p50_ms")), milliseconds(figure("p99_ms")),
                        decimal(figure("server_busy")), decimal(figure("machine_busy")),
                        *(decimal(cost, 0) for cost in costs_of(results, transport, count, stage)),
                        rate(figure("syncs_per_s")) if writes else "",
                        decimal(figure("changes_per_sync"), 1) if writes else "",
                    ]
                )  # fmt: skip
            rows.append([])
    return table(header, rows[:-1], left=1)


def every_client(results: Results) -> str:
    """List each client's rate, median over the rounds, in each run of TestPerf."""
    parts = []
    for transport, name in transports_of(results).items():
        counts = [count for count in counts_of(results, transport) if count > 1]
        for count in counts:
            lines = [f"{count} clients over {name}, operations/s of client 1 to {count}:"]
            for stage in STAGES:
                figures = [
                    rate(sum_of(results, transport, count, stage, client=client)) for client in range(1, count + 1)
                ]
                lines += _wrapped(stage, figures)
            parts.append("\n".join(lines))
    if not parts:
        return ""
    intro = paragraph(
        "Medians over the rounds; one client's own figures are those of the tables of sums. Latencies and every"
        " round are in",
        "benchmarks/results/testperf.csv.",
    )
    return "\n\n".join([intro, *parts])


def _wrapped(stage: str, figures: Sequence[str]) -> list[str]:
    wide = max(map(len, figures))
    lines = [" ".join(figure.rjust(wide) for figure in figures[at : at + 16]) for at in range(0, len(figures), 16)]
    return [f"    {(stage if not at else '').ljust(6)}  {line}" for at, line in enumerate(lines)]
