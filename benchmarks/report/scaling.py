"""Says what the figures of TestPerf bear: why sums grow, where they level off, and what an operation costs then."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import dropwhile, takewhile

from benchmarks.report.names import BRIDGE, STAGES, cores, transports_of
from benchmarks.report.testperf import LEVEL, costs_of, counts_of, level_of, rates_by_round, sum_of
from benchmarks.report.text import join, rate, times
from benchmarks.results import Results, spread

_FULL = 0.9
"""Of a processor, or of all: busy enough to be what limits."""

_SYNCS_MATTER = 0.2
"""Of the time: a loop that waits so long for the disk is said to."""

_ALIKE = 1.1
"""Costs that are so near to each other are called the same."""


def analyse(results: Results) -> list[list[str]]:
    found: list[list[str]] = []
    for transport, name in transports_of(results).items():
        counts = counts_of(results, transport)
        if len(counts) < 2:
            continue
        found.append(_on_system(results, transport, name, counts))
        found.append(_on_inserts(results, transport, name, counts))
        found.append(_on_lookups(results, transport, name, counts))
        found.append(_on_operations(results, transport, name, counts))
        found.append(_on_shares(results, transport, name, counts))
    found.append(_on_baseline(results))
    return found


def summary(results: Results, transport: str, name: str) -> list[str]:
    """Say in short what one client makes and what many make, why that grows, and why it ends: a paragraph each."""
    counts = counts_of(results, transport)
    rates = {
        stage: [(count, made) for count in counts if not math.isnan(made := sum_of(results, transport, count, stage))]
        for stage in STAGES
    }
    if any(len(rates[stage]) < 2 for stage in ("insert", "lookup")):
        return []
    best = {stage: max(pairs, key=lambda pair: pair[1]) for stage, pairs in rates.items() if pairs}
    alone = [f"{rate(rates[stage][0][1])} {stage}s/s" for stage in ("insert", "lookup")]
    many = [
        f"{rate(best[stage][1])} {stage}s/s ({best[stage][0]} clients, {times(gain)} as many)"
        for stage in ("insert", "lookup")
        for gain in (best[stage][1] / rates[stage][0][1],)
    ]
    levels = [
        f"{stage} {f'at {level}' if level else 'not yet'}"
        for stage, pairs in rates.items()
        if len(pairs) > 1
        for level in (level_of(pairs),)
    ]
    return [
        f"Over {name} {_one(counts[0])} makes {join(alone)}. Many at once make up to {join(many)}. The sums level off,"
        f" that is, come within {1 - LEVEL:.0%} of the best, with so many clients: {join(levels)}.",
        *_why_it_grows(results, transport, best),
        "Why the sums end there: "
        + "; ".join(
            f"{stage}s are best with {best[stage][0]} clients, {_limit(results, transport, stage, best[stage][0])}"
            for stage in ("insert", "lookup")
        )
        + ".",
    ]


def _why_it_grows(results: Results, transport: str, best: Mapping[str, tuple[int, float]]) -> list[str]:
    first, many = counts_of(results, transport)[0], best["insert"][0]
    said = []
    alone, shared = (sum_of(results, transport, count, "insert", "changes_per_sync") for count in (first, many))
    if alone < 1.2 and shared > 1.5:
        said.append(
            f"a lone insert waits for a sync of its own, and with {many} clients {shared:.1f} inserts share one"
        )
    busy = sum_of(results, transport, first, "lookup", "server_busy")
    if busy < 0.75 and best["lookup"][0] > first:
        said.append(
            f"one client's lookups keep the server busy for {busy:.0%} of the time, and more clients fill the rest"
        )
    return [f"Why they grow: {'; '.join(said)}."] if said else []


def _on_system(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    """Say what the system as a whole is made of: waiting while few ask, processors from then on."""
    all_cores = cores(results)
    first = sum_of(results, transport, counts[0], "lookup", "machine_busy")
    full = next(
        (count for count in counts if sum_of(results, transport, count, "lookup", "machine_busy") >= _FULL * all_cores),
        None,
    )
    if math.isnan(first) or full is None or full == counts[0]:
        return []
    server, others = costs_of(results, transport, full, "lookup")
    made = sum_of(results, transport, full, "lookup")
    return [
        f"The machine as a whole, over {name}: with {_one(counts[0])} {first:.1f} of {all_cores} processors are"
        " busy; an operation is mostly waiting, and on its way.",
        f"With {full} clients lookups keep all processors busy, and from there on the processors set the sum:",
        f"one lookup costs {server:.0f} us in the server and {others:.0f} us in clients and kernel, which makes"
        f" {rate(all_cores * 1e6 / (server + others))}/s of {all_cores} full processors; {rate(made)}/s are measured.",
        f"Clients and kernel take {others / (server + others):.0%} of that, so this limit is the machine's. With the"
        " clients on other machines the server would have gone on,"
        f" to some {1e6 / server:,.0f}/s for each processor it can fill: an extrapolation, not a figure.",
    ]


def _on_inserts(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    rates = [(count, sum_of(results, transport, count, "insert")) for count in counts]
    first, (best_at, best) = rates[0][1], max(rates, key=lambda pair: pair[1])
    one_changes, best_changes = (
        sum_of(results, transport, count, "insert", "changes_per_sync") for count in (counts[0], best_at)
    )
    one_syncs, best_syncs = (
        sum_of(results, transport, count, "insert", "syncs_per_s") for count in (counts[0], best_at)
    )
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
            f"With {best_at} the server syncs {rate(best_syncs)} times a second, {relation} the"
            f" {rate(one_syncs)} it makes for one,"
            f" {link} each sync carries {best_changes:.1f} changes: what arrived while it waited for the disk."
        )
    return (
        sentences + _where_it_ends(results, transport, "insert", rates) + _on_fall(results, transport, "insert", rates)
    )


def _on_lookups(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    rates = [(count, sum_of(results, transport, count, "lookup")) for count in counts]
    first, (best_at, best) = rates[0][1], max(rates, key=lambda pair: pair[1])
    busy_one = sum_of(results, transport, counts[0], "lookup", "server_busy")
    together = (
        f", the best sum is {rate(best)}/s with {best_at}, {times(best / first)} as many"
        if best_at != counts[0]
        else ", more clients less"
    )
    sentences = [f"Lookups over {name}: {_one(counts[0])} makes {rate(first)}/s{together}."]
    if busy_one < 0.75 and best > 1.2 * first:
        sentences.append(
            f"One client keeps the server's thread{'' if transport == BRIDGE else 's'} busy for"
            f" {busy_one:.0%} of a processor:"
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
    return [f"It levels off {within}, and is best with {best_at}, {_limit(results, transport, stage, best_at)}."]


def _limit(results: Results, transport: str, stage: str, count: int) -> str:
    """Say how busy the processors are with so many clients, and what ends the growth."""
    busy, server = (sum_of(results, transport, count, stage, field) for field in ("machine_busy", "server_busy"))
    start = f"where {busy:.1f} of {cores(results)} processors are busy, {server:.1f} of that with the server"
    if server >= _FULL and transport == BRIDGE:
        return f"{start}: its one thread is what ends it"
    if busy >= _FULL * cores(results):
        return f"{start}: the processors are what ends it, and the clients take {1 - server / busy:.0%} of them"
    if server >= _FULL:
        return f"{start}, whose two threads, the loop's and libzmq's, share that: one of them may be full"
    sync_ms = results.median("limits", "p50_ms", what="1 insert", how="overwrite")
    share = sum_of(results, transport, count, stage, "syncs_per_s") * sync_ms / 1000
    if share >= _SYNCS_MATTER:
        return (
            f"{start}: neither is full, and the loop waits for the disk, for {share:.0%} of the time if a sync"
            f" takes the {sync_ms:.2f} ms it takes alone"
        )
    return f"{start}: neither is full, and what is left is waiting for each other: wake-ups and the way there and back"


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
        costs_of(results, transport, best_at, stage),
        costs_of(results, transport, last_at, stage),
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
    reason = (
        f"{last_at} processes take turns on {cores(results)} processors, and each finds the caches full of"
        " the others'; that is the likely reason, not a measured one."
    )
    return [f"{sentence}: one {stage} now costs {join(said)}.", reason if grown else ""]


def _on_operations(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    single = {stage: sum_of(results, transport, counts[0], stage) for stage in STAGES}
    many = {stage: sum_of(results, transport, counts[-1], stage) for stage in STAGES}
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
        best = max(sum_of(results, transport, count, "lookup") for count in counts)
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
            f"A query returns four rows through the index and reaches {single['query'] / single['lookup']:.0%}"
            " of a lookup's rate."
        )
    return sentences


def _on_shares(results: Results, transport: str, name: str, counts: Sequence[int]) -> list[str]:
    slowest, fastest = [], []
    for count in counts[1:]:
        for stage in STAGES:
            for rates in rates_by_round(results, transport, count, stage):
                mean = sum(rates) / len(rates)
                slowest.append((min(rates) / mean, count, stage))
                fastest.append((max(rates) / mean, count, stage))
    if not slowest:
        return []
    middle = [spread(share for share, _, _ in shares).median for shares in (slowest, fastest)]
    (least, least_at, least_stage), (most, most_at, most_stage) = min(slowest), max(fastest)
    fair = "All clients get their share" if least > 0.5 else "Not all clients fare alike"
    return [
        f"{fair} over {name}: in the middle of the runs the slowest client has {middle[0]:.0%} of the average"
        f" one's rate, and the fastest {middle[1]:.0%};",
        f"at the worst {least:.0%}, in {least_stage} with {least_at} clients, and {most:.0%}, in {most_stage}"
        f" with {most_at}.",
    ]


def _on_baseline(results: Results) -> list[str]:
    sentences = []
    for count in results.numbers("testperf", "clients", contender="one-sync"):
        wanted = {"transport": "bridge", "operation": "insert", "client": "sum", "clients": count}
        ratio = results.ratio(
            "testperf", "ops_per_s", {"contender": "kvzmq", **wanted}, {"contender": "one-sync", **wanted}
        )
        if ratio.known:
            theirs = sum_of(results, "bridge", count, "insert", contender="one-sync")
            sentences.append(
                f"{count}: {rate(theirs)}/s, kvzmq {times(ratio.median)} that ({ratio.least:.1f} to"
                f" {ratio.greatest:.1f})"
            )
    if not sentences:
        return []
    return [
        "The same TestPerf inserts, with that many clients, on a select server that syncs each change by itself: "
        + "; ".join(sentences)
        + "."
    ]
