"""`kvzmq export, import`: rows as lines of JSON, out of a server or a directory and into a server.

    {"key": KEY, "value": VALUE}                a row
    {"key": KEY, "msgpack": BASE64}             a row whose value JSON cannot say: it holds bytes
    {..., "expires": "2026-01-31T12:00:00Z"}    a row with a time to live, and when it ends
    {"key": KEY, "removed": true}               no row: import removes it
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec
from msgspec import UNSET, UnsetType

from kvzmq import checks, codec, errors
from kvzmq.cli import show
from kvzmq.cli.connection import Connection, TableCommand
from kvzmq.cli.progress import Progress

if TYPE_CHECKING:
    from kvzmq.client.blocking import Client

_BATCH_ROWS = 1000
_BATCH_BYTES = 1 << 18
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def line_of(key: str, value: bytes | None, expires_us: int | None = None) -> bytes:
    """Return the line for a key and its MessagePack value, or None for removed."""
    if value is None:
        return show.encode_json({"key": key, "removed": True})
    row: dict[str, Any] = {"key": key}
    decoded = codec.decode_value(value)
    if _holds_bytes(decoded):
        row["msgpack"] = base64.b64encode(value).decode()
    else:
        row["value"] = decoded
    if expires_us is not None:
        row["expires"] = _EPOCH + timedelta(microseconds=expires_us)
    return show.encode_json(row)


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_bytes, value.values()))
    if isinstance(value, list):
        return any(map(_holds_bytes, value))
    return isinstance(value, bytes)


@click.command(cls=TableCommand)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[DIR]", required=False)
@click.option("--prefix", default="", help="Only keys that begin with this.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write to FILE, not to standard output.")
@click.pass_obj
def export(connection: Connection, directory: Path | None, prefix: str, output: Path | None) -> None:
    """Write every row as a line {"key": ..., "value": ...}, from a server, or from DIR while no server runs on it.

    Values that hold bytes are written as "msgpack" in base64, so that `kvzmq import` gives the same table. Rows
    come in order of their keys. From a server, rows written meanwhile may or may not be among them; a directory
    gives the table as recovery would.
    """
    total: int | None
    if directory is not None:
        found, total = _from_directory(directory, prefix)
    else:
        table = connection.table
        total = table.size() if not prefix else None
        found = _from_server(table, prefix)
    with Progress("rows", total, beside_rows=output is None) as progress:
        lines = progress.count(line_of(*row) for row in found)
        if output is None:
            show.put(lines)
        else:
            with output.open("wb") as file:
                file.writelines(line + b"\n" for line in lines)


_Found = tuple[str, bytes, "int | None"]
"""A key, its value, and when the row expires."""


def _from_server(table: Client, prefix: str) -> Iterator[_Found]:
    rows = iter(table.items(prefix))
    if not table.stats()["expiring_keys"]:
        for key, value in rows:
            yield key, codec.encode_value(value), None
        return
    while page := list(islice(rows, _BATCH_ROWS)):
        with table.pipeline() as batch:
            lives = [batch.ttl(key) for key, _ in page]
        now_us = time.time_ns() // 1000
        for (key, value), life in zip(page, lives):
            try:
                left_s = life.result()
            except errors.NoSuchKey:
                continue  # it has expired since
            yield key, codec.encode_value(value), None if left_s is None else now_us + int(left_s * 1e6)


def _from_directory(directory: Path, prefix: str) -> tuple[Iterator[_Found], int]:
    from kvzmq.store import Store
    from kvzmq.store.file_log import FileLog
    from kvzmq.store.reading import Reading

    with Reading(directory) as reading:
        if reading.in_use:
            raise errors.DirectoryInUse(
                f"{directory} is in use by a kvzmq server: stop it, or export from it with `kvzmq -c URL export`"
            )
        store = Store(FileLog(reading, read_only=True))
        try:
            store.recover()
        except errors.Damaged as error:
            raise errors.Damaged(f"{error}: `kvzmq check --repair {directory}` saves what can be read to a copy") from error
    rows, expiries = store.table.rows, store.table.expiries
    keys = sorted(key for key in rows if key.startswith(prefix))
    return ((key, rows[key], expiries.get(key)) for key in keys), len(keys)


class _Row(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    key: str
    value: Any = UNSET
    msgpack: bytes | UnsetType = UNSET
    expires: datetime | None = None
    removed: bool = False


_decode_row = msgspec.json.Decoder(_Row).decode


class _BadLine(errors.InvalidRequest):
    """Say what is wrong with a line of the input."""


class _Batch:
    """Rows to insert and keys to remove, and the lines they come from."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.lives: dict[str, float] = {}
        self.removed: list[str] = []
        self.bytes = 0
        self._lines: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.rows) + len(self.removed)

    def takes(self, row: _Row, length: int) -> bool:
        """Say whether a row still fits: a key comes once, so that the order within a batch does not matter."""
        return row.key not in self._lines and len(self) < _BATCH_ROWS and (not len(self) or self.bytes + length <= _BATCH_BYTES)

    def add(self, row: _Row, length: int, number: int) -> None:
        left_s = None if row.expires is None else row.expires.timestamp() - time.time()
        if row.removed or (left_s is not None and left_s <= 0):
            self.removed.append(row.key)
        else:
            self.rows[row.key] = row.value
            if left_s is not None:
                self.lives[row.key] = left_s
        self.bytes += length
        self._lines[row.key] = number

    def send(self, table: Client) -> None:
        lasting = {key: value for key, value in self.rows.items() if key not in self.lives}
        if lasting:
            table.insert_many(lasting)
        if self.lives:
            with table.pipeline() as batch:
                done = [batch.insert(key, self.rows[key], left_s) for key, left_s in self.lives.items()]
            for pending in done:
                pending.result()
        if self.removed:
            table.remove_many(self.removed)

    def blame(self, error: errors.InvalidRequest) -> _BadLine:
        """Return the error of the line for which a client refused the batch."""
        from kvzmq.client import values

        for key, value in self.rows.items():
            try:
                values.encode(value, f"the value of {key!r}")
                values.check_key(key)
            except errors.InvalidRequest as refusal:
                return _BadLine(f"line {self._lines[key]}: {refusal}")
        return _BadLine(f"lines {min(self._lines.values())} to {max(self._lines.values())}: {error}")


@click.command("import", cls=TableCommand)
@click.argument("file", type=click.File("rb"), default="-", metavar="[FILE]")
@click.pass_obj
def import_(connection: Connection, file: IO[bytes]) -> None:
    """Insert the rows of FILE, or of standard input: lines as `kvzmq export` writes them.

    Rows go in batches, each all or nothing and durable. At a bad line the import stops and says its number and how
    many rows are done. It may simply be run again: a row inserted twice is the same row. A row whose time is over is
    removed.
    """
    done = 0
    try:
        with Progress("rows", _lines_of(file), beside_rows=False) as progress:
            for batch in _batches(file):
                try:
                    batch.send(connection.table)
                except errors.InvalidRequest as error:
                    raise batch.blame(error) from None
                done += len(batch)
                progress.advance(len(batch))
    except (_BadLine, errors.KvzmqError):
        show.note(f"kvzmq: {done:,} rows are done; run it again to go on")
        raise
    show.note(f"{done:,} rows imported")


def _batches(file: Iterable[bytes]) -> Iterator[_Batch]:
    """Gather rows into batches; the rows before a bad line still go."""
    batch = _Batch()
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = _read_line(line, number)
        except _BadLine:
            if batch:
                yield batch
            raise
        if not batch.takes(row, len(line)):
            yield batch
            batch = _Batch()
        batch.add(row, len(line), number)
    if batch:
        yield batch


def _read_line(line: bytes, number: int) -> _Row:
    try:
        row = _decode_row(line)
        if [row.value is not UNSET, row.msgpack is not UNSET, row.removed].count(True) != 1:
            raise _BadLine(f'line {number}: needs "key" and one of "value", "msgpack" and "removed"')
        if row.expires is not None and row.expires.tzinfo is None:
            raise _BadLine(f"line {number}: the time in \"expires\" needs its zone: ...Z for UTC")
        if row.msgpack is not UNSET:
            checks.check_value(row.msgpack)
            row.value = codec.decode_value(row.msgpack)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, errors.InvalidRequest) as error:
        raise _BadLine(f"line {number}: {error}") from None
    return row


def _lines_of(file: IO[bytes]) -> int | None:
    """Count the lines of a regular file, for the progress bar; None if it can be read only once."""
    if not sys.stderr.isatty() or not file.seekable():
        return None
    count = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    file.seek(0)
    return count
