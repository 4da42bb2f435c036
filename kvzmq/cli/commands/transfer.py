"""`kvzmq export, import`: a table's rows as lines of JSON, out of a server or a directory and into a server.

`kvzmq.cli.rows.lines` has the form of a line.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import click
from msgspec import UNSET

from kvzmq import errors
from kvzmq.cli import show
from kvzmq.cli.arguments import KEY, ttl_option
from kvzmq.cli.connection import Connection, TableCommand
from kvzmq.cli.progress import Progress
from kvzmq.cli.replacing import replacing
from kvzmq.cli.rows.batches import Batch, remove_others
from kvzmq.cli.rows.lines import BadRow, Tally, check_counts, count_line_of, line_of, rows_of
from kvzmq.cli.rows.sources import from_directory, from_server
from kvzmq.units import count


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
                file.write(count_line_of(rows) + b"\n")
            show.note(f"{count(rows, 'row')} exported")


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
    check_counts(file)
    done, tally = _insert(connection, file, ttl_s)
    show.note(f"{count(done, 'row')} imported")
    if not tally.whole:
        show.note(
            "kvzmq: there is no count at the end, as `export -o` writes it: "
            "a file that was cut off would not be noticed"
        )


def _insert(connection: Connection, file: IO[bytes], ttl_s: float | None) -> tuple[int, Tally]:
    """Insert the rows of a file; returns how many."""
    done, tally = 0, Tally()
    try:
        with Progress("rows", _lines_of(file), beside_rows=False) as progress:
            for batch in _batches(file, tally, ttl_s):
                try:
                    batch.send(connection.table)
                except errors.InvalidRequest as error:
                    raise batch.blame(error) from None
                done += len(batch)
                progress.advance(len(batch))
    except errors.KvzmqError as error:
        if done or not isinstance(error, BadRow):  # of what is no file of rows, the reason says all
            show.note(f"kvzmq: {done:,} rows are done; run it again to go on")
        raise
    return done, tally


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
    try:
        for removed_now in remove_others(connection.table, keys):
            removed += removed_now
    except errors.KvzmqError:
        show.note(f"kvzmq: {count(done, 'row')} imported, {removed:,} others removed so far; run it again to go on")
        raise
    show.note(f"{count(done, 'row')} imported, {removed:,} others removed")


def _read_all(file: IO[bytes]) -> tuple[set[str], Tally]:
    """Look at every line of a file, and return the keys that the table has afterwards.

    Raises:
        BadRow: one is no row that a table could keep, or a count is wrong
    """
    from kvzmq.client.core import values

    keys: set[str] = set()
    tally = Tally()
    for number, row in rows_of(file, tally):
        try:
            values.check_key(row.key)
            values.encode(row.value if row.value is not UNSET else None)
        except errors.InvalidRequest as error:
            raise BadRow(f"line {number}: {error}") from None
        (keys.discard if row.removed else keys.add)(row.key)
    return keys, tally


def _batches(file: Iterable[bytes], tally: Tally, ttl_s: float | None) -> Iterator[Batch]:
    """Gather rows into batches; the rows before a bad line still go."""
    batch = Batch(ttl_s)
    try:
        for number, row in rows_of(file, tally):
            if not batch.takes(row, tally.line_bytes):
                yield batch
                batch = Batch(ttl_s)
            batch.add(row, tally.line_bytes, number)
    except BadRow:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _lines_of(file: IO[bytes]) -> int | None:
    """Count the lines of a regular file, for the progress bar; None if it can be read only once."""
    if not sys.stderr.isatty() or not file.seekable():
        return None
    begin = file.tell()
    lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    file.seek(begin)
    return lines
