"""The clients' side of a measurement of asyncio clients; see drivers."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.run import work
from benchmarks.run.open_tables import Address, Ready, Sample, identify, inserted
from benchmarks.run.tables import KvzmqPyzmqTable, KvzmqTable

Call = Callable[[], Awaitable[object]]

_KVZMQ = {"kvzmq": KvzmqTable, "kvzmq-pyzmq": KvzmqPyzmqTable}
_REDIS_CONNECTIONS = 50
"""Of redis.asyncio's pool: with one for each of 1,000 tasks it was slower."""


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


async def run_calls(calls: Sequence[Call], ready: Ready, seconds: float, each: int = 1) -> Sample:
    """Have a task for each call make it again and again, for so long; each makes it once before the clock starts.

    Args:
        calls: one for each task
        each: how many operations a call is
    """
    clock = time.monotonic_ns
    ended, latencies = array("q"), array("q")
    ends_at_ns = 0

    async def go_on(call: Call) -> None:
        now_ns = clock()
        while now_ns < ends_at_ns:
            began_ns = now_ns
            await call()
            now_ns = clock()
            ended.append(now_ns)
            latencies.append(now_ns - began_ns)

    await asyncio.gather(*[call() for call in calls])  # connects
    gc.collect()
    start_ns = ready()
    await asyncio.sleep(max(start_ns - clock(), 0) / 1e9)
    cpu_s = time.process_time()
    begin_ns = clock()
    ends_at_ns = start_ns + int(seconds * 1e9)
    await asyncio.gather(*[go_on(call) for call in calls])
    cpu_s = time.process_time() - cpu_s
    return Sample(begin_ns, ended[-1], ended.tobytes(), latencies.tobytes(), each, cpu_s)


async def _run_lasting_tasks(
    table: str, address: Address, operation: str, tasks: int, rows: int, value_bytes: int, ready: Ready, seconds: float
) -> Sample:
    identity = identify("tasks", address)
    first, following = inserted.get(identity, (0, 0))
    some = work.any_rows(rows, 3)
    own = itertools.count(following)
    value = b"x" * value_bytes

    async with _connect_async(table, address) as (lookup, insert):

        async def call() -> None:
            await (insert(work.own_key(997, next(own)), value) if operation == "insert" else lookup(next(some)))

        sample = await run_calls([call] * tasks, ready, seconds)
    inserted[identity] = (first, next(own))
    return sample


async def _run_tasks(
    table: str, address: Address, operation: str, tasks: int, rows: int, value_bytes: int, ready: Ready, seconds: float
) -> Sample:
    identity = identify("tasks", address)
    first, following = inserted.get(identity, (0, 0))
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
    inserted[identity] = (first, following + (len(ended) + 1) * tasks)
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
