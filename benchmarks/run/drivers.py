"""The clients' side of a measurement. Runs in worker processes; each function returns a Sample.

Whatever is not to be timed (connecting, filling, drawing keys) is done before the clock starts. When a worker
has got so far it calls `ready`, which returns the moment of the machine's monotonic clock at which all start.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import threading
import time
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from benchmarks.run import work
from benchmarks.run.async_drivers import run_lasting_tasks, run_tasks
from benchmarks.run.cluster_drivers import call_cluster, insert_through_faults
from benchmarks.run.open_tables import Address, Ready, Sample, close_all, identify, inserted, open_table
from benchmarks.run.tables import TABLES

_ROWS_A_BATCH = 1000
_BATCH_BYTES = 1 << 20
_EVENTS = 1000


def fill(table: str, address: Address, first: int, rows: int, value_bytes: int) -> None:
    """Put rows there that lookups will find."""
    client = open_table(table, address)
    value = work.value_of(table, value_bytes)
    batch = max(1, min(_ROWS_A_BATCH, _BATCH_BYTES // value_bytes))
    for at in range(first, first + rows, batch):
        client.insert_many({work.row_key(number): value for number in range(at, min(at + batch, first + rows))})


def fill_groups(table: str, address: Address, rows: int, matches: int) -> None:
    """Put rows there whose value is a map, `matches` of them of each group."""
    client = open_table(table, address)
    for at in range(0, rows, _ROWS_A_BATCH):
        client.insert_many(
            dict(work.grouped_row(number, matches) for number in range(at, min(at + _ROWS_A_BATCH, rows)))
        )
    client.query("group", 0)  # has the index built


# ---- one call after the other ----------------------------------------------------------------------------


def call_in_turn(
    table: str, address: Address, operation: str, client: int, rows: int, value_bytes: int, ready: Ready, seconds: float
) -> Sample:
    """Be one blocking client: one operation after the other."""
    opened = open_table(table, address)
    identity = identify(table, address)
    first, following = inserted.get(identity, (0, 0))
    value = work.value_of(table, value_bytes)
    call: Callable[..., Any] = getattr(opened, operation, None) or _mix(opened)
    arguments: Iterator[tuple[Any, ...]]
    if operation == "insert":
        arguments = ((work.own_key(client, number), value) for number in itertools.count(following))
    elif operation == "remove":
        arguments = ((work.own_key(client, number),) for number in range(first, following))
    elif operation == "lookup":
        arguments = ((key,) for key in work.any_rows(rows, client))
    elif operation in work.YCSB_WRITES:
        arguments = ((write, key, value) for write, key in work.ycsb(operation, rows, client))
    else:
        arguments = itertools.repeat(())
    sample = _time_calls(call, arguments, ready, seconds)
    done = len(sample.ended_ns) // 8
    if operation == "insert":
        inserted[identity] = (first, following + done)
    elif operation == "remove":
        inserted[identity] = (first + done, following)
    return sample


def call_until(
    table: str, address: Address, operation: str, client: int, rows: int, value_bytes: int,
    ready: Ready, seconds: float,
    stop: str,
) -> Sample:  # fmt: skip
    """Be one blocking client until a file of this name appears, `seconds` at most."""
    opened = open_table(table, address)
    value = work.value_of(table, value_bytes)

    def arguments() -> Iterator[tuple[Any, ...]]:
        for number in itertools.count():
            if number % 64 == 0 and os.path.exists(stop):
                return
            yield work.own_key(client, number), value

    return _time_calls(getattr(opened, operation), arguments(), ready, seconds)


def call_queries(
    table: str, address: Address, rows: int, matches: int, batch: int, ready: Ready, seconds: float
) -> Sample:
    """Be one blocking client that queries for groups of rows, evenly drawn; `batch` of them in a pipeline."""
    opened = open_table(table, address)
    groups = itertools.cycle([int(key[4:]) // matches for key in itertools.islice(work.any_rows(rows, 5), 1000)])
    found = opened.query("group", next(groups))
    if len(found) != matches:
        raise RuntimeError(f"{len(found)} rows where {matches} were expected")
    if batch == 1:
        return _time_calls(opened.query, (("group", group) for group in groups), ready, seconds)

    def together() -> None:
        with opened.client.pipeline() as pipe:
            pending = [pipe.query("group", group) for group in itertools.islice(groups, batch)]
        for each in pending:
            each.result()

    return _time_calls(together, itertools.repeat(()), ready, seconds)._replace(operations=batch)


def _mix(table: Any) -> Callable[[bool, str, Any], Any]:
    lookup, insert = table.lookup, table.insert
    return lambda write, key, value: insert(key, value) if write else lookup(key)


def call_with_batches(
    table: str, address: Address, operation: str, batch: int, rows: int, value_bytes: int, ready: Ready, seconds: float
) -> Sample:
    """Be one blocking client that asks for `batch` rows at a time."""
    opened = open_table(table, address)
    value = work.value_of(table, value_bytes)
    identity = identify(table, address)
    if operation == "insert":
        # The maps are ready before the clock starts.
        first, following = inserted.get(identity, (0, 0))
        maps = [
            ({work.own_key(999, following + at * batch + n): value for n in range(batch)},)
            for at in range(_prepared(batch))
        ]
        inserted[identity] = (first, following + len(maps) * batch)
        return _time_calls(opened.insert_many, itertools.cycle(maps), ready, seconds)._replace(operations=batch)
    keys = work.any_rows(rows, 1)
    lists = [(list(itertools.islice(keys, batch)),) for _ in range(_prepared(batch))]
    return _time_calls(opened.lookup_many, itertools.cycle(lists), ready, seconds)._replace(operations=batch)


def _prepared(batch: int) -> int:
    """Return how many batches to make ready: they are used in turn, so the first ones are soon overwritten."""
    return min(max(4, 50_000 // batch), 5000)


def _time_calls(call: Callable[..., Any], arguments: Iterator[tuple[Any, ...]], ready: Ready, seconds: float) -> Sample:
    """Call until time is over or the arguments are; one reading of the clock ends one call and begins the next."""
    clock = time.monotonic_ns
    ended = array("q")
    note = ended.append
    gc.collect()
    gc.disable()  # a collection of ours would be taken for a slow server
    try:
        start_ns = ready()
        time.sleep(max(start_ns - clock(), 0) / 1e9)
        cpu_s = time.process_time()
        begin_ns = now_ns = clock()
        end_ns = start_ns + int(seconds * 1e9)
        for each in arguments:
            call(*each)
            now_ns = clock()
            note(now_ns)
            if now_ns >= end_ns:
                break
        cpu_s = time.process_time() - cpu_s
    finally:
        gc.enable()
    latencies = array("q", [end - start for start, end in itertools.pairwise([begin_ns, *ended])])
    return Sample(begin_ns, now_ns, ended.tobytes(), latencies.tobytes(), 1, cpu_s)


# ---- many connections in one process ---------------------------------------------------------------------


def drive_sockets(
    table: str, address: Address, operation: str, clients: int, in_flight: int, rows: int, value_bytes: int,
    ready: Ready, seconds: float,
) -> Sample:  # fmt: skip
    """Drive many connections with an event loop, `in_flight` requests unanswered on each."""
    load, requests = _prepare_load(table, address, operation, clients, in_flight, rows, value_bytes)
    gc.collect()
    gc.disable()
    try:
        time.sleep(max(ready() - time.monotonic_ns(), 0) / 1e9)
        cpu_s = time.process_time()
        begin_ns = time.monotonic_ns()
        measured = load.run(requests, seconds)
        cpu_s = time.process_time() - cpu_s
    finally:
        gc.enable()
        load.close()
    if getattr(measured, "failed", None):
        raise RuntimeError(f"{table} {operation}: errors by code: {dict(measured.failed)}")
    end_ns = begin_ns + int(measured.seconds * 1e9)
    # All of them ended in the window: when exactly does not matter to one worker alone.
    ended = array("q", [end_ns]) * len(measured.latencies_ns)
    return Sample(begin_ns, end_ns, ended.tobytes(), measured.latencies_ns.tobytes(), 1, cpu_s)


def _prepare_load(
    table: str, address: Address, operation: str, clients: int, in_flight: int, rows: int, value_bytes: int
) -> tuple[Any, Any]:
    writes = operation == "insert"
    value = b"x" * value_bytes
    identity = identify("sockets", address)
    first, following = inserted.get(identity, (0, 0))
    inserted[identity] = (first, following + 10_000_000)
    keys = (work.own_key(998, number) for number in itertools.count(following)) if writes else work.any_rows(rows, 2)
    if table in ("kvzmq", "frames"):
        from kvzmq.bench.load import Load
        from kvzmq.bench.load import operation as encode

        load: Any = Load(address["url"], clients, in_flight, echo=table == "frames")
        if writes:
            return load, ([encode("insert", key, value)] for key in keys)
        return load, ([encode("lookup", key)] for key in keys)
    from benchmarks.run import sockets

    encoders: dict[tuple[str, bool], Callable[[str, bytes], sockets.Request]] = {
        ("redis", True): sockets.redis_set,
        ("redis", False): sockets.redis_get,
        ("json", True): sockets.json_insert,
        ("json", False): sockets.json_lookup,
    }
    encoder = encoders["redis" if table == "redis" else "json", writes]
    port = address["bridge"] if table == "kvzmq-bridge" else address["port"]
    return sockets.TcpLoad(port, clients), (encoder(key, value) for key in keys)


# ---- watches ---------------------------------------------------------------------------------------------


def catch_up(table: str, address: Address, shell: str, changes: int, ready: Ready, seconds: float) -> Sample:
    """Watch from `changes` changes ago until now, again and again; a timed call takes _EVENTS of them."""
    import kvzmq

    client = kvzmq.connect(address["url"], timeout=60.0)
    revision = client.stats()["revision"] - changes
    if shell == "blocking":

        def events() -> Iterator[Any]:
            while True:
                with client.watch(from_revision=revision) as watch:
                    yield from itertools.islice(watch, changes)

        stream = events()
        sample = _time_calls(lambda: deque(itertools.islice(stream, _EVENTS), 0), itertools.repeat(()), ready, seconds)
    else:
        own = kvzmq.connect_async(address["url"], timeout=60.0)

        async def take() -> None:
            for _ in range(_EVENTS):
                await anext(stream_async)

        async def events_async() -> AsyncGenerator[Any, None]:
            while True:
                async with own.watch(from_revision=revision) as watch:
                    for _ in range(changes):
                        yield await anext(watch)

        stream_async = events_async()
        loop = asyncio.new_event_loop()
        sample = _time_calls(lambda: loop.run_until_complete(take()), itertools.repeat(()), ready, seconds)
        loop.run_until_complete(stream_async.aclose())
        loop.run_until_complete(own.close())
        loop.close()
    client.close()
    return sample._replace(operations=_EVENTS)


def follow(table: str, address: Address, writes: bool, ready: Ready, seconds: float) -> Sample:
    """Insert the time, one row after the other, or watch those rows: how long until the answer, and the event."""
    import kvzmq

    with kvzmq.connect(address["url"], timeout=60.0) as client:
        if writes:
            client["now/0"] = 0  # opens its session

            def times() -> Iterator[tuple[str, int]]:
                while True:
                    yield "now/1", time.monotonic_ns()

            return _time_calls(client.insert, times(), ready, seconds)
        ended, latencies = array("q"), array("q")
        with client.watch("now/1") as events:
            start_ns = ready()
            end_ns = start_ns + int(seconds * 1e9)
            while (now_ns := time.monotonic_ns()) < end_ns:
                with contextlib.suppress(kvzmq.Timeout):
                    event = events.get(max(0.001, (end_ns - now_ns) / 1e9))
                    now_ns = time.monotonic_ns()
                    ended.append(now_ns)
                    latencies.append(now_ns - event.value)
        return Sample(start_ns, now_ns, ended.tobytes(), latencies.tobytes(), 1, 0.0)


def run_threads(
    table: str, address: Address, operation: str, threads: int, rows: int, value_bytes: int,
    ready: Ready, seconds: float,
    worker: int = 0, shared: bool = True,
) -> Sample:  # fmt: skip
    """Have so many threads use one blocking client, or each its own."""
    tables = [open_table(table, address) if shared else TABLES[table](address) for _ in range(threads)]
    value = work.value_of(table, value_bytes)
    identity = identify(table, address)
    first, following = inserted.get(identity, (0, 0))
    step = 1_000_000
    inserted[identity] = (first, following + threads * step)
    samples: list[Sample] = []
    gate, start = threading.Barrier(threads + 1), threading.Event()
    start_ns = 0

    def get_ready() -> int:
        gate.wait()
        start.wait()
        return start_ns

    def be_one(number: int) -> None:
        if operation == "insert":
            begin = following + number * step
            arguments: Iterator[tuple[Any, ...]] = (
                (work.own_key(900 + worker, n), value) for n in range(begin, begin + step)
            )
        else:
            arguments = ((key,) for key in work.any_rows(rows, number % 8))
        call = getattr(tables[number], operation)
        call(*next(arguments))  # connects
        samples.append(_time_calls(call, arguments, get_ready, seconds))

    every = [threading.Thread(target=be_one, args=(number,), daemon=True) for number in range(threads)]
    for thread in every:
        thread.start()
    gate.wait(60.0)
    start_ns = ready()
    start.set()
    for thread in every:
        thread.join()
    if not shared:
        for each in tables:
            each.close()
    if len(samples) != threads:
        raise RuntimeError(f"{threads - len(samples)} of {threads} threads failed")
    # Each has taken the process's time for its own: the longest is all of it.
    calls = sorted(
        (end, latency)
        for sample in samples
        for end, latency in zip(array("q", sample.ended_ns), array("q", sample.latencies_ns))
    )
    return Sample(
        max(sample.start_ns for sample in samples),
        min(sample.end_ns for sample in samples),
        array("q", [end for end, _ in calls]).tobytes(),
        array("q", [latency for _, latency in calls]).tobytes(),
        1,
        max(sample.cpu_s for sample in samples),
    )


__all__ = [
    "call_cluster",
    "call_in_turn",
    "call_queries",
    "call_until",
    "call_with_batches",
    "catch_up",
    "close_all",
    "drive_sockets",
    "fill",
    "fill_groups",
    "follow",
    "insert_through_faults",
    "run_lasting_tasks",
    "run_tasks",
    "run_threads",
]
"""What a worker can be told to do."""
