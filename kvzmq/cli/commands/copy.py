"""`kvzmq copy`: the rows of one table into another, wherever each is kept: in a directory or in etcd.

Times to live come along. Revisions, sessions and their results, and the history of changes do not: the other table has
its own. (`kvzmq backup` and `restore` keep these, from a directory, or from etcd, to a directory.)

A server goes on while it is copied. What is written to it meanwhile is read again, key by key, until a pass finds
nothing more: then the copy is the table as it was at one revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from kvzmq import errors
from kvzmq.cli import NOT_FOUND, show
from kvzmq.cli.arguments import KEY
from kvzmq.cli.connection import Connection, TableCommand
from kvzmq.cli.rows.batches import BATCH_ROWS_MAX, Batch, remove_others
from kvzmq.cli.rows.lines import EPOCH, Row
from kvzmq.cli.rows.sources import Found, from_directory, from_server, with_expiries
from kvzmq.protocol import msgpack
from kvzmq.units import count

if TYPE_CHECKING:
    from kvzmq.client.sync.client import Client
    from kvzmq.client.sync.watch import Watch

_PASSES_MAX = 10
"""How often what was written meanwhile is read again."""


class _Copied(NamedTuple):
    """What was read of a server: all keys that are there, the revision, and whether it was read at that revision."""

    keys: set[str]
    revision: int
    whole: bool


@click.command(cls=TableCommand)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--prefix", default="", type=KEY, help="Only keys that begin with this.")
@click.option("--replace", is_flag=True, help="Make the keys of TO exactly those of FROM: remove every other row.")
@click.pass_context
def copy(ctx: click.Context, source: str, target: str, prefix: str, replace: bool) -> None:
    """Copy the rows of FROM into TO: from the directory of a server that does not run, or a server's URL, to a URL.

    So a table moves from a directory into etcd and back: start a server on the new place, copy, and let the clients
    connect there. Rows go in batches, each all or nothing and durable; run it again if it is cut off. Keys, values and
    times to live are copied; revisions start anew, and a retry of a change made before is not recognised there.

    A server that is written to meanwhile is copied as it was at one revision, which is told, unless that never rests:
    then the exit code is 1.
    """
    connection: Connection = ctx.obj
    if "://" not in target and ("/" in target or Path(target).is_dir()):
        raise click.UsageError(f"{target} is a directory: start a server on it, and give that one's URL")
    to = connection.with_settings(url=target)
    ctx.call_on_close(to.close)
    table = to.table
    if "://" not in source:
        path = Path(source)
        if not path.is_dir():
            raise click.UsageError(f"{source} is neither a directory nor a URL such as tcp://HOST:PORT")
        found, _ = from_directory(path, prefix)
        copied = _Copied(set(), 0, True)
        _send(table, found, copied.keys)
        where = f"of {source}"
    else:
        of = connection.with_settings(url=source)
        ctx.call_on_close(of.close)
        copied = _copy_server(of.table, table, prefix)
        where = f"as {of.where} was at revision {copied.revision:,}"
    removed = sum(remove_others(table, copied.keys, prefix)) if replace else 0
    others = f", {removed:,} others removed" if replace else ""
    if not copied.whole:
        show.note(f"kvzmq: {count(len(copied.keys), 'row')} copied{others}, but FROM is written to without a rest: "
                  "what was written last may be missing. Stop its writers and run it again")  # fmt: skip
        ctx.exit(NOT_FOUND)
    show.note(f"{count(len(copied.keys), 'row')} copied, {where}{others}")


def _serves(table: Client, prefix: str, epoch: str | None) -> bool:
    """Say whether a server's table is in this epoch: then it is the table of the epoch, and no copy or restored one."""
    try:
        with table.watch(prefix) as watch:
            return watch.epoch == epoch
    except errors.NotAllowed:
        return False  # the key may only write there, so it cannot be told


def _copy_server(source: Client, target: Client, prefix: str) -> _Copied:
    keys: set[str] = set()
    with source.watch(prefix) as watch:
        if _serves(target, prefix, watch.epoch):
            raise click.UsageError("FROM and TO serve the same table: there is nothing to copy")
        _send(target, from_server(source, prefix), keys)
        for _ in range(_PASSES_MAX):
            revision = watch.progress()
            changed = _changed(watch)
            if not changed:
                return _Copied(keys, revision, True)
            _send(target, _read_again(source, changed), keys)
    return _Copied(keys, revision, False)


def _changed(watch: Watch) -> list[str]:
    """Return which keys have changed since the last time, as far as is known here."""
    changed: dict[str, None] = {}
    try:
        while True:
            changed[watch.get(timeout=0).key] = None
    except errors.Timeout:
        return list(changed)


def _read_again(source: Client, keys: list[str]) -> Iterator[Found]:
    """Yield the rows of some keys as they are now, those that are not there with None for a value."""
    rest = iter(keys)
    while page := list(islice(rest, BATCH_ROWS_MAX)):
        rows = source.lookup_many(page)
        yield from with_expiries(source, list(rows.items()))
        for key in page:
            if key not in rows:
                yield key, None, None


def _send(target: Client, found: Iterable[Found], keys: set[str]) -> None:
    """Put rows into the target, in batches; keep `keys` those that are there."""
    batch = Batch()
    for key, value, expires_us in found:
        row = Row(key, removed=value is None)
        length = len(key)
        if value is not None:
            row.value = msgpack.decode_value(value)
            length += len(value)
        if expires_us is not None:
            row.expires = EPOCH + timedelta(microseconds=expires_us)
        if not batch.takes(row, length):
            batch.send(target)
            batch = Batch()
        batch.add(row, length, 0)
        (keys.discard if value is None else keys.add)(key)
    if batch:
        batch.send(target)
