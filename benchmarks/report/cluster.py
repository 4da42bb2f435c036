"""The section on servers that share a log on etcd: their rates, what a watcher hears how soon, and gaps in service."""

from __future__ import annotations

from benchmarks.report.text import decimal, milliseconds, paragraph, rate, table, times
from benchmarks.results import Results
from benchmarks.run.cluster import IN_FLIGHT, KILLS, SERVERS

_OPERATIONS = ("insert", "lookup", "session lookup")


def write(results: Results) -> str:
    """Say what servers that share a log give, beside etcd itself and beside one server with a log on the disk."""
    parts = []
    if results.has("cluster"):
        parts += _rates(results)
    if results.has("cluster_following"):
        parts += _following(results)
    if results.has("cluster_kills"):
        parts += _kills(results)
    return "\n\n".join(parts)


def _rates(results: Results) -> list[str]:
    rows: list[list[str]] = []
    for operation in _OPERATIONS:
        if rows:
            rows.append([])
        for title, contender, servers in _contenders():
            if contender == "etcd-grpc" and operation == "session lookup":
                continue
            rows.append(
                [
                    operation,
                    title,
                    *(
                        rate(
                            results.median(
                                "cluster", "ops_per_s", contender=contender, servers=servers, operation=operation,
                                in_flight=in_flight, batch=1,
                            )
                        )
                        for in_flight in IN_FLIGHT
                    ),
                ]
            )  # fmt: skip
    batches = [
        [title, rate(results.median("cluster", "ops_per_s", contender=contender, servers=servers, batch=1000))]
        for title, contender, servers in _contenders()
        if contender != "etcd-grpc"
    ]
    at_256 = {
        servers: results.ratio(
            "cluster", "ops_per_s",
            {"contender": "kvzmq-etcd", "servers": servers, "operation": "insert", "in_flight": 256},
            {"contender": "etcd-grpc", "operation": "insert", "in_flight": 256},
        ).median
        for servers in SERVERS
    }  # fmt: skip
    return [
        paragraph(
            "Three etcd nodes, the servers and the clients, all on this one machine and one disk: a real cluster has",
            "machines for each. Operations a second by how many requests are unanswered at a time, from asyncio",
            "clients in up to two processes, evenly over the servers; etcd itself is asked by gRPC, evenly over its",
            "nodes. A lookup is linearizable: kvzmq asks etcd once a step, for all lookups in it; a session lookup",
            "asks nobody.",
        ),
        table(("", "", *(f"{count:,} in flight" for count in IN_FLIGHT)), rows, left=2),
        "Rows a second in batches of 1,000, one after the other, one client at one server:",
        table(("", "rows/s"), batches),
        paragraph(
            f"With 256 in flight one server inserts {times(at_256[1])} as much as clients that put into etcd",
            f"directly, two {times(at_256[2])}, three {times(at_256[3])}: a step is one put, however many requests",
            "it holds.",
        ),
    ]


def _contenders() -> list[tuple[str, str, int]]:
    shared = [(f"{count} server{'s' if count > 1 else ''}, log on etcd", "kvzmq-etcd", count) for count in SERVERS]
    return [("etcd itself, by gRPC", "etcd-grpc", 0), *shared, ("1 server, log on the disk", "kvzmq", 0)]


def _following(results: Results) -> list[str]:
    rows = [
        [
            role,
            *(
                milliseconds(results.median("cluster_following", field, role=role))
                for field in ("min_ms", "p50_ms", "p99_ms", "max_ms")
            ),
        ]
        for role in ("insert answered", "event received")
    ]
    return [
        paragraph(
            "A client inserts at one server, one row after the other, and another one watches at another server; from",
            "the call of the insert until:",
        ),
        table(("", "min ms", "p50 ms", "p99 ms", "max ms"), rows),
    ]


def _kills(results: Results) -> list[str]:
    rows = []
    for killed in KILLS:
        cells = [killed]
        for client in ("kvzmq-etcd", "etcd-grpc"):
            found = results.spread("cluster_kills", "gap_s", killed=killed, client=client)
            cells += [decimal(found.median), f"{decimal(found.least)} to {decimal(found.greatest)}"]
        rows.append(cells)
    return [
        paragraph(
            "A process is killed with SIGKILL while two clients insert, one row after the other: one of kvzmq, which",
            "knows two servers, and one that puts into etcd by gRPC. The longest time between two acknowledged",
            "inserts of each, seconds:",
        ),
        table(("killed", "kvzmq", "rounds", "etcd itself", "rounds"), rows),
    ]
