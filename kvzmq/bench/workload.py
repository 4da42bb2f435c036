"""What `kvzmq bench` sends: the operations of each test, and the rows that must be there before it.

All keys begin with a prefix of this run's own, so that nobody else's rows are touched.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Raw

from kvzmq.bench.load import operation

MATCHES = 10
"""How many rows a query of the test finds."""


class Workload:
    """The requests of the tests: operations on `keyspace` rows with values of `data_bytes`."""

    def __init__(self, keyspace: int, data_bytes: int) -> None:
        self.prefix = f"kvzmq-bench-{os.urandom(4).hex()}:"
        self.keyspace = keyspace
        self.value = "x" * data_bytes
        self._random = random.Random(7)

    def key(self, number: int) -> str:
        """Return the key of a row by its number."""
        return f"{self.prefix}{number:012d}"

    def any_key(self) -> str:
        """Return the key of a row drawn at random."""
        return self.key(self._any_number())

    def any_group(self) -> str:
        """Return the group of a row drawn at random: a query for it finds `MATCHES` rows."""
        return self._group(self._any_number())

    def rows(self, test: str, requests: int) -> Iterator[tuple[str, Any]]:
        """Yield the rows that must be there before `test`."""
        if test == "query":
            return ((self.key(n), {"group": self._group(n), "data": self.value}) for n in range(self.keyspace))
        count = {"lookup": self.keyspace, "remove": requests}.get(test, 0)
        return ((self.key(n), self.value) for n in range(count))

    def operations(self, test: str) -> Iterator[Raw]:
        """Yield the operations of `test` without end."""
        return TESTS[test](self)

    def _any_number(self) -> int:
        return int(self._random.random() * self.keyspace)

    def _group(self, number: int) -> str:
        return f"{self.prefix}{number // MATCHES}"


TESTS: dict[str, Callable[[Workload], Iterator[Raw]]] = {
    "ping": lambda work: itertools.repeat(operation("ping")),
    "insert": lambda work: (operation("insert", work.any_key(), work.value) for _ in itertools.count()),
    "lookup": lambda work: (operation("lookup", work.any_key()) for _ in itertools.count()),
    "size": lambda work: itertools.repeat(operation("size")),
    "increment": lambda work: (operation("increment", work.prefix + "counter") for _ in itertools.count()),
    "query": lambda work: (operation("query", "group", work.any_group()) for _ in itertools.count()),
    "remove": lambda work: (operation("remove", work.key(n)) for n in itertools.count()),
}
"""What each test sends."""
