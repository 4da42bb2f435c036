"""`kvzmq export, import`: rows as lines of JSON, out of a server or a directory and into a server.

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
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec
from msgspec import UNSET, UnsetType

from kvzmq import errors
from kvzmq.cli import show
from kvzmq.cli.arguments import KEY, ttl_option
from kvzmq.cli.connection import Connection, TableCommand
from kvzmq.cli.progress import Progress
from kvzmq.cli.replacing import replacing
from kvzmq.protocol import msgpack, validation
from kvzmq.units import count

if TYPE_CHECKING:
    from kvzmq.client.sync.client import Client

BATCH_ROWS = 1000
_BATCH_BYTES = 1 << 18
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


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_bytes, value.values()))
    if isinstance(value, list):
        return any(map(_holds_bytes, value))
    return isinstance(value, bytes)


@click.command(cls=TableCommand)
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[DIR]", required=False
)
@click.option("--prefix", default="", type=KEY, help="Only keys that begin with this.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write FILE, whole or not at all, with a count as its last line.",
)
@click.pass_obj
def export(connection: Connection, directory: Path | None, prefix: str, output: Path | None) -> None:
    """Write every row as a line {"key": ..., "value": ...}, from a server, or from DIR while no server runs on it.

    Values that hold bytes are written as "msgpack" in base64, so that `kvzmq import` gives the same table. Rows
    come in order of their keys. From a server, rows written meanwhile may or may not be among them; a directory
    gives the table as recovery would.

    -o writes beside FILE and renames when all is on the disk, so that FILE is never half an export. Its last line,
    {"rows": N}, lets `kvzmq import` tell a file that was cut off.
    """
    total: int | None
    if directory is not None:
        found, total = from_directory(directory, prefix)
    else:
        table = connection.table
        total = table.size() if not prefix else None
        found = from_server(table, prefix)
    with Progress("rows", total, beside_rows=output is None) as progress:
        lines = progress.count(line_of(*row) for row in found)
        if output is None:
            show.put(lines)
        else:
            with replacing(output) as file:
                rows = 0
                for line in lines:
                    file.write(line + b"\n")
                    rows += 1
                file.write(show.encode_json({"rows": rows}) + b"\n")
            show.note(f"{count(rows, 'row')} exported")


Found = tuple[str, "bytes | None", "int | None"]
"""A key, its value, or None for removed, and when the row expires, microseconds since 1970 UTC."""


def _may_expire(table: Client) -> bool:
    """Say whether rows may have a time to live: yes where this client has not the right to be told."""
    try:
        return bool(table.stats()["expiring_keys"])
    except errors.NotAllowed:
        return True


def from_server(table: Client, prefix: str) -> Iterator[Found]:
    """Yield the rows of a server, in the order of their keys; those written meanwhile may or may not be among them."""
    rows = iter(table.items(prefix))
    if not _may_expire(table):
        for key, value in rows:
            yield key, msgpack.encode_value(value), None
        return
    while page := list(islice(rows, BATCH_ROWS)):
        yield from with_lives(table, page)


def with_lives(table: Client, page: Sequence[tuple[str, Any]]) -> Iterator[Found]:
    """Yield rows of a server with when each of them expires."""
    with table.pipeline() as batch:
        lives = [batch.ttl(key) for key, _ in page]
    now_us = time.time_ns() // 1000
    for (key, value), life in zip(page, lives):
        try:
            left_s = life.result()
        except errors.NoSuchKey:
            continue  # it has expired since
        yield key, msgpack.encode_value(value), None if left_s is None else now_us + int(left_s * 1e6)


def from_directory(directory: Path, prefix: str) -> tuple[Iterator[Found], int]:
    """Return the rows of a directory, as recovery would give them, and how many there are.

    Raises:
        DirectoryInUse: a server has it open
        CorruptionError: a file is not what was written
    """
    from kvzmq.store.file.file_log import FileLog
    from kvzmq.store.offline.reading import Reading
    from kvzmq.store.store import Store

    with Reading(directory) as reading:
        if reading.in_use:
            raise errors.DirectoryInUse(
                f"{directory} is in use by a kvzmq server: stop it, or export from it with `kvzmq -c URL export`"
            )
        store = Store(FileLog(reading, read_only=True))
        try:
            store.recover()
        except errors.CorruptionError as error:
            raise errors.CorruptionError(
                f"{error}: `kvzmq check --repair {directory}` saves what can be read to a copy"
            ) from error
    rows, expiries = store.table.rows, store.table.expiries
    keys = sorted(key for key in rows if key.startswith(prefix))
    return ((key, rows[key], expiries.get(key)) for key in keys), len(keys)


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


class _BadLine(errors.InvalidRequest):
    """A line of the input is not valid; the message says why."""


class _Tally:
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
            _BadLine: it is another
        """
        if counted != self._lines:
            raise _BadLine(
                f"line {number}: it says that {counted:,} lines came before, but {self._lines:,} did: "
                "some are missing or added"
            )
        self._lines = 0
        self.whole = True


class Batch:
    """Rows to insert and keys to remove, and the lines they come from.

    Args:
        ttl_s: how long rows live for which their lines say nothing
    """

    def __init__(self, ttl_s: float | None = None) -> None:
        self._ttl_s = ttl_s
        self.rows: dict[str, Any] = {}
        self.lives: dict[str, float] = {}
        self.removed: list[str] = []
        self.bytes = 0
        self._lines: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.rows) + len(self.removed)

    def takes(self, row: Row, length: int) -> bool:
        """Say whether a row still fits: a key comes once, so that the order within a batch does not matter."""
        return (
            row.key not in self._lines
            and len(self) < BATCH_ROWS
            and (not len(self) or self.bytes + length <= _BATCH_BYTES)
        )

    def add(self, row: Row, length: int, number: int) -> None:
        """Add a row of `length` bytes, from the line of this number."""
        left_s = self._ttl_s if row.expires is None else row.expires.timestamp() - time.time()
        if row.removed or (left_s is not None and left_s <= 0):
            self.removed.append(row.key)
        else:
            self.rows[row.key] = row.value
            if left_s is not None:
                self.lives[row.key] = left_s
        self.bytes += length
        self._lines[row.key] = number

    def send(self, table: Client) -> None:
        """Have the table do it."""
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
        from kvzmq.client.core import values

        for key, value in self.rows.items():
            try:
                values.encode(value, f"the value of {key!r}")
                values.check_key(key)
            except errors.InvalidRequest as refusal:
                return _BadLine(f"line {self._lines[key]}: {refusal}")
        return _BadLine(f"lines {min(self._lines.values())} to {max(self._lines.values())}: {error}")


@click.command("import", cls=TableCommand)
@click.argument("file", type=click.File("rb"), default="-", metavar="[FILE]")
@click.option("--replace", is_flag=True, help="Make the table exactly FILE: remove every row that is not in it.")
@click.option("--without-count", is_flag=True, help="Let --replace take a file that has no count as its last line.")
@ttl_option
@click.pass_obj
def import_(connection: Connection, file: IO[bytes], replace: bool, without_count: bool, ttl_s: float | None) -> None:
    """Insert the rows of FILE, or of standard input: lines as `kvzmq export` writes them.

    Rows go in batches, each all or nothing and durable. At a bad line the import stops and says its number and how
    many rows are done. It may simply be run again: a row inserted twice is the same row. A row whose time is over is
    removed. --ttl is for rows whose lines do not say how long they live.

    The count in the last line of a file that `export -o` wrote is compared before anything is inserted, that of a pipe
    at its end.

    --replace reads all of FILE first and refuses it if a line is bad or the count is missing. Then it inserts the rows
    and removes the others, a batch at a time: not at one moment, so readers see both meanwhile, and what is inserted
    by others meanwhile may stay or go. If it is cut off, run it again. It keeps all keys in memory.
    """
    if replace:
        with _spooled(file) as whole:
            _replace(connection, whole, without_count, ttl_s)
        return
    _check_counts(file)
    done, tally = _insert(connection, file, ttl_s)
    show.note(f"{count(done, 'row')} imported")
    if not tally.whole:
        show.note(
            "kvzmq: there is no count at the end, as `export -o` writes it: "
            "a file that was cut off would not be noticed"
        )


def _insert(connection: Connection, file: IO[bytes], ttl_s: float | None) -> tuple[int, _Tally]:
    """Insert the rows of a file; returns how many."""
    done, tally = 0, _Tally()
    try:
        with Progress("rows", _lines_of(file), beside_rows=False) as progress:
            for batch in _batches(file, tally, ttl_s):
                try:
                    batch.send(connection.table)
                except errors.InvalidRequest as error:
                    raise batch.blame(error) from None
                done += len(batch)
                progress.advance(len(batch))
    except (_BadLine, errors.KvzmqError):
        show.note(f"kvzmq: {done:,} rows are done; run it again to go on")
        raise
    return done, tally


def _check_counts(file: IO[bytes]) -> None:
    """Compare the counts in a file with its lines, if it can be read twice.

    Raises:
        _BadLine: one is wrong
    """
    if not file.seekable():
        return
    begin = file.tell()
    tally = _Tally()
    for number, line in enumerate(file, start=1):
        if line.startswith(_COUNT_BEGINS):
            tally.check(_read_count(line, number), number)
        elif line.strip():
            tally.add()
    file.seek(begin)


@contextlib.contextmanager
def _spooled(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give a file that can be read twice."""
    if file.seekable():
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield copy


def _replace(connection: Connection, file: IO[bytes], without_count: bool, ttl_s: float | None) -> None:
    begin = file.tell()
    keys, tally = _read_all(file)
    if not (tally.whole or without_count):
        raise errors.InvalidRequest(
            "there is no count at the end, as `export -o` writes it: the file may have been cut off, "
            "and --replace would remove what it lost. Nothing was changed; --without-count takes it as it is"
        )
    file.seek(begin)
    done, _ = _insert(connection, file, ttl_s)
    removed = 0
    others = (key for key in connection.table if key not in keys)
    try:
        while page := list(islice(others, BATCH_ROWS)):
            removed += connection.table.remove_many(page)
    except errors.KvzmqError:
        show.note(f"kvzmq: {count(done, 'row')} imported, {removed:,} others removed so far; run it again to go on")
        raise
    show.note(f"{count(done, 'row')} imported, {removed:,} others removed")


def _read_all(file: IO[bytes]) -> tuple[set[str], _Tally]:
    """Look at every line of a file, and return the keys that the table has afterwards.

    Raises:
        _BadLine: one is no row that a table could keep, or a count is wrong
    """
    from kvzmq.client.core import values

    keys: set[str] = set()
    tally = _Tally()
    for number, row in _rows_of(file, tally):
        try:
            values.check_key(row.key)
            values.encode(row.value if row.value is not UNSET else None)
        except errors.InvalidRequest as error:
            raise _BadLine(f"line {number}: {error}") from None
        (keys.discard if row.removed else keys.add)(row.key)
    return keys, tally


def _batches(file: Iterable[bytes], tally: _Tally, ttl_s: float | None) -> Iterator[Batch]:
    """Gather rows into batches; the rows before a bad line still go."""
    batch = Batch(ttl_s)
    try:
        for number, row in _rows_of(file, tally):
            if not batch.takes(row, tally.line_bytes):
                yield batch
                batch = Batch(ttl_s)
            batch.add(row, tally.line_bytes, number)
    except _BadLine:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _rows_of(file: Iterable[bytes], tally: _Tally) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file with the numbers of their lines.

    Raises:
        _BadLine: a line is neither a row nor a count that is right
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
        raise _BadLine(f"line {number}: {error}") from None


def _read_line(line: bytes, number: int) -> Row:
    try:
        row = _decode_row(line)
        if [row.value is not UNSET, row.msgpack is not UNSET, row.removed].count(True) != 1:
            raise _BadLine(f'line {number}: needs "key" and one of "value", "msgpack" and "removed"')
        if row.expires is not None and row.expires.tzinfo is None:
            raise _BadLine(f'line {number}: the time in "expires" needs its zone: ...Z for UTC')
        if row.msgpack is not UNSET:
            validation.check_value(row.msgpack)
            row.value = msgpack.decode_value(row.msgpack)
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
