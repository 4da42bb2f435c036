"""Entries, answers and catalogs for tests, without sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from kvzmq.catalog.pages import Pages
from kvzmq.catalog.table import Catalog

WAIT_S = 60.0
EPOCH_S = 1_700_000_000.0


class Clock:
    """A clock that runs when told to."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def update(**fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def make_catalog(**arguments: Any) -> tuple[Catalog, Clock, Clock]:
    wall, monotonic = Clock(EPOCH_S), Clock(1000.0)
    return Catalog(clock=wall, monotonic=monotonic, **arguments), wall, monotonic


def listed(catalog: Catalog) -> list[dict[str, Any]]:
    body = Pages(catalog, "here:1").json()
    entries = json.loads(body)
    assert isinstance(entries, list)
    return entries


def body_of(answer: bytes | None) -> bytes:
    assert answer is not None
    return answer.partition(b"\r\n\r\n")[2]


def http(body: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return status + b"\r\nContent-Type: text/plain\r\n\r\n" + body


def entry(**fields: object) -> dict[str, object]:
    known = {"type": "hashtable", "project": "zebra", "port": 1, "address": "127.0.0.1", "lastheardfrom": 100}
    return {**known, **fields}


def until(holds: Callable[[], bool], step: Callable[[], None] = lambda: None) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, "waited in vain"
        step()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
FIELD_NAMES = st.sampled_from(
    ["type", "project", "address", "name", "port", "endpoint", "lastheardfrom", "keys", "uuid", "lineage", "lifetime"]
)
