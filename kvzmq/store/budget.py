"""The limits of one request: the bytes of its results, the scans it makes, the rows they find, the bytes it compares.

The table charges what it reads, the dispatcher what it adds to the same reply. An operation that would exceed the
budget fails before it has done anything. Whether an operation fails is part of its result, so these limits, the order
in which they are checked and the messages belong to the semantics of the log: a log of the first version is replayed
with the limits of that version.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec import Raw

from kvzmq import errors
from kvzmq.protocol import limits, msgpack
from kvzmq.protocol.messages import LargeResults
from kvzmq.store.indexes import INDEXES_MAX
from kvzmq.store.log import SEMANTICS

_RESULT_BYTES_MAX = {1: (8 << 20) - 1024, 2: limits.RESULT_BYTES_MAX, 3: limits.RESULT_BYTES_MAX}
"""How many bytes the results of one request may take, by the semantics under which it is executed."""

_TEXT_BYTES_FREE = 512
"""How many bytes of error messages are not charged: the reply has that much room beside the results."""

_RESULT_BYTES = 8
"""How many bytes a result takes beside its payload: an array's head, a code, a text's head."""

_KEY_HEAD_BYTES, _CHAR_BYTES_MAX = 5, 4
"""How many bytes a key takes at most: its head, and each code point in UTF-8."""

COMPARED_BYTES_MAX = 2 << 20
"""How many bytes of values one request may have compared other than byte by byte; decoding these takes up to 40 ms."""

SCANS_MAX = 1000
"""How many `query`, `keys` and `items` one request may hold: each takes 5 us even if it finds nothing."""

ROWS_FOUND_MAX = 100_000
"""How many rows the `query`, `keys` and `items` of one request may find together; finding them takes 60 ms."""

CHANGES_BEFORE_SCAN_MAX = 1000
CHANGED_BYTES_BEFORE_SCAN_MAX = 1 << 20
"""How many rows one request may change, and how many bytes it may replace, before it scans: each of the indexes it
needs has to apply these changes at once."""


class Budget:
    """What is left of the limits of the request that is being executed."""

    __slots__ = (
        "_compared_bytes", "_revision_before", "_rows_found", "_scans", "_semantics", "_subkeys", "_text_bytes",
        "left_bytes", "replaced_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.left_bytes = 0
        """What is left of the room for results, below 0 once it was exceeded."""
        self.replaced_bytes = 0
        """How many bytes of values the request has replaced or removed; the table counts them for one that scans."""
        self._semantics = SEMANTICS
        self._text_bytes = 0
        self._subkeys: set[str] = set()  # that were queried
        self._scans = 0
        self._rows_found = 0
        self._compared_bytes = 0
        self._revision_before = 0  # the request

    def begin(self, results: int, semantics: int, revision: int) -> None:
        """Begin the budget of a request.

        Args:
            results: how many it has, one for each operation
            semantics: the version of what its operations mean
            revision: the table's
        """
        self._semantics = semantics
        self.left_bytes = _RESULT_BYTES_MAX[semantics] - _RESULT_BYTES * (results - 1)
        self._text_bytes = self._scans = self._rows_found = self._compared_bytes = self.replaced_bytes = 0
        if self._subkeys:
            self._subkeys.clear()
        self._revision_before = revision

    # ---- the bytes of the results

    def charge(self, payload: bytes) -> Raw:
        """Charge an encoded payload, and return it as it goes into the reply.

        Raises:
            ResultTooLarge: there is no room left
        """
        self.left_bytes -= len(payload)
        if self.left_bytes < 0:
            self.check()
        return Raw(payload)

    def charge_row(self, key: str, value: bytes) -> Raw:
        """Charge a row, and return its value as it goes into the reply.

        Raises:
            ResultTooLarge: there is no room left
        """
        self.left_bytes -= _CHAR_BYTES_MAX * len(key) + _KEY_HEAD_BYTES
        return self.charge(value)

    def charge_rows(self, keys: Collection[str], values: Collection[bytes]) -> None:
        """Charge rows together: to charge them one by one would take longer than to read them.

        Raises:
            ResultTooLarge: there is no room left
        """
        self.left_bytes -= sum(map(len, values)) + _CHAR_BYTES_MAX * sum(map(len, keys)) + _KEY_HEAD_BYTES * len(keys)
        self.check()

    def charge_keys(self, keys: Collection[str]) -> None:
        """Charge a page of keys.

        Raises:
            ResultTooLarge: there is no room left
        """
        self.left_bytes -= _CHAR_BYTES_MAX * sum(map(len, keys)) + _KEY_HEAD_BYTES * len(keys)
        if self.left_bytes < 0:
            raise errors.ResultTooLarge("the keys are too long for one page: ask for a smaller limit")

    def charge_text(self, text: str) -> str:
        """Charge an error's text and return it, or "" when there is no room; the first ones are not charged."""
        self._text_bytes += len(text)
        if self._text_bytes <= _TEXT_BYTES_FREE:
            return text
        self.left_bytes -= len(text)
        return text if self.left_bytes >= 0 else ""

    def has_room(self, key: str, value: bytes) -> bool:
        """Say whether there is room for a row."""
        return self.left_bytes >= len(value) + _CHAR_BYTES_MAX * len(key) + _KEY_HEAD_BYTES

    def check(self) -> None:
        """Check that the results fit so far.

        Raises:
            ResultTooLarge: they do not
        """
        if self.left_bytes < 0:
            most = _RESULT_BYTES_MAX[self._semantics]
            raise errors.ResultTooLarge(f"the results exceed {most} bytes: ask for less at a time")

    def encode(self, results: list[tuple[int, Any]]) -> bytes | LargeResults:
        """Encode the results, pairs of a code and a payload; large ones later, when they are sent."""
        left_bytes = max(0, self.left_bytes)  # below 0: refused
        return msgpack.results_of(results, _RESULT_BYTES_MAX[self._semantics] - left_bytes)

    # ---- scans and comparisons

    def charge_scan(self, revision: int) -> None:
        """Charge a scan that is about to be made, the table being at `revision`.

        Raises:
            ResultTooLarge: the request has scanned too often, has changed too much before, or has no room left
        """
        self.check()
        if self._semantics < 2:
            return
        self.charge_found(0)
        self._scans += 1
        if self._scans > SCANS_MAX:
            raise errors.ResultTooLarge(f"a request may hold {SCANS_MAX} query, keys and items: send more requests")
        if (
            revision - self._revision_before > CHANGES_BEFORE_SCAN_MAX
            or self.replaced_bytes > CHANGED_BYTES_BEFORE_SCAN_MAX
        ):
            raise errors.ResultTooLarge(
                f"after {CHANGES_BEFORE_SCAN_MAX} changes of rows, or {CHANGED_BYTES_BEFORE_SCAN_MAX} bytes, "
                "query, keys and items go in a request of their own"
            )

    def charge_subkey(self, subkey: str) -> None:
        """Charge a query for a subkey: each may need an index to be built, while every client waits.

        Raises:
            ResultTooLarge: the request has queried too many
        """
        self._subkeys.add(subkey)
        if len(self._subkeys) > INDEXES_MAX:
            raise errors.ResultTooLarge(f"a request may query {INDEXES_MAX} different subkeys: send more requests")

    def charge_found(self, rows: int) -> None:
        """Charge rows that a scan has found.

        Raises:
            ResultTooLarge: the request has found too many
        """
        self._rows_found += rows
        if self._semantics >= 2 and self._rows_found > ROWS_FOUND_MAX:
            raise errors.ResultTooLarge(f"a request may find {ROWS_FOUND_MAX} rows: ask for less at a time")

    def charge_comparison(self, size: int) -> None:
        """Charge `size` bytes of values that are about to be decoded to be compared.

        Raises:
            ResultTooLarge: the request has compared too many
        """
        self._compared_bytes += size
        if self._compared_bytes > COMPARED_BYTES_MAX:
            raise errors.ResultTooLarge(f"a request may compare {COMPARED_BYTES_MAX} bytes of values")
