"""Rows into a server, in batches: each all or nothing, and durable when it was sent."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from kvzmq import errors
from kvzmq.cli.rows.lines import BadRow, Row

if TYPE_CHECKING:
    from kvzmq.client.sync.client import Client

BATCH_ROWS_MAX = 1000
_BATCH_BYTES_MAX = 1 << 18
"""How many rows a batch has at most, and how many bytes of them; a single larger row goes by itself."""


class Batch:
    """Rows to insert and keys to remove, and the lines they come from.

    Args:
        ttl_s: the time to live of rows whose lines say nothing of it, seconds; None for good
    """

    def __init__(self, ttl_s: float | None = None) -> None:
        self._ttl_s = ttl_s
        self.rows: dict[str, Any] = {}
        self.ttls_s: dict[str, float] = {}
        self.removed: list[str] = []
        self.bytes = 0
        self._lines: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.rows) + len(self.removed)

    def takes(self, row: Row, length: int) -> bool:
        """Say whether a row still fits: a key comes once, so that the order within a batch does not matter."""
        return (
            row.key not in self._lines
            and len(self) < BATCH_ROWS_MAX
            and (not len(self) or self.bytes + length <= _BATCH_BYTES_MAX)
        )

    def add(self, row: Row, length: int, number: int) -> None:
        """Add a row of `length` bytes, from the line of this number."""
        left_s = self._ttl_s if row.expires is None else row.expires.timestamp() - time.time()
        if row.removed or (left_s is not None and left_s <= 0):
            self.removed.append(row.key)
        else:
            self.rows[row.key] = row.value
            if left_s is not None:
                self.ttls_s[row.key] = left_s
        self.bytes += length
        self._lines[row.key] = number

    def send(self, table: Client) -> None:
        """Insert the rows and remove the keys; durable on return. Raises as the client does."""
        lasting = {key: value for key, value in self.rows.items() if key not in self.ttls_s}
        if lasting:
            table.insert_many(lasting)
        if self.ttls_s:
            with table.pipeline() as batch:
                done = [batch.insert(key, self.rows[key], left_s) for key, left_s in self.ttls_s.items()]
            for pending in done:
                pending.result()
        if self.removed:
            table.remove_many(self.removed)

    def blame(self, error: errors.InvalidRequest) -> BadRow:
        """Return the error of the line for which a client refused the batch."""
        from kvzmq.client.core import values

        for key, value in self.rows.items():
            try:
                values.encode(value, f"the value of {key!r}")
                values.check_key(key)
            except errors.InvalidRequest as refusal:
                return BadRow(f"line {self._lines[key]}: {refusal}")
        return BadRow(f"lines {min(self._lines.values())} to {max(self._lines.values())}: {error}")


def remove_others(table: Client, keys: Collection[str], prefix: str = "") -> Iterator[int]:
    """Remove all rows below a prefix but those of `keys`, a batch at a time; yield how many each batch was."""
    others = (key for key in table.keys(prefix) if key not in keys)
    while page := list(islice(others, BATCH_ROWS_MAX)):
        yield table.remove_many(page)
