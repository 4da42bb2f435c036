"""`kvzmq backup, restore`: the whole table, out of a running server into a file, and from there into a directory."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvzmq.cli import show
from kvzmq.cli.arguments import RegularFile
from kvzmq.cli.connection import Connection, TableCommand, json_option
from kvzmq.cli.progress import Progress
from kvzmq.cli.replacing import replacing
from kvzmq.units import count, size, utc

if TYPE_CHECKING:
    from kvzmq.client.sync.client import Client

_MODE = 0o600
_NOTICE_S = 0.5
_STANDARD_OUTPUT = Path("-")


@click.command(cls=TableCommand)
@click.argument("destination", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), metavar="DEST")
@json_option
@click.pass_obj
def backup(connection: Connection, destination: Path, as_json: bool) -> None:
    """Write the whole table of a running server to the file DEST, or to standard output if that is -.

    The server writes a checkpoint and goes on serving; the checkpoint comes over the connection. In it is everything
    that was acknowledged before the command began: rows, times to live, sessions with their results, revision and
    lineage. DEST is written beside its place (mode 0600), checked, synced and renamed: it is a whole backup or what
    it was before. Of standard output exit code 0 says that it is whole; `kvzmq check` and `kvzmq restore` refuse one
    that was cut off.

    Exit code 4 if the server cannot be reached, or is lost in the middle; 5 if it cannot write a checkpoint, on a
    full disk for example.
    """
    from kvzmq.store.offline.backup import copy

    to_output = destination == _STANDARD_OUTPUT
    if to_output and as_json:
        raise click.UsageError("--json goes to standard output, and so does a backup to -: leave out one of them")
    if to_output and sys.stdout.isatty():
        raise click.UsageError("a backup is no text for a terminal: name a file, or redirect standard output")
    with _writing(destination) as write:
        copied = copy(_pieces(connection.table), write, f"the backup from {connection.where}")
    found = copied.summary
    if as_json:
        show.put([show.encode_json({
            "file": str(destination), "bytes": copied.bytes, "group": copied.group, **found._asdict(),
        })])  # fmt: skip
        return
    show.note(
        f"{'written' if to_output else destination}: {size(copied.bytes)}, {count(found.rows, 'row')}, "
        f"revision {found.revision}, {count(found.sessions, 'session')}, as of {utc(found.time_us)}; "
        f"lineage {found.lineage}, epoch {found.epoch}"
    )


@contextlib.contextmanager
def _writing(destination: Path) -> Iterator[Callable[[bytes], object]]:
    if destination == _STANDARD_OUTPUT:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
    else:
        with replacing(destination, _MODE) as file:
            yield file.write


def _pieces(table: Client) -> Iterator[bytes]:
    """Yield the backup, and show how much of it has come once the server has written it."""
    pieces = table.backup()
    notice = threading.Timer(_NOTICE_S, show.note, ["kvzmq: the server writes a checkpoint of the table"])
    notice.daemon = True
    if sys.stderr.isatty():
        notice.start()
    try:
        first = next(pieces)
    finally:
        notice.cancel()
    length = int(table.stats().get("checkpoint_bytes", 0))  # of a later one, if another has been written since
    with Progress("MiB", max(1, length >> 20), beside_rows=False) as progress:
        done = 0
        for piece in chain((first,), pieces):
            yield piece
            before, done = done, done + len(piece)
            progress.advance((done >> 20) - (before >> 20))


@click.command()
@click.argument("source", type=RegularFile(), metavar="SRC")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    envvar="KVZMQ_DATA",
    metavar="DIR",
    help="The table's directory; created if it is not there. No server may run on it.",
)
@click.option(
    "--replace", is_flag=True, help="Keep the table that is there aside, in DIR/replaced-TIME, and replace it."
)
@json_option
def restore(source: Path, data: Path, replace: bool, as_json: bool) -> None:
    """Make DIR hold the table of the backup SRC, as it was then.

    SRC is read and checked as a whole before anything is changed, and the new files are read back before they take
    their place. A directory that holds a table is refused unless --replace says so; the old table is then kept in a
    directory below DIR. If DIR belongs to another user than you, run this as that user.

    The next start of a server begins a new epoch of the same table: a retry of what was acknowledged before the
    backup gets its first result, and a watch from a later revision is refused, RevisionGone.
    """
    from kvzmq.store.offline.restore import restore as restore_table

    report, replaced = restore_table(source, data, replace)
    if as_json:
        show.put([show.encode_json({
            "data": str(data), "rows": report.rows, "revision": report.revision, "sessions": report.sessions,
            "group": report.group, "lineage": report.lineage, "epoch": report.epoch,
            "replaced": None if replaced is None else str(replaced),
        })])  # fmt: skip
        return
    show.put(
        [
            f"restored to {data}: {count(report.rows, 'row')}, revision {report.revision}, "
            f"{count(report.sessions, 'session')}; lineage {report.lineage}".encode()
        ]
    )
    if replaced is not None:
        show.put([f"the table that was there is kept in {replaced}".encode()])
