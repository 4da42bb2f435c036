"""A user's program that uses everything, for `mypy --strict`: see tests/unit/test_typing.py."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import math
from typing import Any

import zmq

import kvzmq


@dataclasses.dataclass
class Point:
    x: int
    y: int


def rows(table: kvzmq.Client) -> None:
    table.insert("zebra", {"weight": 100}, ttl_s=60.0)
    anything: Any = table.lookup("zebra")
    point: Point = table.lookup("p", type=Point)
    points: dict[str, Point] = table.lookup_many(["p", "q"], type=Point)
    plain: dict[str, Any] = table.lookup_many(["p", "q"])
    found: list[tuple[str, Point]] = table.query("x", 1, type=Point)
    table.remove("zebra", timeout=1.0)
    swapped: bool = table.compare_and_set("lock", kvzmq.ABSENT, "me", ttl_s=5.0)
    table.increment("n", 2)
    table.expire("p", None)
    left: float | None = table.ttl("p")
    removed: int = table.remove_many(["p"])
    size: int = table.size()
    for key, value in table.items("p", type=Point):
        key.upper(), value.x
    names: list[str] = list(table.keys("p"))
    total = sum(point.x for point in table.values(type=Point))
    print(anything, point.x, points, plain, found, swapped, left, removed, size, names, total)


def mapping(table: kvzmq.Client) -> None:
    table["a"] = 1
    table |= {"b": 2}
    table.update({"c": 3}, d=4)
    copy: dict[str, Any] = dict(table)
    print(copy, "a" in table, len(table), table.get("a"), table.pop("a", None), table.setdefault("a", []))
    del table["a"]


def batches(table: kvzmq.Client) -> None:
    with table.pipeline() as p:
        count = p.increment("n")
        swapped: kvzmq.Pending[bool] = p.compare_and_set("a", 1, 2)
    print(count.result(), swapped.result())
    with table.transaction({"lock": kvzmq.ABSENT}) as t:
        t.insert("lock", 1)
        before: kvzmq.Pending[Any] = t.lookup("a")
    print(before.result())


def watches(table: kvzmq.Client) -> None:
    with table.namespace("robots/").watch(from_revision=table.revision) as events:
        for event in events:
            print(event.revision, event.key, event.value, event.removed)
            if event.removed:
                break
        one: kvzmq.Event = events.get(timeout=1.0)
    with table.watch_query("x", 1) as matches:
        print(next(matches), one, matches.revision)


def failures(table: kvzmq.Client) -> None:
    try:
        table.insert("a", 1)
    except kvzmq.Timeout:
        print("not done")
    except kvzmq.OutcomeUnknown as error:
        print("done or not", error)
    except (kvzmq.WriteRejected, kvzmq.KvzmqError) as error:
        print(error.code)


def connecting() -> None:
    poller = zmq.Poller()
    with kvzmq.connect() as table, kvzmq.connect(None, timeout=None) as patient, table.watch() as events:
        poller.register(events, zmq.POLLIN)
        print(patient.ping(timeout=math.inf), copy.copy(table).size(), events.fileno())


async def asynchronous() -> None:
    async with kvzmq.connect_async("tcp://127.0.0.1:5570", timeout=5.0) as table:
        await table.insert("a", 1)
        point: Point = await table.lookup("p", type=Point)
        anything: Any = await table.lookup("p")
        points: dict[str, Point] = await table.lookup_many(["p"], type=Point)
        found: list[tuple[str, Any]] = await table.query("x", 1)
        async for key, value in table.items("p", type=Point):
            print(key, value.x)
        keys: list[str] = [key async for key in table.keys("p")]
        async with table.pipeline() as p:
            count = p.increment("n")
        async with table.transaction({"a": 1}) as t:
            t.remove("a")
        async with table.watch("robots/") as events:
            async for event in events:
                print(event.key, count.result())
                break
        print(point, anything, points, found, keys, await table.stats(), await table.ping(), table.revision)


if __name__ == "__main__":
    with kvzmq.connect("tcp://127.0.0.1:5570", timeout=5.0) as client:
        for use in (rows, mapping, batches, watches, failures):
            use(client)
    connecting()
    asyncio.run(asynchronous())
