"""The experiments on operations: who, what, with how many clients. Each writes one CSV file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.results import PYZMQ, Writer
from benchmarks.run import work
from benchmarks.run.measuring import FEW_ROUNDS, WORKERS, Bench, columns_of
from benchmarks.run.peers import OTHER_CLIENTS, Running
from benchmarks.run.workers import WorkerFailed

ROWS = 10_000
"""What is in a table when single operations are measured."""

VALUE_BYTES = 32

OVER_PYZMQ, FRAMES, ECHO_OVER_PYZMQ = OTHER_CLIENTS

Turn = Callable[[int], None]


def turn_of(
    bench: Bench, writer: Writer, running: Running, operations: Sequence[str], driver: str,
    arguments: Callable[[str], list[dict[str, Any]]], players: int = 1, **columns: Any,
) -> Turn:  # fmt: skip
    """Return what measures one contender's operations in one round."""
    broken = False

    def turn(at: int) -> None:
        nonlocal broken
        for operation in operations:
            if broken:
                return
            try:
                figures = bench.measure(running, driver, arguments(operation), players)
            except WorkerFailed:
                broken = True  # it was said; the others go on
                return
            writer.add(
                **{"in_flight": 1, "batch": 1, **figures, **columns_of(running), **columns},
                round=at,
                operation=operation,
            )

    return turn


def clients_of(
    count: int, seconds: float, value_bytes: int = VALUE_BYTES, rows: int = ROWS
) -> Callable[[str], list[dict[str, Any]]]:
    """Return the arguments of `call_in_turn` for so many clients, by operation."""
    return lambda operation: [
        {"operation": operation, "client": client, "rows": rows, "value_bytes": value_bytes, "seconds": seconds}
        for client in range(count)
    ]


def clients(bench: Bench) -> None:
    """Single operations from 1 and from 8 blocking clients, a process each."""
    changes = ("insert", "lookup", "remove")
    turns: list[Turn] = []
    contenders = {
        "kvzmq": (*changes, "size"),
        OVER_PYZMQ: ("insert", "lookup"),
        FRAMES: ("lookup",),
        "kvzmq-bridge": (*changes, "size"),
        "redis": changes,
        "one-sync": changes,
        "sqlite": changes,
        "diskcache": changes,
        "etcd": ("insert", "lookup"),
        "manager": changes,
        "redis-memory": ("lookup",),
        "memcached": ("lookup",),
        "router-echo": ("lookup",),
        ECHO_OVER_PYZMQ: ("lookup",),
        "json-echo": ("lookup",),
    }
    with bench.writer("clients") as writer, bench.running(*contenders) as servers:
        for name, running in servers.items():
            bench.fill(running, ROWS, VALUE_BYTES)
            for count in (1, WORKERS):
                arguments = clients_of(count, bench.size.seconds)
                turns.append(turn_of(bench, writer, running, contenders[name], "call_in_turn", arguments))
        bench.take_turns(turns, "clients")


def _sockets(
    bench: Bench, writer: Writer, running: Running, operations: Sequence[str], count: int, in_flight: int = 1
) -> Turn:
    def arguments(operation: str) -> list[dict[str, Any]]:
        return [
            {
                "operation": operation, "clients": count, "in_flight": in_flight, "rows": ROWS,
                "value_bytes": VALUE_BYTES, "seconds": bench.size.seconds,
            }
        ]  # fmt: skip

    load = {"transport": PYZMQ} if running.peer.transport else {}  # kvzmq.bench.load has DEALER sockets of libzmq's
    return turn_of(bench, writer, running, operations, "drive_sockets", arguments, count, in_flight=in_flight, **load)


def sockets(bench: Bench) -> None:
    """Single operations from many connections, driven by one process that does nothing else."""
    changes = ("insert", "lookup")
    contenders = {
        "kvzmq": changes, "kvzmq-bridge": changes, "redis": changes, "one-sync": changes,
        "router-echo": ("lookup",), "json-echo": ("lookup",),
    }  # fmt: skip
    turns = []
    with bench.writer("sockets") as writer, bench.running(*contenders) as servers:
        for name, running in servers.items():
            bench.fill(running, ROWS, VALUE_BYTES)
            turns += [_sockets(bench, writer, running, contenders[name], count) for count in (16, 32, 64)]
        bench.take_turns(turns, "sockets")


def libraries(bench: Bench) -> None:
    """64 blocking clients of the client libraries themselves: eight threads in each of eight processes."""
    threads = 8
    turns: list[Turn] = []

    def arguments(operation: str) -> list[dict[str, Any]]:
        return [
            {
                "operation": operation, "threads": threads, "rows": ROWS, "value_bytes": VALUE_BYTES,
                "seconds": max(0.5, bench.size.seconds), "worker": worker, "shared": False,
            }
            for worker in range(WORKERS)
        ]  # fmt: skip

    with bench.writer("libraries") as writer, bench.running("kvzmq", OVER_PYZMQ, "redis") as servers:
        for running in servers.values():
            bench.fill(running, ROWS, VALUE_BYTES)
            turns.append(turn_of(bench, writer, running, ("insert", "lookup"), "run_threads", arguments, threads))
        bench.take_turns(turns, "64 blocking clients")


def in_flight(bench: Bench) -> None:
    """One client with 64 requests unanswered: what group commit and the loop can do at their best."""
    contenders = {"kvzmq": ("insert", "lookup"), "router-echo": ("insert", "lookup")}
    turns = []
    with bench.writer("in_flight") as writer, bench.running(*contenders) as servers:
        for name, running in servers.items():
            bench.fill(running, ROWS, VALUE_BYTES)
            turns += [_sockets(bench, writer, running, contenders[name], 1, outstanding) for outstanding in (1, 8, 64)]
        bench.take_turns(turns, "in flight")


def group_commit(bench: Bench) -> None:
    """One sync for all that arrived together, beside one for each request."""
    turns = []
    with bench.writer("group_commit") as writer, bench.running("kvzmq", "kvzmq-one-by-one") as servers:
        for running in servers.values():
            turns += [_sockets(bench, writer, running, ("insert",), count) for count in (1, 2, 4, 8, 16, 32, 64)]
        bench.take_turns(turns, "group commit", min(FEW_ROUNDS, bench.size.rounds))


BATCHES = (1, 10, 100, 1000, 10_000)


def batches(bench: Bench) -> None:
    """One client that asks for 1 to 10,000 rows at a time."""
    turns = []
    contenders = ("kvzmq", OVER_PYZMQ, "redis", "redis-many", "sqlite")
    with bench.writer("batches") as writer, bench.running(*contenders) as servers:
        for name, running in servers.items():
            bench.fill(running, ROWS, VALUE_BYTES)
            for batch in (1000,) if name == OVER_PYZMQ else BATCHES:
                turns.append(
                    turn_of(
                        bench,
                        writer,
                        running,
                        ("insert", "lookup"),
                        "call_with_batches",
                        batches_of(bench, batch),
                        batch=batch,
                    )
                )
        bench.take_turns(turns, "batches")


def batches_of(bench: Bench, batch: int) -> Callable[[str], list[dict[str, Any]]]:
    """Return the arguments of `call_with_batches` for one client, by operation."""
    return lambda operation: [
        {
            "operation": operation,
            "batch": batch,
            "rows": ROWS,
            "value_bytes": VALUE_BYTES,
            "seconds": bench.size.seconds,
        }
    ]


TASKS: dict[str, dict[str, Sequence[int]]] = {
    "kvzmq": {"tasks": (1, 64, 1000), "threads": (1, 8, 32), "lasting_tasks": (1000,)},
    OVER_PYZMQ: {"tasks": (1, 64, 1000), "lasting_tasks": (1000,)},
    "redis": {"tasks": (1, 64, 1000), "threads": (1, 8, 32), "lasting_tasks": (8, 50, 1000)},
}
"""By contender: how many tasks or threads there are of each kind. redis.asyncio is best with few that last."""


def tasks(bench: Bench) -> None:
    """Single operations the natural way from one process: many asyncio tasks, many threads."""
    turns: list[Turn] = []
    with bench.writer("tasks") as writer, bench.running(*TASKS) as servers:
        for name, running in servers.items():
            bench.fill(running, ROWS, VALUE_BYTES)
            for kind, counts in TASKS[name].items():
                for count in counts:
                    arguments = _many(bench, kind, count)
                    turns.append(
                        turn_of(
                            bench, writer, running, ("insert", "lookup"), f"run_{kind}", arguments, count, batch=kind
                        )
                    )
        bench.take_turns(turns, "tasks and threads")


def _many(bench: Bench, kind: str, count: int) -> Callable[[str], list[dict[str, Any]]]:
    return lambda operation: [
        {
            "operation": operation,
            kind: count,
            "rows": ROWS,
            "value_bytes": VALUE_BYTES,
            "seconds": max(0.5, bench.size.seconds),
        }
    ]


def ycsb(bench: Bench) -> None:
    """YCSB's workloads A and B: half writes, and a twentieth, on 1,000-byte values, popular keys first."""
    contenders = ("kvzmq", "kvzmq-bridge", "redis", "one-sync", "sqlite", "diskcache")
    turns = []
    with bench.writer("ycsb") as writer, bench.running(*contenders) as servers:
        for running in servers.values():
            bench.fill(running, work.YCSB_ROWS, work.YCSB_VALUE_BYTES)
            for count in (1, WORKERS):
                arguments = clients_of(count, bench.size.seconds, work.YCSB_VALUE_BYTES, work.YCSB_ROWS)
                turns.append(turn_of(bench, writer, running, tuple(work.YCSB_WRITES), "call_in_turn", arguments))
        bench.take_turns(turns, "YCSB", min(FEW_ROUNDS, bench.size.rounds))


VALUES = (32, 1024, 102_400)
_VALUE_ROWS = 500


def values(bench: Bench) -> None:
    """One client, values of 32 bytes, 1 KiB and 100 KiB."""
    contenders = ("kvzmq", "kvzmq-bridge", "redis", "sqlite")
    with bench.writer("values") as writer:
        for length in VALUES:
            with bench.running(*contenders) as servers:
                turns: list[Turn] = []
                for running in servers.values():
                    bench.fill(running, _VALUE_ROWS, length)
                    arguments = clients_of(1, bench.size.seconds, length, _VALUE_ROWS)
                    turns.append(turn_of(bench, writer, running, ("insert", "lookup"), "call_in_turn", arguments))
                bench.take_turns(turns, f"values of {length} bytes", min(FEW_ROUNDS, bench.size.rounds))


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {
    "clients": clients,
    "sockets": sockets,
    "libraries": libraries,
    "in_flight": in_flight,
    "group_commit": group_commit,
    "batches": batches,
    "tasks": tasks,
    "ycsb": ycsb,
    "values": values,
}
