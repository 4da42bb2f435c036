"""The sections on ever more clients: TestPerf, group commit, bridge against ROUTER."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.results import Results, number, spread
from benchmarks.text import bars, decimal, milliseconds, paragraph, rate, table, times

STAGES = ("insert", "lookup", "size", "query", "remove")
TRANSPORTS = {"bridge": "the bridge", "dealer": "DEALER"}
LEVEL = 0.9
"""A sum that reaches so much of the best one has levelled off: TestPerf says so too."""

_FULL = 0.9
"""Of a processor, or of all: busy enough to be what limits."""


def _sum(results: Results, transport: str, clients: int, operation: str, field: str = "ops_per_s", contender: str = "kvzmq") -> float:
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
            "of them were at work. Every client is a process of its own.",
        )
    ]
    for transport, name in TRANSPORTS.items():
        counts = _counts(results, transport)
        if not counts:
            continue
        rows = [[str(count), *(rate(_sum(results, transport, count, stage)) for stage in STAGES)] for count in counts]
        levels = {stage: level_of([(count, _sum(results, transport, count, stage)) for count in counts]) for stage in STAGES}
        rows += [[], ["levels off at", *(str(levels[stage] or "-") for stage in STAGES)]]
        parts += [f"Sums over {name}, operations/s:", table(("clients", *STAGES), rows)]
        rows = [[str(count), *(rate(_sum(results, transport, count, stage) / count) for stage in STAGES)] for count in counts]
        parts += [f"One client's share over {name}, operations/s (section 13 has every client):", table(("clients", *STAGES), rows)]
        for stage in ("insert", "lookup"):
            drawn = {f"{count:2} client{'s' if count > 1 else ' '}": _sum(results, transport, count, stage) for count in counts}
            parts += [f"Sums of {stage} over {name}:", bars(drawn, "/s")]
    parts += ["What the machine was doing meanwhile (processors busy; syncs of the server):", _machine_table(results)]
    parts += [paragraph(*sentences) for sentences in _analysis(results) if any(sentences)]
    return "\n\n".join(parts)


def _machine_table(results: Results) -> str:
    header = ("over", "clients", "operation", "sum/s", "p50 ms", "p99 ms", "server busy", "all busy", "syncs/s", "changes/sync")
    rows: list[list[str]] = []
    for transport in TRANSPORTS:
        for stage in ("insert", "lookup", "query"):
            for count in _counts(results, transport):

                def figure(field: str, stage: str = stage, count: int = count, transport: str = transport) -> float:
                    return _sum(results, transport, count, stage, field)

                writes = stage == "insert"
                rows.append(
                    [
                        transport, str(count), stage, rate(figure("ops_per_s")),
                        milliseconds(figure("p50_ms")), milliseconds(figure("p99_ms")),
                        decimal(figure("server_busy")), decimal(figure("machine_busy")),
                        rate(figure("syncs_per_s")) if writes else "", decimal(figure("changes_per_sync"), 1) if writes else "",
                    ]
                )  # fmt: skip
            rows.append([])
    return table(header, rows[:-1], left=1)


def _analysis(results: Results) -> list[list[str]]:
    found: list[list[str]] = []
    for transport, name in TRANSPORTS.items():
        counts = _counts(results, transport)
        if len(counts) < 2:
            continue
        found.append(_on_inserts(results, transport, name, counts))
        found.append(_on_lookups(results, transport, name, counts))
        found.append(_on_operations(results, transport, name, counts))
        found.append(_on_shares(results, transport, name, counts))
    found.append(_on_baseline(results))
    return found


def _on_inserts(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    rates = [(count, _sum(results, transport, count, "insert")) for count in counts]
    first, (best_at, best) = rates[0][1], max(rates, key=lambda pair: pair[1])
    one_changes, best_changes = (_sum(results, transport, count, "insert", "changes_per_sync") for count in (counts[0], best_at))
    one_syncs, best_syncs = (_sum(results, transport, count, "insert", "syncs_per_s") for count in (counts[0], best_at))
    sentences = [f"Inserts over {name}: {_one(counts[0])} makes {rate(first)}/s, {best_at} together make {rate(best)}/s, {times(best / first)} as many."]
    if one_changes < 1.2:
        sentences.append("Alone, every insert waits for a sync of its own.")
    if best_changes > 1.5:
        relation = "more than" if best_syncs > 1.15 * one_syncs else "fewer than" if best_syncs < 0.87 * one_syncs else "about as often as"
        link = "and" if best_syncs > 1.15 * one_syncs else "but"
        sentences.append(
            f"With {best_at} the server syncs {rate(best_syncs)} times a second, {relation} the {rate(one_syncs)} it makes for one,"
            f" {link} each sync carries {best_changes:.1f} changes: what arrived while it waited for the disk."
        )
    sentences += _where_it_ends(results, transport, "insert", rates)
    return sentences


def _on_lookups(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    rates = [(count, _sum(results, transport, count, "lookup")) for count in counts]
    first, (best_at, best) = rates[0][1], max(rates, key=lambda pair: pair[1])
    busy_one = _sum(results, transport, counts[0], "lookup", "server_busy")
    sentences = [f"Lookups over {name}: {_one(counts[0])} makes {rate(first)}/s, the best sum is {rate(best)}/s with {best_at}, {times(best / first)} as many."]
    if busy_one < 0.75 and best > 1.2 * first:
        sentences.append(
            f"One client keeps the server's thread{'s' if transport == 'dealer' else ''} busy for {busy_one:.0%} of a processor:"
            " the rest of the time the request is with the client, or on its way. More clients fill that time."
        )
    sentences += _where_it_ends(results, transport, "lookup", rates)
    last = rates[-1]
    if last[1] < 0.85 * best:
        sentences.append(f"With {last[0]} the sum has fallen again, to {rate(last[1])}/s: the processes compete for the processors with the server they wait for.")
    return sentences


def _one(count: int) -> str:
    return "one client alone" if count == 1 else f"{count} clients"


def _where_it_ends(results: Results, transport: str, stage: str, rates: Sequence[tuple[int, float]]) -> list[str]:
    level = level_of(rates)
    if level is None:
        return [f"The sum had not levelled off at {rates[-1][0]} clients."]
    busy, server = (_sum(results, transport, level, stage, field) for field in ("machine_busy", "server_busy"))
    all_cores = cores(results)
    start = f"It levels off at {level} clients (within {1 - LEVEL:.0%} of the best sum), where {busy:.1f} of {all_cores} processors are busy, {server:.1f} of that with the server"
    if busy >= _FULL * all_cores:
        clients_share = 1 - server / busy
        return [f"{start}: the processors are what ends it, and the clients take {clients_share:.0%} of them."]
    if server >= _FULL:
        return [f"{start}: its one thread is what ends it."]
    if stage in ("insert", "remove"):
        return [f"{start}: neither is full, so the loop waits for the disk."]
    return [f"{start}: neither is full, and what is left is waiting for each other: wake-ups and the way there and back."]


def _on_operations(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    single = {stage: _sum(results, transport, counts[0], stage) for stage in STAGES}
    many = {stage: _sum(results, transport, counts[-1], stage) for stage in STAGES}
    order = sorted((stage for stage in STAGES if not math.isnan(single[stage])), key=lambda stage: -single[stage])
    sentences = [
        f"Operation against operation, one client over {name}: " + ", ".join(f"{stage} {rate(single[stage])}/s" for stage in order) + "."
    ]
    if single["lookup"] > 1.5 * single["insert"]:
        sentences.append(f"A change takes {times(single['lookup'] / single['insert'])} as long as a lookup, which is the sync.")
    if many["lookup"] / many["insert"] < 0.8 * single["lookup"] / single["insert"]:
        sentences.append(
            f"With {counts[-1]} clients the sync is shared, and the distance shrinks to {times(many['lookup'] / many['insert'])}."
        )
    if abs(single["remove"] / single["insert"] - 1) < 0.15:
        sentences.append("A remove costs what an insert does: both are a line in the log.")
    if single["query"] < 0.9 * single["lookup"]:
        sentences.append(f"A query returns four rows through the index and reaches {single['query'] / single['lookup']:.0%} of a lookup's rate.")
    return sentences


def _on_shares(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    shares = []
    for count in counts[1:]:
        for stage in ("insert", "lookup"):
            per_round: dict[str, list[float]] = {}
            for row in results.rows("testperf", contender="kvzmq", transport=transport, clients=count, operation=stage):
                if row["client"] != "sum":
                    per_round.setdefault(row["round"], []).append(number(row, "ops_per_s"))
            shares += [(min(rates) / (sum(rates) / len(rates)), count, stage) for rates in per_round.values() if sum(rates)]
    if not shares:
        return []
    worst, at, stage = min(shares)
    middle = spread(share for share, _, _ in shares).median
    return [
        f"Nobody starves over {name}: in the middle of the runs the slowest client gets {middle:.0%} of the average one's rate;"
        if worst > 0.5
        else f"Not all clients fare alike over {name}: in the middle of the runs the slowest gets {middle:.0%} of the average rate,",
        f"the worst case is {worst:.0%}, in {stage} with {at} clients.",
    ]


def _on_baseline(results: Results) -> list[str]:
    sentences = []
    for count in results.numbers("testperf", "clients", contender="one-sync"):
        wanted = {"transport": "bridge", "operation": "insert", "client": "sum", "clients": count}
        ratio = results.ratio("testperf", "ops_per_s", {"contender": "kvzmq", **wanted}, {"contender": "one-sync", **wanted})
        if ratio.known:
            theirs = _sum(results, "bridge", count, "insert", contender="one-sync")
            sentences.append(f"{count}: {rate(theirs)}/s, kvzmq {times(ratio.median)} that ({ratio.least:.1f} to {ratio.greatest:.1f})")
    if not sentences:
        return []
    return ["The same TestPerf inserts, with that many clients, on a select server that syncs each change by itself: " + "; ".join(sentences) + "."]


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
                decimal(ratio.median), f"{ratio.least:.2f} to {ratio.greatest:.2f}",
                *(rate(results.median("group_commit", "syncs_per_s", **each)) for each in (grouped, single)),
                decimal(results.median("group_commit", "changes_per_sync", **grouped), 1),
                *(milliseconds(results.median("group_commit", "p99_ms", **each)) for each in (grouped, single)),
            ]
        )  # fmt: skip
    header = ("clients", "inserts/s", "alone/s", "ratio", "rounds", "syncs/s", "alone", "changes/sync", "p99 ms", "alone")
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
    if 0.85 < gains[first] < 1.18:
        sentences.append("For one client it changes nothing: there is nothing to share a sync with.")
    elif gains[first] <= 0.85:
        sentences.append(f"For one client it costs: the ratio is {gains[first]:.2f}, although there is nothing to share a sync with.")
    alone = [results.median("group_commit", "ops_per_s", contender="kvzmq-one-by-one", clients=count) for count in counts]
    if max(alone) < 1.6 * min(alone):
        sentences.append(f"Without it the rate stays near {rate(spread(alone).median)}/s however many clients there are: it is the rate of syncs.")
    if gains[last] > 1.3:
        sentences.append(f"With it, {last} clients get {times(gains[last])} as many inserts.")
        changes = results.median("group_commit", "changes_per_sync", contender="kvzmq", clients=last)
        sentences.append(f"A sync then carries {changes:.0f} changes of {last} that could be waiting.")
    both = [results.median("group_commit", "p99_ms", contender=name, clients=last) for name in ("kvzmq", "kvzmq-one-by-one")]
    if both[0] < both[1]:
        sentences.append(f"Latency gains as well: p99 at {last} clients is {milliseconds(both[0])} ms instead of {milliseconds(both[1])} ms, as nobody queues behind others' syncs.")
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
                ratio = results.ratio("testperf", "ops_per_s", {**wanted, "transport": "bridge"}, {**wanted, "transport": "dealer"})
                ratios.append(decimal(ratio.median))
            rows.append([str(count), *ratios])
        parts += ["TestPerf, sum over the bridge divided by sum over DEALER (above 1 the bridge is faster):", table(("clients", *STAGES), rows)]
    if results.has("clients"):
        parts += ["Processor time of one operation, microseconds, with one blocking client and with eight:", _cpu_table(results)]
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
    bridge_client, router_client = (_cpu(results, contender, "lookup", 1, "client") for contender in ("kvzmq-bridge", "kvzmq"))
    if any(math.isnan(figure) for figure in (bridge, router, bridge_client, router_client)):
        return []
    sentences = [
        f"For one lookup the server spends {bridge:.0f} us on the bridge and {router:.0f} us on ROUTER, the client {bridge_client:.0f} us and {router_client:.0f} us."
    ]
    if router > 1.1 * bridge:
        sentences.append(
            "ROUTER's time includes libzmq's I/O thread: a message crosses from it to the loop and back, with a wake-up each way,"
            " while a line of the bridge is read and written by the loop itself. That outweighs JSON."
        )
    elif router < 0.9 * bridge:
        sentences.append("Reading and writing JSON outweighs what libzmq's I/O thread adds to a message on ROUTER.")
    else:
        sentences.append("JSON on the one side and the hand-over between libzmq's I/O thread and the loop on the other cost about the same.")
    crowd_bridge, crowd_router = (_cpu(results, contender, "lookup", 8, "server") for contender in ("kvzmq-bridge", "kvzmq"))
    if crowd_router < 0.85 * router:
        sentences.append(f"With eight clients a lookup over ROUTER costs the server {crowd_router:.0f} us: messages that come together share the wake-ups.")
    if crowd_bridge < 0.85 * bridge:
        sentences.append(f"Over the bridge it is {crowd_bridge:.0f} us then: the requests of a step share its poll.")
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
        "Medians over the rounds; with one client the sum in section 3 is its figure. Latencies and every round are in",
        "benchmarks/results/testperf.csv.",
    )
    return "\n\n".join([intro, *parts])


def _wrapped(stage: str, figures: Sequence[str]) -> list[str]:
    wide = max(map(len, figures))
    lines = [" ".join(figure.rjust(wide) for figure in figures[at : at + 16]) for at in range(0, len(figures), 16)]
    return [f"    {(stage if not at else '').ljust(6)}  {line}" for at, line in enumerate(lines)]


