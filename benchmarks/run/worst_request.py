"""Searches for the request that costs most: what one request can hold everybody up with.

    python -m benchmarks.run.worst_request                    a minute for all operations
    python -m benchmarks.run.worst_request --seconds 600      search longer
    python -m benchmarks.run.worst_request --only query,keys  of these operations alone

Requests within the default limits are made from pieces (many small operations, one large one, values
of every shape, texts of every kind), measured against tables of several shapes, and the costliest are
kept and changed again. Measured are reading the request and executing it, separately, in processor
time, with the indexes that a request asks built before, as the server does in slices. The log, the
transport and the watches are not in it.
"""

from __future__ import annotations

import argparse
import gc
import random
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Raw

from kvzmq.protocol import msgpack, operations
from kvzmq.protocol.messages import Refusal, Request
from kvzmq.store.table import Table, indexes_of

REQUEST_BYTES = 1 << 20
ROWS = 100_000
KEPT = 4
"""Of each operation, how many of the costliest requests are changed again."""


class Found(NamedTuple):
    """One request that was measured: seconds to read and to execute it, on which table, its bytes, how it was made."""

    read_s: float
    execute_s: float
    table: str
    size: int
    recipe: tuple[Any, ...]
    refused: str

    @property
    def cost_s(self) -> float:
        """Both together."""
        return self.read_s + self.execute_s


# ---- pieces


def _array(items: int, item: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", items) + item * items


ITEMS: dict[str, bytes] = {
    "ints": b"\x01",
    "true": b"\xc3",
    "floats": b"\xcb" + struct.pack(">d", 1.5),
    "whole floats": b"\xca" + struct.pack(">f", 1.0),
    "texts": b"\xa1a",
    "empty texts": b"\xa0",
    "long heads": b"\xdb\0\0\0\0",
    "bytes": b"\xc4\0",
    "empty arrays": b"\x90",
    "empty maps": b"\x80",
    "maps": b"\x81\xa1a\x01",
    "pairs": b"\x92\x01\x02",
    "chains": b"\x91" * 58 + b"\x90",
    "chains of maps": b"\x81\xa0" * 58 + b"\x80",
    "big ints": b"\xcf" + b"\xff" * 8,
    "mixed": b"\x92\xc3\xcb" + b"\0" * 8 + b"\xc4\0",
    "deep and bytes": b"\x91" * 8 + b"\xc4\0",
    "infinite": b"\xcb\x7f\xf0" + b"\0" * 6,
    "key that is no text": b"\x81\x01\x01",
}


def value(kind: str, size: int, depth: int) -> bytes:
    """Make a value of about `size` bytes."""
    item = ITEMS[kind]
    body = _array(max(1, size // len(item)), item) if size > len(item) else item
    return b"\x91" * depth + body


def text(source: random.Random, size: int) -> str:
    """Make a key or a name: short ones of any character, long ones of one."""
    if size > 8:
        return source.choice(["x", "é", "\U0001f600", "\0"]) * size
    return "".join(source.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(size))


Make = Callable[[random.Random, tuple[Any, ...]], list[Any]]


def _draw(source: random.Random) -> tuple[Any, ...]:
    """Draw a recipe: how many, how long the names, what kind of value, how large, how deep, and a choice."""
    return (
        int(10 ** source.uniform(0, 5.2)), source.choice([1, 2, 3, 4, 6, 20, 1000, 60_000]), source.choice(list(ITEMS)),
        int(10 ** source.uniform(0, 6.02)), source.choice([0, 0, 0, 3, 5, 40]), source.randrange(4),
    )  # fmt: skip


def _change(source: random.Random, recipe: tuple[Any, ...]) -> tuple[Any, ...]:
    """Change a recipe in one place, or its numbers a little."""
    changed = list(recipe)
    at = source.randrange(len(changed))
    changed[at] = _draw(source)[at]
    if source.random() < 0.5:
        at = source.choice([0, 3])
        changed[at] = max(1, int(recipe[at] * source.uniform(0.5, 2)))
    return tuple(changed)


def _known(source: random.Random) -> str:
    return f"{source.randrange(ROWS):06}"


def _keys(source: random.Random, recipe: tuple[Any, ...]) -> list[str]:
    count, size, *_, choice = recipe
    count = min(count, REQUEST_BYTES // (size + 1))
    if choice == 0:
        return [_known(source) for _ in range(min(count, REQUEST_BYTES // 8))]
    return [text(source, size) for _ in range(count)]


def _rows(source: random.Random, recipe: tuple[Any, ...]) -> dict[str, Any]:
    _, _, kind, size, depth, _ = recipe
    keys = _keys(source, recipe)
    each = value(kind, min(size, REQUEST_BYTES // max(1, len(keys))), depth)
    return {key: Raw(each) for key in keys}


def _each(make: Callable[[random.Random, str, Raw], list[Any]]) -> Make:
    """Make a request of one operation many times."""

    def operations(source: random.Random, recipe: tuple[Any, ...]) -> list[Any]:
        return [make(source, key, each) for key, each in _rows(source, recipe).items()]

    return operations


def _transaction(source: random.Random, recipe: tuple[Any, ...]) -> list[Any]:
    rows = _rows(source, recipe)
    steps: list[Any] = (
        [["insert_many", rows]] if recipe[-1] == 1 else [["insert", key, each] for key, each in rows.items()]
    )
    if recipe[-1] > 1:
        steps.append(["remove", "none"])  # all of it is undone
    return [["transaction", [], steps]]


OPERATIONS: dict[str, Make] = {
    "insert": _each(lambda source, key, each: ["insert", key, each]),
    "insert ttl": _each(lambda source, key, each: ["insert", key, each, 1.0]),
    "remove": _each(lambda source, key, each: ["remove", key]),
    "insert_many": lambda source, recipe: [["insert_many", _rows(source, recipe)]],
    "remove_many": lambda source, recipe: [["remove_many", _keys(source, recipe)]],
    "compare_and_set": _each(
        lambda source, key, each: ["compare_and_set", source.choice(["large", "map", key]), [each], [each]]
    ),
    "setdefault": _each(lambda source, key, each: ["setdefault", key, each]),
    "increment": _each(lambda source, key, each: ["increment", key]),
    "expire": _each(lambda source, key, each: ["expire", key, 1.0]),
    "transaction": _transaction,
    "lookup": _each(lambda source, key, each: ["lookup", key]),
    "lookup_many": lambda source, recipe: [["lookup_many", _keys(source, recipe)]],
    "query": _each(lambda source, key, each: ["query", source.choice(["n", "m", key]), each]),
    "query for many": lambda source, recipe: (
        [["query", source.choice("nm"), source.randrange(2)]] * min(recipe[0], 100_000)
    ),
    "keys": lambda source, recipe: (
        [["keys", text(source, recipe[1])[:3] if recipe[-1] else "", None, 10_000]] * min(recipe[0], 50_000)
    ),
    "items": lambda source, recipe: [["items", "", _known(source), 10_000]] * min(recipe[0], 50_000),
    "ttl": _each(lambda source, key, each: ["ttl", key]),
    "size and ping": lambda source, recipe: [["size"], ["ping"]] * min(recipe[0], 50_000),
    "unknown": lambda source, recipe: [["frobnicate"]] * min(recipe[0], 100_000),
    "write, then query": lambda source, recipe: [
        ["insert_many", _rows(source, recipe)],
        *[["query", f"s{n}", 1] for n in range(16)],
    ],
}


# ---- tables


def _table(row: Callable[[int], bytes], ttl: bool = False) -> Table:
    table = Table()
    table.advance(1_000_000)
    for number in range(ROWS):
        deadline = operations.Insert(f"{number:06}", Raw(row(number)), 1e6 if ttl else None)
        table.execute(Request(None, 1, [deadline], b""))
    table.execute(Request(None, 1, [operations.Insert("large", Raw(value("ints", REQUEST_BYTES - 100, 0)))], b""))
    table.execute(Request(None, 1, [operations.Insert("map", Raw(value("chains", 130_000, 0)))], b""))
    return table


TABLES: dict[str, Callable[[], Table]] = {
    "empty": Table,
    "small maps": lambda: _table(lambda number: msgpack.encode_value({"n": number % 2, "m": number})),
    "with deadlines": lambda: _table(lambda number: b"\x01", ttl=True),
    "16 indexes": lambda: _with_indexes(_table(lambda number: msgpack.encode_value({"n": number, "s1": number}))),
}


def _with_indexes(table: Table) -> Table:
    table.indexes.want(frozenset(f"s{number}" for number in range(16)), True)
    while table.indexes.work(time.monotonic() + 1):
        pass
    return table


# ---- the search


def measure(name: str, recipe: tuple[Any, ...], seed: int, tables: dict[str, Table], table: str) -> Found | None:
    """Make a request and measure it; None if it is larger than a request may be."""
    frame = msgpack.encode_value([None, 1, OPERATIONS[name](random.Random(seed), recipe)])
    if len(frame) > REQUEST_BYTES:
        return None
    before_s = time.process_time()
    request = msgpack.decode_request(frame)
    read_s = time.process_time() - before_s
    if isinstance(request, Refusal):
        return Found(read_s, 0.0, table, len(frame), recipe, request.message[:40])
    on = tables[table]
    subkeys, order = indexes_of(request)
    if not on.indexes.are_ready(subkeys, order):
        on.indexes.want(subkeys, order)
        while on.indexes.work(time.monotonic() + 1):
            pass
    before_s = time.process_time()
    on.execute(request)
    execute_s = time.process_time() - before_s
    if request.writes:
        tables[table] = TABLES[table]() if len(on.rows) > 3 * ROWS or len(on.rows) < ROWS // 2 else on
    return Found(read_s, execute_s, table, len(frame), recipe, "")


def search(name: str, seconds: float, source: random.Random, tables: dict[str, Table]) -> Found | None:
    """Search for the costliest request of one operation; what is found is measured three times, the median counts."""
    best: list[Found] = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        recipe = _change(source, source.choice(best).recipe) if best and source.random() < 0.7 else _draw(source)
        table = source.choice(best).table if best and source.random() < 0.5 else source.choice(list(tables))
        seed = source.randrange(1 << 30)
        found = measure(name, recipe, seed, tables, table)
        if found is None or (len(best) == KEPT and found.cost_s <= best[-1].cost_s):
            continue
        again = [one for _ in range(2) if (one := measure(name, recipe, seed, tables, table)) is not None]
        best = sorted([*best, sorted([found, *again], key=lambda one: one.cost_s)[1]], key=lambda one: -one.cost_s)[
            :KEPT
        ]
    return best[0] if best else None


def main() -> None:
    """Search, and print the worst that was found of each operation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = [name for name in OPERATIONS if not options.only or name in options.only.split(",")]
    tables = {name: make() for name, make in TABLES.items()}
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 1_000_000)  # as the server does
    source = random.Random(options.seed)
    print(
        "| operation | ms | reading | executing | bytes | table | how many, name, value, its bytes, deep,"
        " choice | refused |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        found = search(name, options.seconds / len(names), source, tables)
        if found is not None:
            times = f"{found.cost_s * 1e3:.1f} | {found.read_s * 1e3:.1f} | {found.execute_s * 1e3:.1f}"
            print(
                f"| {name} | {times} | {found.size:,} | {found.table} | {found.recipe} | {found.refused} |", flush=True
            )


if __name__ == "__main__":
    main()
