"""Rows as lines of JSON: written by `kvzmq export`, read by `kvzmq import`.

    {"key": KEY, "value": VALUE}                a row
    {"key": KEY, "msgpack": BASE64}             a row whose value JSON cannot say: it holds bytes
    {..., "expires": "2026-01-31T12:00:00Z"}    a row with a time to live, and when it ends
    {"key": KEY, "removed": true}               no row: import removes it
    {"rows": N}                                 how many lines came before it: `export -o` writes it last

A file without the last line, of another program or of version 0.1, is imported all the same; only nobody can tell
then whether it was cut off.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import IO, Any

import msgspec
from msgspec import UNSET, UnsetType

from kvzmq import errors
from kvzmq.cli import show
from kvzmq.protocol import msgpack, validation

_COUNT_BEGINS = b'{"rows":'
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def line_of(key: str, value: bytes | None, expires_us: int | None = None) -> bytes:
    """Return the line for a key and its MessagePack value, or None for removed."""
    if value is None:
        return show.encode_json({"key": key, "removed": True})
    row: dict[str, Any] = {"key": key}
    decoded = msgpack.decode_value(value)
    if _holds_bytes(decoded):
        row["msgpack"] = base64.b64encode(value).decode()
    else:
        row["value"] = decoded
    if expires_us is not None:
        row["expires"] = EPOCH + timedelta(microseconds=expires_us)
    return show.encode_json(row)


def count_line_of(rows: int) -> bytes:
    """Return the line that says how many rows came before it."""
    return show.encode_json({"rows": rows})


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_bytes, value.values()))
    if isinstance(value, list):
        return any(map(_holds_bytes, value))
    return isinstance(value, bytes)


class Row(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A line of an export."""

    key: str
    value: Any = UNSET
    msgpack: bytes | UnsetType = UNSET
    expires: datetime | None = None
    removed: bool = False


class _Count(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    rows: int


_decode_row = msgspec.json.Decoder(Row).decode
_decode_count = msgspec.json.Decoder(_Count).decode


class BadRow(errors.InvalidRequest):
    """A line of the input is not valid; the message says why."""


class Tally:
    """Compares the lines of a file with the counts it holds.

    Files put behind one another have a count each: it is for the lines since the one before.
    """

    def __init__(self) -> None:
        self.whole = False
        """Whether a count was the last line: then nothing is missing at the end."""
        self.line_bytes = 0
        """The length of the line that was read last."""
        self._lines = 0

    def add(self) -> None:
        self._lines += 1
        self.whole = False

    def check(self, counted: int, number: int) -> None:
        """Compare with a count, which stands in line `number`.

        Raises:
            BadRow: it is another
        """
        if counted != self._lines:
            raise BadRow(
                f"line {number}: it says that {counted:,} lines came before, but {self._lines:,} did: "
                "some are missing or added"
            )
        self._lines = 0
        self.whole = True


def rows_of(file: Iterable[bytes], tally: Tally) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file with the numbers of their lines.

    Raises:
        BadRow: a line is neither a row nor a count that is right
    """
    for number, line in enumerate(file, start=1):
        if line.startswith(_COUNT_BEGINS):
            tally.check(_read_count(line, number), number)
        elif line.strip():
            row = _read_line(line, number)
            tally.add()
            tally.line_bytes = len(line)
            yield number, row


def _read_count(line: bytes, number: int) -> int:
    try:
        return _decode_count(line).rows
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRow(f"line {number}: {error}") from None


def _read_line(line: bytes, number: int) -> Row:
    try:
        row = _decode_row(line)
        if [row.value is not UNSET, row.msgpack is not UNSET, row.removed].count(True) != 1:
            raise BadRow(f'line {number}: needs "key" and one of "value", "msgpack" and "removed"')
        if row.expires is not None and row.expires.tzinfo is None:
            raise BadRow(f'line {number}: the time in "expires" needs its zone: ...Z for UTC')
        if row.msgpack is not UNSET:
            validation.check_value(row.msgpack)
            row.value = msgpack.decode_value(row.msgpack)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, errors.InvalidRequest) as error:
        raise BadRow(f"line {number}: {error}") from None
    return row


def check_counts(file: IO[bytes]) -> None:
    """Compare the counts in a file with its lines, if it can be read twice.

    Raises:
        BadRow: one is wrong
    """
    if not file.seekable():
        return
    begin = file.tell()
    tally = Tally()
    for number, line in enumerate(file, start=1):
        if line.startswith(_COUNT_BEGINS):
            tally.check(_read_count(line, number), number)
        elif line.strip():
            tally.add()
    file.seek(begin)
