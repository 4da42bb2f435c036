"""The sections on ever more clients: TestPerf, group commit, bridge against ROUTER."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import dropwhile, takewhile

from benchmarks.report.text import bars, decimal, join, milliseconds, paragraph, rate, table, times
from benchmarks.results import Results, number, spread

STAGES = ("insert", "lookup", "size", "query", "remove")
TRANSPORTS = {"bridge": "the bridge", "dealer": "DEALER"}
LEVEL = 0.9
"""A sum that reaches so much of the best one has levelled off: TestPerf says so too."""

_FULL = 0.9
"""Of a processor, or of all: busy enough to be what limits."""

_SYNCS_MATTER = 0.2
"""Of the time: a loop that waits so long for the disk is said to."""

_ALIKE = 1.1
"""Costs that are so near to each other are called the same."""


def _sum(
    results: Results, transport: str, clients: int, operation: str, field: str = "ops_per_s", contender: str = "kvzmq"
) -> float:
    return results.median(
        "testperf", field, contender=contender, transport=transport, clients=clients, operation=operation, client="sum"
    )


def _counts(results: Results, transport: str) -> list[int]:
    return results.numbers("testperf", "clients", contender="kvzmq", transport=transport)


def level_of(rates: Sequence[tuple[int, float]]) -> int | None:
    """Return the smallest number of clients whose sum comes within LEVEL of the best; None if that is the largest."""
    known = [(clients, figure) for clients, figure in rates if not math.isnan(figure)]
    if not known:
        return None
    best = max(figure for _, figure in known)
    reached = next(clients for clients, figure in known if figure >= LEVEL * best)
    return None if reached == known[-1][0] else reached


def cores(results: Results) -> int:
    """Return how many processors the run had."""
    found = results.rows("machine", fact="cores")
    return int(found[0]["value"]) if found else 1


def write(results: Results) -> str:
    """Answer the course's question."""
    if not results.has("testperf"):
        return ""
    parts = [
        paragraph(
            "TestPerf does single operations one after the other: insert, lookup, size, query (four matches) and remove, each",
            "stage for the same time, all clients in step. With several clients the sum counts only what was done while all",
            "of them were at work. Every client is a process of its own. A dash: some had no rows left to remove before half of the",
            "time was over.",
        )
    ]
    for transport, name in TRANSPORTS.items():
        counts = _counts(results, transport)
        if not counts:
            continue
        rows = [[str(count), *(rate(_sum(results, transport, count, stage)) for stage in STAGES)] for count in counts]
        levels = {
            stage: level_of([(count, _sum(results, transport, count, stage)) for count in counts]) for stage in STAGES
        }
        rows += [[], ["levels off at", *(str(levels[stage] or "-") for stage in STAGES)]]
        parts += [f"Sums over {name}, operations/s:", table(("clients", *STAGES), rows)]
        parts += [
            paragraph(
                f"Single clients over {name}, operations/s: the slowest, the middle and the fastest one (the last section has every client):"
            ),
            _singles_table(results, transport, counts),
        ]
        for stage in ("insert", "lookup"):
            drawn = {
                f"{count:2} client{'s' if count > 1 else ' '}": _sum(results, transport, count, stage)
                for count in counts
            }
            parts += [f"Sums of {stage} over {name}:", bars(drawn, "/s")]
    parts += [
        paragraph(
            f"What the machine was doing meanwhile. `server` and `all` are processors kept busy, of {cores(results)}; `server us` and `others us` are what an",
            "operation took of them, in microseconds: in the server's process, and in everything else, clients and kernel.",
        ),
        _machine_table(results),
    ]
    parts += [paragraph(*sentences) for sentences in _analysis(results) if any(sentences)]
    return "\n\n".join(parts)


def _singles_table(results: Results, transport: str, counts: Sequence[int]) -> str:
    stages = ("insert", "lookup", "query")
    rows = []
    for count in counts:
        cells = [str(count)]
        for stage in stages:
            if count == 1:
                cells += ["", rate(_sum(results, transport, 1, stage)), ""]
            else:
                cells += [rate(figure) for figure in _ranks(results, transport, count, stage)]
        rows.append(cells)
    return table(("clients", *(name for stage in stages for name in (f"{stage}: slowest", "middle", "fastest"))), rows)


def _ranks(results: Results, transport: str, count: int, stage: str) -> list[float]:
    """Return the rates of the slowest, the middle and the fastest client: the medians of the rounds' ones."""
    found = [spread(rates) for rates in _by_round(results, transport, count, stage)]
    return [
        spread(figures).median for figures in zip(*((each.least, each.median, each.greatest) for each in found))
    ] or [math.nan] * 3


def _by_round(results: Results, transport: str, count: int, stage: str) -> list[list[float]]:
    """Return each round's clients' rates; no round in which they are not known."""
    per_round: dict[str, list[float]] = {}
    for row in results.rows("testperf", contender="kvzmq", transport=transport, clients=count, operation=stage):
        if row["client"] != "sum":
            per_round.setdefault(row["round"], []).append(number(row, "ops_per_s"))
    return [rates for rates in per_round.values() if sum(rates) > 0]


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
    for transport in TRANSPORTS:
        for stage in STAGES:
            for count in _counts(results, transport):

                def figure(field: str, stage: str = stage, count: int = count, transport: str = transport) -> float:
                    return _sum(results, transport, count, stage, field)

                writes = stage in ("insert", "remove")
                rows.append(
                    [
                        transport, str(count), stage, rate(figure("ops_per_s")),
                        milliseconds(figure("p50_ms")), milliseconds(figure("p99_ms")),
                        decimal(figure("server_busy")), decimal(figure("machine_busy")),
                        *(decimal(cost, 0) for cost in _costs(results, transport, count, stage)),
                        rate(figure("syncs_per_s")) if writes else "", decimal(figure("changes_per_sync"), 1) if writes else "",
                    ]
                )  # fmt: skip
            rows.append([])
    return table(header, rows[:-1], left=1)


def _costs(results: Results, transport: str, count: int, stage: str) -> tuple[float, float]:
    """Return the processor time that an operation took in the server and elsewhere, microseconds."""
    made, server, all_busy = (
        _sum(results, transport, count, stage, field) for field in ("ops_per_s", "server_busy", "machine_busy")
    )
    return server / made * 1e6, (all_busy - server) / made * 1e6


def _analysis(results: Results) -> list[list[str]]:
    found: list[list[str]] = []
    for transport, name in TRANSPORTS.items():
        counts = _counts(results, transport)
        if len(counts) < 2:
            continue
        found.append(_on_system(results, transport, name, counts))
        found.append(_on_inserts(results, transport, name, counts))
        found.append(_on_lookups(results, transport, name, counts))
        found.append(_on_operations(results, transport, name, counts))
        found.append(_on_shares(results, transport, name, counts))
    found.append(_on_baseline(results))
    return found


def _on_system(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    """Say what the system as a whole is made of: waiting while few ask, processors from then on."""
    all_cores = cores(results)
    first = _sum(results, transport, counts[0], "lookup", "machine_busy")
    full = next(
        (count for count in counts if _sum(results, transport, count, "lookup", "machine_busy") >= _FULL * all_cores),
        None,
    )
    if math.isnan(first) or full is None or full == counts[0]:
        return []
    server, others = _costs(results, transport, full, "lookup")
    made = _sum(results, transport, full, "lookup")
    return [
        f"The whole, over {name}: with {_one(counts[0])} {first:.1f} of {all_cores} processors are busy, and an operation's time is mostly its way and waiting.",
        f"Lookups have filled the processors with {full} clients, and from there on the sum is what the processors give:",
        f"one costs {server:.0f} us in the server and {others:.0f} us in clients and kernel, which makes {rate(all_cores * 1e6 / (server + others))}/s"
        f" of {all_cores} full processors, and {rate(made)}/s are measured.",
        f"The others take {others / (server + others):.0%} of it, so this plateau is the machine's. With the clients elsewhere the server would have gone on,"
        f" to some {1e6 / server:,.0f}/s for each processor it can fill: an extrapolation, not a figure.",
    ]


def _on_inserts(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    rates = [(count, _sum(results, transport, count, "insert")) for count in counts]
    first, (best_at, best) = rates[0][1], max(rates, key=lambda pair: pair[1])
    one_changes, best_changes = (
        _sum(results, transport, count, "insert", "changes_per_sync") for count in (counts[0], best_at)
    )
    one_syncs, best_syncs = (_sum(results, transport, count, "insert", "syncs_per_s") for count in (counts[0], best_at))
    together = (
        f", {best_at} together make {rate(best)}/s, {times(best / first)} as many"
        if best_at != counts[0]
        else ", more clients less"
    )
    sentences = [f"Inserts over {name}: {_one(counts[0])} makes {rate(first)}/s{together}."]
    if one_changes < 1.2:
        sentences.append("Alone, every insert waits for a sync of its own.")
    if best_changes > 1.5:
        relation = (
            "more than"
            if best_syncs > 1.15 * one_syncs
            else "fewer than"
            if best_syncs < 0.87 * one_syncs
            else "about as often as"
        )
        link = "and" if best_syncs > 1.15 * one_syncs else "but"
        sentences.append(
            f"With {best_at} the server syncs {rate(best_syncs)} times a second, {relation} the {rate(one_syncs)} it makes for one,"
            f" {link} each sync carries {best_changes:.1f} changes: what arrived while it waited for the disk."
        )
    return (
        sentences + _where_it_ends(results, transport, "insert", rates) + _on_fall(results, transport, "insert", rates)
    )


def _on_lookups(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    rates = [(count, _sum(results, transport, count, "lookup")) for count in counts]
    first, (best_at, best) = rates[0][1], max(rates, key=lambda pair: pair[1])
    busy_one = _sum(results, transport, counts[0], "lookup", "server_busy")
    together = (
        f", the best sum is {rate(best)}/s with {best_at}, {times(best / first)} as many"
        if best_at != counts[0]
        else ", more clients less"
    )
    sentences = [f"Lookups over {name}: {_one(counts[0])} makes {rate(first)}/s{together}."]
    if busy_one < 0.75 and best > 1.2 * first:
        sentences.append(
            f"One client keeps the server's thread{'s' if transport == 'dealer' else ''} busy for {busy_one:.0%} of a processor:"
            " the rest of the time the request is with the client, or on its way. More clients fill that time."
        )
    return (
        sentences + _where_it_ends(results, transport, "lookup", rates) + _on_fall(results, transport, "lookup", rates)
    )


def _one(count: int) -> str:
    return "one client alone" if count == 1 else f"{count} clients"


def _where_it_ends(results: Results, transport: str, stage: str, rates: Sequence[tuple[int, float]]) -> list[str]:
    """Say how many clients make the most, and what was full then."""
    rates = [(count, figure) for count, figure in rates if not math.isnan(figure)]
    level = level_of(rates)
    if level is None:
        return [f"The sum had not levelled off at {rates[-1][0]} clients."] if rates else []
    best_at, best = max(rates, key=lambda pair: pair[1])
    plateau = list(takewhile(lambda pair: pair[1] >= LEVEL * best, dropwhile(lambda pair: pair[0] < level, rates)))
    within = (
        f"at {level} clients"
        if len(plateau) == 1
        else f"at {level} clients, stays within {1 - LEVEL:.0%} of the best sum up to {plateau[-1][0]}"
    )
    busy, server = (_sum(results, transport, best_at, stage, field) for field in ("machine_busy", "server_busy"))
    start = f"It levels off {within}, and is best with {best_at}, where {busy:.1f} of {cores(results)} processors are busy, {server:.1f} of that with the server"
    if server >= _FULL and transport == "bridge":
        return [f"{start}: its one thread is what ends it."]
    if busy >= _FULL * cores(results):
        return [f"{start}: the processors are what ends it, and the clients take {1 - server / busy:.0%} of them."]
    if server >= _FULL:
        return [f"{start}, whose two threads, the loop's and libzmq's, share that: one of them may be full."]
    sync_ms = results.median("limits", "p50_ms", what="1 insert", how="overwrite")
    share = _sum(results, transport, best_at, stage, "syncs_per_s") * sync_ms / 1000
    if share >= _SYNCS_MATTER:
        return [
            f"{start}: neither is full, and the loop waits for the disk, for {share:.0%} of the time if a sync takes the {sync_ms:.2f} ms it takes alone."
        ]
    return [
        f"{start}: neither is full, and what is left is waiting for each other: wake-ups and the way there and back."
    ]


def _on_fall(results: Results, transport: str, stage: str, rates: Sequence[tuple[int, float]]) -> list[str]:
    """Say what has grown when the sum falls with more clients."""
    best_at, best = max(rates, key=lambda pair: pair[1])
    last_at, last = rates[-1]
    if not last < 0.85 * best:
        return []
    sentence = f"With {last_at} the sum has fallen again, to {rate(last)}/s"
    said, grown = [], False
    for who, was, became in zip(
        ("the server", "clients and kernel"),
        _costs(results, transport, best_at, stage),
        _costs(results, transport, last_at, stage),
    ):
        if not math.isnan(was + became):
            grown = grown or became > _ALIKE * was
            said.append(
                f"{who} {became:.0f} us, as before"
                if was / _ALIKE <= became <= _ALIKE * was
                else f"{who} {became:.0f} us instead of {was:.0f}"
            )
    if not said:
        return [f"{sentence}."]
    reason = f"{last_at} processes take turns on {cores(results)} processors, and each finds the caches full of the others'; that is the likely reason, not a measured one."
    return [f"{sentence}: one {stage} now costs {join(said)}.", reason if grown else ""]


def _on_operations(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    single = {stage: _sum(results, transport, counts[0], stage) for stage in STAGES}
    many = {stage: _sum(results, transport, counts[-1], stage) for stage in STAGES}
    order = sorted((stage for stage in STAGES if not math.isnan(single[stage])), key=lambda stage: -single[stage])
    sentences = [
        f"Operation against operation, one client over {name}: "
        + ", ".join(f"{stage} {rate(single[stage])}/s" for stage in order)
        + "."
    ]
    if single["lookup"] > 1.5 * single["insert"]:
        sentences.append(
            f"A change takes {times(single['lookup'] / single['insert'])} as long as a lookup, which is the sync."
        )
    if many["lookup"] / many["insert"] < 0.8 * single["lookup"] / single["insert"]:
        best = max(_sum(results, transport, count, "lookup") for count in counts)
        fall = (
            f", and lookups have lost {1 - many['lookup'] / best:.0%} of their best sum"
            if many["lookup"] < 0.85 * best
            else ""
        )
        sentences.append(
            f"With {counts[-1]} clients it is {times(many['lookup'] / many['insert'])}: a sync is shared then{fall}."
        )
    if abs(single["remove"] / single["insert"] - 1) < 0.15:
        sentences.append("A remove costs what an insert does: both are a line in the log.")
    if single["query"] < 0.9 * single["lookup"]:
        sentences.append(
            f"A query returns four rows through the index and reaches {single['query'] / single['lookup']:.0%} of a lookup's rate."
        )
    return sentences


def _on_shares(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    slowest, fastest = [], []
    for count in counts[1:]:
        for stage in STAGES:
            for rates in _by_round(results, transport, count, stage):
                mean = sum(rates) / len(rates)
                slowest.append((min(rates) / mean, count, stage))
                fastest.append((max(rates) / mean, count, stage))
    if not slowest:
        return []
    middle = [spread(share for share, _, _ in shares).median for shares in (slowest, fastest)]
    (least, least_at, least_stage), (most, most_at, most_stage) = min(slowest), max(fastest)
    fair = "Nobody starves" if least > 0.5 else "Not all clients fare alike"
    return [
        f"{fair} over {name}: in the middle of the runs the slowest client has {middle[0]:.0%} of the average one's rate, and the fastest {middle[1]:.0%};",
        f"at the worst {least:.0%}, in {least_stage} with {least_at} clients, and {most:.0%}, in {most_stage} with {most_at}.",
    ]


def _on_baseline(results: Results) -> list[str]:
    sentences = []
    for count in results.numbers("testperf", "clients", contender="one-sync"):
        wanted = {"transport": "bridge", "operation": "insert", "client": "sum", "clients": count}
        ratio = results.ratio(
            "testperf", "ops_per_s", {"contender": "kvzmq", **wanted}, {"contender": "one-sync", **wanted}
        )
        if ratio.known:
            theirs = _sum(results, "bridge", count, "insert", contender="one-sync")
            sentences.append(
                f"{count}: {rate(theirs)}/s, kvzmq {times(ratio.median)} that ({ratio.least:.1f} to {ratio.greatest:.1f})"
            )
    if not sentences:
        return []
    return [
        "The same TestPerf inserts, with that many clients, on a select server that syncs each change by itself: "
        + "; ".join(sentences)
        + "."
    ]


# ---- group commit ----------------------------------------------------------------------------------------


def group_commit(results: Results) -> str:
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
                "The same server twice: as it is, and with --no-group-commit, which commits each request alone (columns `alone`).",
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
            f"For one client both do the same, as there is nothing to share a sync with: its ratio, {gains[first]:.2f}, says how exact the others are."
        )
    alone = [
        results.median("group_commit", "ops_per_s", contender="kvzmq-one-by-one", clients=count) for count in counts
    ]
    if len(counts) > 1 and max(alone) < 1.6 * min(alone):
        sentences.append(
            f"Without it the rate stays near {rate(spread(alone).median)}/s however many clients there are: it is the rate of syncs."
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
            f"Latency gains as well: p99 at {last} clients is {milliseconds(both[0])} ms instead of {milliseconds(both[1])} ms, as nobody queues behind others' syncs."
        )
    return sentences


# ---- bridge and ROUTER -----------------------------------------------------------------------------------


def transports(results: Results) -> str:
    """Compare the bridge with ROUTER."""
    parts = []
    counts = [count for count in _counts(results, "bridge") if count in _counts(results, "dealer")]
    if counts:
        rows = []
        for count in counts:
            ratios = []
            for stage in STAGES:
                wanted = {"contender": "kvzmq", "operation": stage, "client": "sum", "clients": count}
                ratio = results.ratio(
                    "testperf", "ops_per_s", {**wanted, "transport": "bridge"}, {**wanted, "transport": "dealer"}
                )
                ratios.append(decimal(ratio.median))
            rows.append([str(count), *ratios])
        parts += [
            "TestPerf, sum over the bridge divided by sum over DEALER (above 1 the bridge is faster):",
            table(("clients", *STAGES), rows),
        ]
    if results.has("clients"):
        parts += [
            "Processor time of one operation, microseconds, with one blocking client and with eight:",
            _cpu_table(results),
        ]
        parts.append(paragraph(*_on_transports(results)))
    return "\n\n".join(parts)


def _cpu(results: Results, contender: str, operation: str, clients: int, side: str) -> float:
    return results.median("clients", f"{side}_cpu_us_per_op", contender=contender, operation=operation, clients=clients)


def _cpu_table(results: Results) -> str:
    rows = []
    for operation in ("lookup", "insert", "size"):
        for clients in (1, 8):
            cells = [
                decimal(_cpu(results, contender, operation, clients, side), 1)
                for contender in ("kvzmq-bridge", "kvzmq")
                for side in ("server", "client")
            ]
            rows.append([operation, str(clients), *cells])
    return table(("operation", "clients", "bridge: server", "client", "ROUTER: server", "client"), rows)


def _on_transports(results: Results) -> list[str]:
    bridge, router = (_cpu(results, contender, "lookup", 1, "server") for contender in ("kvzmq-bridge", "kvzmq"))
    bridge_client, router_client = (
        _cpu(results, contender, "lookup", 1, "client") for contender in ("kvzmq-bridge", "kvzmq")
    )
    if any(math.isnan(figure) for figure in (bridge, router, bridge_client, router_client)):
        return []
    sentences = [
        f"For one lookup the server spends {bridge:.0f} us on the bridge and {router:.0f} us on ROUTER, the client {bridge_client:.0f} us and {router_client:.0f} us."
    ]
    if router > 1.1 * bridge:
        sentences.append(
            "ROUTER's time includes libzmq's I/O thread: a message crosses from it to the loop and back, with a wake-up each way,"
            " while a line of the bridge is read and written by the loop itself."
        )
    elif router < 0.9 * bridge:
        sentences.append("Here the bridge is the dearer one, JSON included.")
    crowd_bridge, crowd_router = (
        [_cpu(results, contender, "lookup", 8, side) for side in ("server", "client")]
        for contender in ("kvzmq-bridge", "kvzmq")
    )
    if sum(crowd_router) > 1.2 * sum(crowd_bridge):
        sentences.append(
            f"With eight clients, when the requests of a step share its poll, it is {crowd_bridge[0]:.0f} and {crowd_router[0]:.0f} us in the server,"
            f" {crowd_bridge[1]:.0f} and {crowd_router[1]:.0f} us in the client: {times(sum(crowd_router) / sum(crowd_bridge))} as much over ROUTER together."
        )
    sentences.append(
        "What ROUTER buys is not in this table: many operations in one message, retries that take effect once, bytes as values, watches."
    )
    return sentences


# ---- appendix --------------------------------------------------------------------------------------------


def every_client(results: Results) -> str:
    """List each client's rate, median over the rounds, in each run of TestPerf."""
    parts = []
    for transport, name in TRANSPORTS.items():
        counts = [count for count in _counts(results, transport) if count > 1]
        for count in counts:
            lines = [f"{count} clients over {name}, operations/s of client 1 to {count}:"]
            for stage in STAGES:
                figures = [
                    rate(
                        results.median(
                            "testperf", "ops_per_s", contender="kvzmq", transport=transport, clients=count, operation=stage, client=client
                        )
                    )
                    for client in range(1, count + 1)
                ]  # fmt: skip
                lines += _wrapped(stage, figures)
            parts.append("\n".join(lines))
    if not parts:
        return ""
    intro = paragraph(
        "Medians over the rounds; one client's own figures are those of the tables of sums. Latencies and every round are in",
        "benchmarks/results/testperf.csv.",
    )
    return "\n\n".join([intro, *parts])


def _wrapped(stage: str, figures: Sequence[str]) -> list[str]:
    wide = max(map(len, figures))
    lines = [" ".join(figure.rjust(wide) for figure in figures[at : at + 16]) for at in range(0, len(figures), 16)]
    return [f"    {(stage if not at else '').ljust(6)}  {line}" for at, line in enumerate(lines)]
