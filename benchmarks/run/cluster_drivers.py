"""The clients' side of the measurements on a cluster; see drivers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from typing import Any

from benchmarks.run import work
from benchmarks.run.async_drivers import Call, run_calls
from benchmarks.run.open_tables import Address, Ready, Sample

TIMEOUT_S = 60.0
_ROWS_A_BATCH = 1000


def call_cluster(
    table: str, address: Address, operation: str, tasks: int, client: int, rows: int, value_bytes: int, ready: Ready,
    seconds: float,
) -> Sample:  # fmt: skip
    """Be so many asyncio tasks, each with one request after the other; each server gets as many of them.

    Args:
        table: `kvzmq` for kvzmq servers, `etcd-grpc` for etcd itself
        address: `urls` of the servers, or `addresses` of the nodes
        operation: insert, insert_many, lookup or session lookup
        client: whose own rows to insert
    """
    return asyncio.run(_call_cluster(table, address, operation, tasks, client, rows, value_bytes, ready, seconds))


async def _call_cluster(
    table: str, address: Address, operation: str, tasks: int, client: int, rows: int, value_bytes: int, ready: Ready,
    seconds: float,
) -> Sample:  # fmt: skip
    connect = _kvzmq_calls if table == "kvzmq" else _etcd_calls
    async with connect(address, operation, client, rows, value_bytes) as calls:
        spread = [calls[(client + task) % len(calls)] for task in range(tasks)]
        return await run_calls(spread, ready, seconds, _ROWS_A_BATCH if operation == "insert_many" else 1)


@contextlib.asynccontextmanager
async def _kvzmq_calls(
    address: Address, operation: str, client: int, rows: int, value_bytes: int
) -> AsyncIterator[Sequence[Call]]:
    import kvzmq

    value = b"x" * value_bytes
    some = work.any_rows(rows, client)
    own = itertools.count(time.monotonic_ns() // 1000 % 10**11)  # not those of an earlier measurement
    reads: Any = "session" if operation == "session lookup" else "linearizable"

    def call_of(table: kvzmq.AsyncClient) -> Call:
        if operation == "insert":
            return lambda: table.insert(work.own_key(client, next(own)), value)
        if operation == "insert_many":
            return lambda: table.insert_many({work.own_key(client, next(own)): value for _ in range(_ROWS_A_BATCH)})
        return lambda: table.lookup(next(some))

    async with contextlib.AsyncExitStack() as stack:
        tables = [
            await stack.enter_async_context(kvzmq.connect_async(url, timeout=TIMEOUT_S, reads=reads))
            for url in address["urls"]
        ]
        yield [call_of(table) for table in tables]


@contextlib.asynccontextmanager
async def _etcd_calls(
    address: Address, operation: str, client: int, rows: int, value_bytes: int
) -> AsyncIterator[Sequence[Call]]:
    """Put and get by gRPC, as a program would that uses etcd itself: keys and values alike, reads linearizable."""
    import grpc.aio

    from kvzmq.store.etcd import messages_pb2 as pb

    value = b"x" * value_bytes
    some = work.any_rows(rows, client)
    own = itertools.count(time.monotonic_ns() // 1000 % 10**11)  # not those of an earlier measurement

    def call_of(channel: grpc.aio.Channel) -> Call:
        put = channel.unary_unary("/etcdserverpb.KV/Put", pb.PutRequest.SerializeToString, pb.PutResponse.FromString)
        get = channel.unary_unary(
            "/etcdserverpb.KV/Range", pb.RangeRequest.SerializeToString, pb.RangeResponse.FromString
        )
        if operation == "insert":
            return lambda: put(pb.PutRequest(key=work.own_key(client, next(own)).encode(), value=value))
        return lambda: get(pb.RangeRequest(key=next(some).encode()))

    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(node)) for node in address["addresses"]]
        yield [call_of(channel) for channel in channels]


def insert_through_faults(table: str, address: Address, client: int, ready: Ready, seconds: float) -> Sample:
    """Insert one row after the other, at whichever server answers, or put into etcd itself; kills happen meanwhile.

    The figures are of the inserts that were acknowledged; the longest time between the ends of two of them is the gap.
    """
    insert = _insert_by_kvzmq(address) if table == "kvzmq" else _insert_by_etcd(address)
    with insert as call:
        call(work.own_key(client, 0))
        start_ns = ready()
        ended, latencies = array("q"), array("q")
        now_ns, end_ns = time.monotonic_ns(), start_ns + int(seconds * 1e9)
        begin_ns = now_ns
        for number in itertools.count(1):
            began_ns = now_ns
            if call(work.own_key(client, number)):
                now_ns = time.monotonic_ns()
                ended.append(now_ns)
                latencies.append(now_ns - began_ns)
            else:
                now_ns = time.monotonic_ns()
            if now_ns > end_ns:
                return Sample(begin_ns, now_ns, ended.tobytes(), latencies.tobytes(), 1, 0.0)
    raise AssertionError("not reached")


@contextlib.contextmanager
def _insert_by_kvzmq(address: Address) -> Any:
    import kvzmq

    with kvzmq.connect(",".join(address["urls"]), timeout=TIMEOUT_S) as table:

        def call(key: str) -> bool:
            table.insert(key, b"x")
            return True

        yield call


@contextlib.contextmanager
def _insert_by_etcd(address: Address) -> Any:
    """As a program would that puts into etcd itself, and notices a dead node by a time-out of a second."""
    from kvzmq.store.etcd.client import EtcdClient, EtcdError

    client = EtcdClient(address["addresses"], timeout_s=1.0)

    def call(key: str) -> bool:
        try:
            client.put(key.encode(), b"x")
        except EtcdError:
            return False
        return True

    try:
        yield call
    finally:
        client.close()
