"""What was aimed for, and what this run says: each target is a ratio of two figures of the same rounds.

A verdict is by the median of the rounds' ratios. It says so when the rounds do not agree on it: then another
run may say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks.results import NONE, OVER, PYZMQ, Results, Spread, ratio_of, spread
from benchmarks.run.storage import QUERIES_TOGETHER

OVER_PYZMQ = f"kvzmq{OVER}{PYZMQ}"
_CURVE = f"kvzmq-curve{OVER}{PYZMQ}"

Ratio = Callable[[Results], Spread]
Text = Callable[[Results], str]


class Source(NamedTuple):
    """Where a target's figures come from.

    experiment  measures them
    measure     returns the ratio, or the figure itself
    figures     says what stands behind a ratio, in absolute figures
    """

    experiment: str
    measure: Ratio
    figures: Text = lambda results: ""


class Target(NamedTuple):
    """One aim.

    bound     what the ratio has to be at least, or at most
    at_most   which of the two
    unit      "x" for a ratio, or what the figure is counted in
    """

    work: str
    against: str
    bound: float
    source: Source
    at_most: bool = False
    unit: str = "x"

    @property
    def command(self) -> str:
        """What measures it again."""
        return f"python -m benchmarks.run --only {self.source.experiment}"

    def meets(self, figure: float) -> bool:
        """Say whether a figure reaches the aim."""
        return figure <= self.bound if self.at_most else figure >= self.bound

    def verdict(self, results: Results) -> str:
        """Return met, missed or not measured; and whether the rounds disagree."""
        found = self.source.measure(results)
        if not found.known:
            return "not measured"
        word = "met" if self.meets(found.median) else "missed"
        agreed = self.meets(found.least) == self.meets(found.greatest)
        return word if agreed else f"{word}, rounds disagree"


def _rates(experiment: str, ours: Mapping[str, object], theirs: Mapping[str, object]) -> Source:
    """Return the ratio of two rates, and the text of the rates."""

    def figures(results: Results) -> str:
        one, other = (results.median(experiment, "ops_per_s", **wanted) for wanted in (ours, theirs))
        return "" if math.isnan(one) or math.isnan(other) else f"{one:,.0f}/s : {other:,.0f}/s"

    return Source(experiment, lambda results: results.ratio(experiment, "ops_per_s", ours, theirs), figures)


def _cost(contender: str, other: str, clients: int) -> Source:
    """Return the ratio of the client's processor time for a lookup, and the text of the two."""

    def figures(results: Results) -> str:
        ours, theirs = (
            results.median("clients", "client_cpu_us_per_op", **_single(name, "lookup", clients))
            for name in (contender, other)
        )
        return "" if math.isnan(ours) or math.isnan(theirs) else f"{ours:.1f} us : {theirs:.1f} us"

    def measure(results: Results) -> Spread:
        return results.ratio(
            "clients",
            "client_cpu_us_per_op",
            _single(contender, "lookup", clients),
            _single(other, "lookup", clients),
        )

    return Source("clients", measure, figures)


def _startup(field: str) -> Source:
    """Return the ratio of what a program takes to its first answer, and the text of both."""
    ours, theirs = ({"contender": name, "program": "first answer"} for name in ("kvzmq", OVER_PYZMQ))

    def figures(results: Results) -> str:
        one, other = (1e3 * results.median("startup", field, **wanted) for wanted in (ours, theirs))
        return "" if math.isnan(one) or math.isnan(other) else f"{one:.0f} ms : {other:.0f} ms"

    return Source("startup", lambda results: results.ratio("startup", field, ours, theirs), figures)


def _lasting_tasks(operation: str) -> Source:
    """Return the ratio of 1,000 tasks of ours that last to redis.asyncio's with its best number of them."""
    ours = {"contender": "kvzmq", "operation": operation, "batch": "lasting_tasks", "clients": 1000}

    def theirs(results: Results) -> dict[str, object]:
        wanted: dict[str, object] = {"contender": "redis", "operation": operation, "batch": "lasting_tasks"}
        rates = {
            count: results.median("tasks", "ops_per_s", clients=count, **wanted)
            for count in results.numbers("tasks", "clients", **wanted)
        }
        return {**wanted, "clients": max(rates, key=lambda count: rates[count], default=0)}

    def figures(results: Results) -> str:
        best = theirs(results)
        one, other = (results.median("tasks", "ops_per_s", **wanted) for wanted in (ours, best))
        if math.isnan(one) or math.isnan(other):
            return ""
        return f"{one:,.0f}/s : {other:,.0f}/s with {best['clients']:,}"

    return Source("tasks", lambda results: results.ratio("tasks", "ops_per_s", ours, theirs(results)), figures)


def _worst(*ratios: Ratio, greatest: bool = False) -> Ratio:
    """Return the ratio that is furthest from its aim: all of them have to reach it."""

    def measure(results: Results) -> Spread:
        found = [ratio(results) for ratio in ratios]
        if not all(each.known for each in found):
            return NONE
        return max(found, key=lambda each: each.median) if greatest else min(found, key=lambda each: each.median)

    return measure


def _row_cost(operation: str) -> Ratio:
    def measure(results: Results) -> Spread:
        sizes = results.numbers("growth", "rows")
        if len(sizes) < 2:
            return NONE
        least, greatest = sizes[0], sizes[-1]
        return results.ratio(
            "growth",
            "server_cpu_us_per_op",
            {"rows": greatest, "operation": operation},
            {"rows": least, "operation": operation},
        )

    return measure


def _row_costs_text(results: Results) -> str:
    sizes = results.numbers("growth", "rows")
    if len(sizes) < 2:
        return ""
    texts = []
    for operation in ("insert", "lookup"):
        costs = [
            results.median("growth", "server_cpu_us_per_op", rows=size, operation=operation)
            for size in (sizes[0], sizes[-1])
        ]
        texts.append(f"{operation} {costs[0]:.1f} -> {costs[1]:.1f} us")
    return f"{sizes[0]:,} to {sizes[-1]:,} rows: {', '.join(texts)}"


def _compaction_ratio(results: Results) -> Spread:
    return results.ratio("compaction", "p999_ms", {"phase": "compacting"}, {"phase": "quiet"})


def _compaction_text(results: Results) -> str:
    quiet, busy = (results.median("compaction", "p999_ms", phase=phase) for phase in ("quiet", "compacting"))
    return "" if math.isnan(quiet) else f"{busy:.1f} ms : {quiet:.1f} ms"


def _load_ratio(results: Results) -> Spread:
    rows = _compared_rows(results)
    ours = results.by_round("recovery", "seconds", contender="kvzmq", rows=rows, **{"from": "checkpoint"})
    theirs = results.by_round("recovery", "seconds", contender="redis", rows=rows, **{"from": "checkpoint"})
    return ratio_of(theirs, ours)  # times: the shorter one is the better


def _compared_rows(results: Results) -> int:
    return max(results.numbers("recovery", "rows", contender="redis"), default=0)


def _load_text(results: Results) -> str:
    rows = _compared_rows(results)
    times = [
        results.median("recovery", "seconds", contender=name, rows=rows, **{"from": "checkpoint"})
        for name in ("kvzmq", "redis")
    ]
    return f"{rows:,} rows: {times[0]:.2f} s : {times[1]:.2f} s" if rows else ""


def _memory_ratio(results: Results) -> Spread:
    rows = max(results.numbers("memory", "rows", contender="redis-memory"), default=0)
    ours = results.median("memory", "bytes_per_row", contender="kvzmq", rows=rows)
    return spread([ours / results.median("memory", "bytes_per_row", contender="redis-memory", rows=rows)])


def _memory_text(results: Results) -> str:
    rows = max(results.numbers("memory", "rows", contender="redis-memory"), default=0)
    sizes = [results.median("memory", "bytes_per_row", contender=name, rows=rows) for name in ("kvzmq", "redis-memory")]
    return f"{rows:,} rows: {sizes[0]:.0f} B : {sizes[1]:.0f} B" if rows else ""


def _flat_query(results: Results) -> Spread:
    sizes = results.numbers("queries", "rows", contender="kvzmq")
    if len(sizes) < 2:
        return NONE
    return results.ratio("queries", "p50_ms", _query(sizes[-1]), _query(sizes[0]))


def _flat_query_text(results: Results) -> str:
    sizes = results.numbers("queries", "rows", contender="kvzmq")
    return ", ".join(f"{size:,} rows: {results.median('queries', 'p50_ms', **_query(size)):.3f} ms" for size in sizes)


def _query(rows: int, batch: int = 1) -> dict[str, object]:
    return {"contender": "kvzmq", "rows": rows, "batch": batch}


def _single(contender: str, operation: str, clients: int) -> dict[str, object]:
    return {"contender": contender, "operation": operation, "clients": clients}


def _call(contender: str, operation: str, clients: int) -> dict[str, object]:
    """As `_single`, in an experiment that has batches, too."""
    return {**_single(contender, operation, clients), "batch": 1}


def _batch(contender: str, operation: str) -> dict[str, object]:
    return {"contender": contender, "operation": operation, "batch": 1000}


def _tasks(contender: str, operation: str) -> dict[str, object]:
    return {"contender": contender, "operation": operation, "batch": "tasks", "clients": 1000}


def _window(contender: str, operation: str) -> dict[str, object]:
    return {"contender": contender, "operation": operation, "in_flight": 64}


def _perf(contender: str, clients: int) -> dict[str, object]:
    return {"contender": contender, "transport": "bridge", "operation": "insert", "client": "sum", "clients": clients}


def _cluster(servers: int | str, operation: str, in_flight: int = 256) -> dict[str, object]:
    return {"contender": "kvzmq-etcd", "servers": servers, "operation": operation, "in_flight": in_flight, "batch": 1}


def _hearing(results: Results) -> Spread:
    return results.spread("cluster_following", "p50_ms", role="event received")


def _gap(killed: str) -> Source:
    """Return how much longer than etcd's own client nobody was served, seconds: the longest round of ours."""

    def measure(results: Results) -> Spread:
        ours = results.by_round("cluster_kills", "gap_s", killed=killed, client="kvzmq-etcd")
        theirs = results.by_round("cluster_kills", "gap_s", killed=killed, client="etcd-grpc")
        return spread(ours[at] - theirs[at] for at in ours if at in theirs)

    return Source("cluster_kills", measure)


def _rate(experiment: str, wanted: Mapping[str, object]) -> Source:
    """Return one rate of our own."""

    def figures(results: Results) -> str:
        rate = results.median(experiment, "ops_per_s", **wanted)
        return "" if math.isnan(rate) else f"{rate:,.0f}/s"

    return Source(experiment, lambda results: results.spread(experiment, "ops_per_s", **wanted), figures)


TARGETS = (
    Target("lookup, one blocking client", "redis-py GET", 1,
            _rates("clients", _single("kvzmq", "lookup", 1), _single("redis", "lookup", 1))),
    Target("lookup, 8 blocking clients", "redis-py GET", 1,
            _rates("clients", _single("kvzmq", "lookup", 8), _single("redis", "lookup", 8))),
    Target("lookup, 8 blocking clients", "bare ROUTER echo, frames over the same socket", 0.8,
            _rates("clients", _single("kvzmq", "lookup", 8), _single("router-echo", "lookup", 8))),
    Target("durable insert, one blocking client", "redis-py SET, appendfsync always", 1,
            _rates("clients", _single("kvzmq", "insert", 1), _single("redis", "insert", 1))),
    Target("durable insert, 8 blocking clients", "redis-py SET, appendfsync always", 1.3,
            _rates("clients", _single("kvzmq", "insert", 8), _single("redis", "insert", 8))),
    Target("durable insert, 64 blocking clients", "64 redis-py clients, appendfsync always", 1.3,
            _rates("libraries", _single("kvzmq", "insert", 64), _single("redis", "insert", 64))),
    Target("lookup, 64 blocking clients", "64 redis-py clients", 1.3,
            _rates("libraries", _single("kvzmq", "lookup", 64), _single("redis", "lookup", 64))),
    Target("client's processor time of a lookup, one client", "kvzmq over pyzmq", 0.4,
            _cost("kvzmq", OVER_PYZMQ, 1), at_most=True),
    Target("client's processor time of a lookup, 8 clients", "kvzmq over pyzmq", 0.4,
            _cost("kvzmq", OVER_PYZMQ, 8), at_most=True),
    Target("lookup with CURVE, one blocking client", "kvzmq in plain, over pyzmq", 0.8,
            _rates("curve", _call(_CURVE, "lookup", 1), _call(OVER_PYZMQ, "lookup", 1))),
    Target("lookup with CURVE, 8 blocking clients", "kvzmq in plain, over pyzmq", 0.8,
            _rates("curve", _call(_CURVE, "lookup", 8), _call(OVER_PYZMQ, "lookup", 8))),
    Target("batch of 1,000 durable inserts with CURVE", "kvzmq in plain, over pyzmq", 0.8,
            _rates("curve", _batch(_CURVE, "insert"), _batch(OVER_PYZMQ, "insert"))),
    Target("lookup, one blocking client, with a page of metrics", "a server that measures nothing", 0.98,
            _rates("metrics", _single("kvzmq-metrics", "lookup", 1), _single("kvzmq-unobserved", "lookup", 1))),
    Target("lookup, 8 blocking clients, with a page of metrics", "a server that measures nothing", 0.98,
            _rates("metrics", _single("kvzmq-metrics", "lookup", 8), _single("kvzmq-unobserved", "lookup", 8))),
    Target("durable insert, 8 blocking clients, with a page of metrics", "a server that measures nothing", 0.98,
            _rates("metrics", _single("kvzmq-metrics", "insert", 8), _single("kvzmq-unobserved", "insert", 8))),
    Target("processor time from start to first answer", "kvzmq over pyzmq", 0.6,
            _startup("cpu_s"), at_most=True),
    Target("time from start to first answer", "kvzmq over pyzmq", 0.6,
            _startup("seconds"), at_most=True),
    Target("asyncio lookup, 1,000 tasks", "kvzmq over pyzmq", 1.1,
            _rates("tasks", _tasks("kvzmq", "lookup"), _tasks(OVER_PYZMQ, "lookup"))),
    Target("asyncio durable insert, 1,000 tasks", "kvzmq over pyzmq", 1.1,
            _rates("tasks", _tasks("kvzmq", "insert"), _tasks(OVER_PYZMQ, "insert"))),
    Target("asyncio lookup, 1,000 tasks that last", "redis.asyncio, its best number of them", 10,
            _lasting_tasks("lookup")),
    Target("asyncio durable insert, 1,000 tasks that last", "redis.asyncio, its best number of them", 10,
            _lasting_tasks("insert")),
    Target("durable insert, batches of 1,000, one client", "kvzmq over pyzmq", 1,
            _rates("batches", _batch("kvzmq", "insert"), _batch(OVER_PYZMQ, "insert"))),
    Target("lookup, batches of 1,000, one client", "kvzmq over pyzmq", 1,
            _rates("batches", _batch("kvzmq", "lookup"), _batch(OVER_PYZMQ, "lookup"))),
    Target("durable insert, batches of 1,000, one client", "redis-py MSET of 1,000, appendfsync always", 1,
            _rates("batches", _batch("kvzmq", "insert"), _batch("redis-many", "insert"))),
    Target("lookup, batches of 1,000, one client", "redis-py MGET of 1,000", 1,
            _rates("batches", _batch("kvzmq", "lookup"), _batch("redis-many", "lookup"))),
    Target("durable insert, batches of 1,000, one client", "redis-py pipeline of 1,000, appendfsync always", 8,
            _rates("batches", _batch("kvzmq", "insert"), _batch("redis", "insert"))),
    Target("lookup, batches of 1,000, one client", "redis-py pipeline", 5,
            _rates("batches", _batch("kvzmq", "lookup"), _batch("redis", "lookup"))),
    Target("asyncio lookup, 1,000 tasks", "redis.asyncio", 10,
            _rates("tasks", _tasks("kvzmq", "lookup"), _tasks("redis", "lookup"))),
    Target("asyncio durable insert, 1,000 tasks", "redis.asyncio, appendfsync always", 10,
            _rates("tasks", _tasks("kvzmq", "insert"), _tasks("redis", "insert"))),
    Target("durable insert, 64 in flight", "own lookup, 64 in flight", 0.9,
            _rates("in_flight", _window("kvzmq", "insert"), _window("kvzmq", "lookup"))),
    Target("durable insert, 64 blocking clients", "Redis, 64 redis-py clients", 1.5,
            _rates("libraries", _single("kvzmq", "insert", 64), _single("redis", "insert", 64))),
    Target("durable insert, 64 bare connections", "Redis, 64 bare connections", 1.5,
            _rates("sockets", _single("kvzmq", "insert", 64), _single("redis", "insert", 64))),
    Target("lookup, one blocking client", "bare ROUTER echo, frames over the same socket", 0.9,
            _rates("clients", _single("kvzmq", "lookup", 1), _single("router-echo", "lookup", 1))),
    Target("lookup, 8 clients, bridge", "bare epoll JSON echo", 0.8,
            _rates("clients", _single("kvzmq-bridge", "lookup", 8), _single("json-echo", "lookup", 8))),
    Target("lookup, 8 clients, bridge", "redis-py GET", 1.1,
            _rates("clients", _single("kvzmq-bridge", "lookup", 8), _single("redis", "lookup", 8))),
    Target("TestPerf inserts, 8 clients, sum", "one-sync-a-change server", 4,
            _rates("testperf", _perf("kvzmq", 8), _perf("one-sync", 8))),
    Target("TestPerf inserts, 16 clients, sum", "one-sync-a-change server", 4,
            _rates("testperf", _perf("kvzmq", 16), _perf("one-sync", 16))),
    Target("query with 10 matches in 100,000 rows, one by one", "a scan", 100,
            _rates("queries", _query(100_000), {"contender": "one-sync-filled"})),
    Target("query with 10 matches in 100,000 rows, 64 at a time", "a scan", 100,
            _rates("queries", _query(100_000, QUERIES_TOGETHER), {"contender": "one-sync-filled"})),
    Target("query, from the smallest table to the largest", "itself", 1.2,
            Source("queries", _flat_query, _flat_query_text), at_most=True),
    Target("load a checkpoint", "Redis loading its RDB", 1,
            Source("recovery", _load_ratio, _load_text)),
    Target("server CPU per operation, smallest to largest table", "itself", 1.2,
            Source("growth", _worst(_row_cost("insert"), _row_cost("lookup"), greatest=True), _row_costs_text),
            at_most=True),
    Target("p99.9 of insert while compacting", "itself without", 2,
            Source("compaction", _compaction_ratio, _compaction_text), at_most=True),
    Target("memory per row (16 B key, 32 B value)", "Redis", 2,
            Source("growth", _memory_ratio, _memory_text), at_most=True),
    Target("insert_many of 1,000 rows a request, one client", "rows a second", 300_000,
            _rate("batches", _batch("kvzmq", "insert")), unit="/s"),
    Target("64 outstanding single inserts, one client", "inserts a second", 20_000,
            _rate("in_flight", _window("kvzmq", "insert")), unit="/s"),
    *(
        Target(f"durable insert, {servers} server{'s' if servers > 1 else ''} on etcd, 256 in flight",
               "puts into etcd by gRPC, 256 in flight", 5,
               _rates("cluster", _cluster(servers, "insert"),
                      {"contender": "etcd-grpc", "operation": "insert", "in_flight": 256}))
        for servers in (1, 2, 3)
    ),
    *(
        Target(f"session lookups at one of {servers} servers on etcd, 256 in flight",
               "one server whose log is on the disk", 0.9,
               _rates("cluster", _cluster(f"1 of {servers}", "session lookup"),
                      {"contender": "kvzmq", "operation": "session lookup", "in_flight": 256, "batch": 1}))
        for servers in (1, 2, 3)
    ),
    Target("a watcher at another server hears of an insert, median", "milliseconds", 10,
           Source("cluster_following", _hearing), at_most=True, unit=" ms"),
    *(
        Target(f"nobody served after the {killed} is killed", "longer than etcd's own client, seconds", 1,
               _gap(killed), at_most=True, unit=" s")
        for killed in ("kvzmq server", "etcd follower", "etcd leader")
    ),
)  # fmt: skip
"""All aims with a number."""


def format_figure(target: Target, figure: float) -> str:
    """Write a figure of a target in its unit."""
    if math.isnan(figure):
        return "-"
    if target.unit == "/s":
        return f"{figure:,.0f}/s"
    unit = target.unit
    return f"{figure:.2f}{unit}" if figure < 10 else f"{figure:.1f}{unit}"
