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
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.run import work
from benchmarks.run.tables import TABLES, KvzmqPyzmqTable, KvzmqTable

Address = Mapping[str, Any]
Ready = Callable[[], int]

_ROWS_A_BATCH = 1000
_BATCH_BYTES = 1 << 20
_EVENTS = 1000
_KVZMQ = {"kvzmq": KvzmqTable, "kvzmq-pyzmq": KvzmqPyzmqTable}
_REDIS_CONNECTIONS = 50
"""Of redis.asyncio's pool: with one for each of 1,000 tasks it was slower."""


class Sample(NamedTuple):
    """What one worker did.

    start_ns, end_ns  monotonic clock
    ended_ns          when each timed call ended, in order of its end
    latencies_ns      of the timed calls, in the same order
    operations        of each timed call
    cpu_s             of the worker, from start to end
    """

    start_ns: int
    end_ns: int
    ended_ns: bytes
    latencies_ns: bytes
    operations: int
    cpu_s: float


_tables: dict[tuple[str, str], Any] = {}
_inserted: dict[tuple[str, str], tuple[int, int]] = {}
"""Of each table: the first and the next of this worker's own rows."""


def _identify(table: str, address: Address) -> tuple[str, str]:
    return table, repr(sorted(address.items()))


def _open(table: str, address: Address) -> Any:
    identity = _identify(table, address)
    if identity not in _tables:
        _tables[identity] = TABLES[table](address)
    return _tables[identity]


def close_all() -> None:
    """Close every table this worker has open."""
    while _tables:
        _, table = _tables.popitem()
        table.close()
    _inserted.clear()


def fill(table: str, address: Address, first: int, rows: int, value_bytes: int) -> None:
    """Put rows there that lookups will find."""
    client = _open(table, address)
    value = work.value_of(table, value_bytes)
    batch = max(1, min(_ROWS_A_BATCH, _BATCH_BYTES // value_bytes))
    for at in range(first, first + rows, batch):
        client.insert_many({work.row_key(number): value for number in range(at, min(at + batch, first + rows))})


def fill_groups(table: str, address: Address, rows: int, matches: int) -> None:
    """Put rows there whose value is a map, `matches` of them of each group."""
    client = _open(table, address)
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
    opened = _open(table, address)
    identity = _identify(table, address)
    first, following = _inserted.get(identity, (0, 0))
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
        _inserted[identity] = (first, following + done)
    elif operation == "remove":
        _inserted[identity] = (first + done, following)
    return sample


def call_until(
    table: str, address: Address, operation: str, client: int, rows: int, value_bytes: int,
    ready: Ready, seconds: float,
    stop: str,
) -> Sample:  # fmt: skip
    """Be one blocking client until a file of this name appears, `seconds` at most."""
    opened = _open(table, address)
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
    opened = _open(table, address)
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
    opened = _open(table, address)
    value = work.value_of(table, value_bytes)
    identity = _identify(table, address)
    if operation == "insert":
        # The maps are ready before the clock starts.
        first, following = _inserted.get(identity, (0, 0))
        maps = [
            ({work.own_key(999, following + at * batch + n): value for n in range(batch)},)
            for at in range(_prepared(batch))
        ]
        _inserted[identity] = (first, following + len(maps) * batch)
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
    identity = _identify("sockets", address)
    first, following = _inserted.get(identity, (0, 0))
    _inserted[identity] = (first, following + 10_000_000)
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


# ---- asyncio tasks and threads ---------------------------------------------------------------------------


def run_tasks(
    table: str, address: Address, operation: str, tasks: int, rows: int, value_bytes: int, ready: Ready, seconds: float
) -> Sample:
    """Have so many asyncio tasks do one operation each, all at once; then again, for so long.

    A timed call is all of them: a clock in each task would be a good part of its cost.
    """
    return asyncio.run(_run_tasks(table, address, operation, tasks, rows, value_bytes, ready, seconds))


def run_lasting_tasks(
    table: str, address: Address, operation: str, lasting_tasks: int, rows: int, value_bytes: int, ready: Ready,
    seconds: float,
) -> Sample:  # fmt: skip
    """Have so many asyncio tasks do one operation after the other, for so long."""
    return asyncio.run(_run_lasting_tasks(table, address, operation, lasting_tasks, rows, value_bytes, ready, seconds))


async def _run_lasting_tasks(
    table: str, address: Address, operation: str, tasks: int, rows: int, value_bytes: int, ready: Ready, seconds: float
) -> Sample:
    identity = _identify("tasks", address)
    first, following = _inserted.get(identity, (0, 0))
    some = work.any_rows(rows, 3)
    own = itertools.count(following)
    value = b"x" * value_bytes
    clock = time.monotonic_ns
    ended, latencies = array("q"), array("q")
    ends_at_ns = 0

    async with _connect_async(table, address) as (lookup, insert):

        async def call() -> None:
            await (insert(work.own_key(997, next(own)), value) if operation == "insert" else lookup(next(some)))

        async def go_on() -> None:
            now_ns = clock()
            while now_ns < ends_at_ns:
                began_ns = now_ns
                await call()
                now_ns = clock()
                ended.append(now_ns)
                latencies.append(now_ns - began_ns)

        await asyncio.gather(*[call() for _ in range(tasks)])  # connects
        gc.collect()
        start_ns = ready()
        await asyncio.sleep(max(start_ns - clock(), 0) / 1e9)
        cpu_s = time.process_time()
        begin_ns = clock()
        ends_at_ns = start_ns + int(seconds * 1e9)
        await asyncio.gather(*[go_on() for _ in range(tasks)])
        cpu_s = time.process_time() - cpu_s
    _inserted[identity] = (first, next(own))
    return Sample(begin_ns, ended[-1], ended.tobytes(), latencies.tobytes(), 1, cpu_s)


async def _run_tasks(
    table: str, address: Address, operation: str, tasks: int, rows: int, value_bytes: int, ready: Ready, seconds: float
) -> Sample:
    identity = _identify("tasks", address)
    first, following = _inserted.get(identity, (0, 0))
    own = (work.own_key(997, number) for number in itertools.count(following))
    some = work.any_rows(rows, 3)
    value = b"x" * value_bytes
    clock = time.monotonic_ns
    ended = array("q")

    async with _connect_async(table, address) as (lookup, insert):

        def all_at_once() -> asyncio.Future[list[Any]]:
            if operation == "insert":
                return asyncio.gather(*[insert(key, value) for key in itertools.islice(own, tasks)])
            return asyncio.gather(*[lookup(key) for key in itertools.islice(some, tasks)])

        await all_at_once()  # connects
        gc.collect()
        start_ns = ready()
        await asyncio.sleep(max(start_ns - clock(), 0) / 1e9)
        cpu_s = time.process_time()
        begin_ns = now_ns = clock()
        end_ns = start_ns + int(seconds * 1e9)
        while now_ns < end_ns:
            await all_at_once()
            now_ns = clock()
            ended.append(now_ns)
        cpu_s = time.process_time() - cpu_s
    _inserted[identity] = (first, following + (len(ended) + 1) * tasks)
    latencies = array("q", [end - start for start, end in itertools.pairwise([begin_ns, *ended])])
    return Sample(begin_ns, now_ns, ended.tobytes(), latencies.tobytes(), tasks, cpu_s)


class _connect_async:
    """The asyncio client of a contender, as its lookup and its insert."""

    def __init__(self, table: str, address: Address) -> None:
        self._table, self._address = table, address

    async def __aenter__(self) -> tuple[Any, Any]:
        if self._table in _KVZMQ:
            import kvzmq

            self._client: Any = kvzmq.connect_async(
                self._address["url"], timeout=60.0, transport=_KVZMQ[self._table].transport
            )
            await self._client.__aenter__()
            return self._client.lookup, self._client.insert
        import redis.asyncio

        pool = redis.asyncio.BlockingConnectionPool(
            host="127.0.0.1", port=self._address["port"], max_connections=_REDIS_CONNECTIONS, timeout=60
        )
        self._client = redis.asyncio.Redis(connection_pool=pool)
        return self._client.get, self._client.set

    async def __aexit__(self, *error: object) -> None:
        if self._table in _KVZMQ:
            await self._client.__aexit__(None, None, None)
        else:
            await self._client.aclose()
            await self._client.connection_pool.disconnect()


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
    tables = [_open(table, address) if shared else TABLES[table](address) for _ in range(threads)]
    value = work.value_of(table, value_bytes)
    identity = _identify(table, address)
    first, following = _inserted.get(identity, (0, 0))
    step = 1_000_000
    _inserted[identity] = (first, following + threads * step)
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
