"""What is done to the tables: keys, values, and the mixes of YCSB. Deterministic."""

from __future__ import annotations

import itertools
import random
from bisect import bisect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

KEY_CHARS = 16
YCSB_ROWS = 10_000
YCSB_VALUE_BYTES = 1000
YCSB_WRITES = {"ycsb-a": 0.5, "ycsb-b": 0.05}
ZIPF_EXPONENT = 0.99
"""As YCSB has it: the most popular of 10,000 keys gets a tenth of all requests."""

_DRAWN = 20_000
_DRAWINGS_KEPT = 64

TEXT_VALUES = frozenset({"kvzmq-bridge", "json-lines"})
"""The clients, by name as in `tables`, whose values are text."""


def row_key(number: int) -> str:
    """Return the key of a row that `fill` has put there: KEY_CHARS characters."""
    return f"row-{number:012d}"


def own_key(client: int, number: int) -> str:
    """Return a key that only this client writes: KEY_CHARS characters."""
    return f"c{client:03d}-{number:011d}"


def value_of(table: str, length: int) -> Any:
    """Return a value of `length` bytes for a client of this kind."""
    return "x" * length if table in TEXT_VALUES else b"x" * length


def grouped_row(number: int, matches: int) -> tuple[str, dict[str, Any]]:
    """Return a row whose value is a map; `matches` rows that follow each other share the group."""
    return row_key(number), {"group": number // matches, "number": number}


def any_rows(rows: int, seed: int) -> Iterator[str]:
    """Yield keys of filled rows, evenly drawn, without end."""
    return itertools.cycle(_draw_any(rows, seed))


@lru_cache(_DRAWINGS_KEPT)
def _draw_any(rows: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [row_key(draw.randrange(rows)) for _ in range(min(_DRAWN, 4 * rows))]


def popular_rows(rows: int, seed: int) -> Iterator[str]:
    """Yield keys of filled rows after Zipf, without end: the popular ones are spread over the table."""
    return itertools.cycle(_draw_popular(rows, seed))


@lru_cache(_DRAWINGS_KEPT)
def _draw_popular(rows: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    weights = list(itertools.accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, rows + 1)))
    places = list(range(rows))
    random.Random(1).shuffle(places)  # the same for all clients: they meet at the same keys
    return [row_key(places[bisect(weights, draw.random() * weights[-1])]) for _ in range(_DRAWN)]


def ycsb(mix: str, rows: int, seed: int) -> Iterator[tuple[bool, str]]:
    """Yield whether to write, and which key, as YCSB's workloads A (half writes) and B (a twentieth)."""
    draw = random.Random(seed + 1)
    writes = itertools.cycle([draw.random() < YCSB_WRITES[mix] for _ in range(_DRAWN - 1)])
    return zip(writes, popular_rows(rows, seed))
