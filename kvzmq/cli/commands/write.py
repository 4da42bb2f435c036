"""`kvzmq insert, remove, cas, setdefault, incr, ttl`: the commands that change the table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from kvzmq import errors
from kvzmq.cli.arguments import DURATION, KEY, VALUE, is_stdin, read_value, string_option, ttl_option
from kvzmq.cli.connection import Connection, TableCommand, json_option
from kvzmq.cli.param_type import ParamType
from kvzmq.units import count

_PAGE_ROWS = 1000
"""How many rows `remove --prefix` removes at a time."""

_bytes_option = click.option(
    "-b", "--bytes", "as_bytes", is_flag=True, help="VALUE is bytes: of standard input with -, else the text's UTF-8."
)


def _value(text: str, as_string: bool, as_bytes: bool) -> Any:
    if not as_bytes:
        return read_value(text, as_string)
    return sys.stdin.buffer.read() if is_stdin(text) else text.encode("utf-8", "surrogateescape")


def _done(connection: Connection, as_json: bool, **more: Any) -> None:
    """Say that the change is on the disk: on a terminal, or as JSON; a pipe needs no more than the exit code."""
    from kvzmq.cli import show

    revision = connection.table.revision
    if as_json:
        show.put([show.encode_json({"revision": revision, **more})])
    elif show.on_terminal():
        show.put([f"OK (revision {revision})".encode()])


@click.command(cls=TableCommand)
@click.argument("key", type=KEY)
@click.argument("value", type=VALUE)
@ttl_option
@string_option
@_bytes_option
@json_option
@click.pass_obj
def insert(
    connection: Connection, key: str, value: str, ttl_s: float | None, as_string: bool, as_bytes: bool, as_json: bool
) -> None:
    """Set KEY to VALUE; it is on the disk when the command is done.

    VALUE is JSON, or else a plain string, and - reads it from standard input:

    \b
      kvzmq insert zebra '{"weight": 100, "name": "fred"}'
      kvzmq insert greeting hello --ttl 5m
      kvzmq insert zip 46556 --string
      kvzmq insert photo - --bytes < photo.jpg

    What looks like JSON and is not, for a comma or a quote, is an error and not a string; --string makes it one.
    """
    connection.table.insert(key, _value(value, as_string, as_bytes), ttl_s)
    _done(connection, as_json)


@click.command(cls=TableCommand)
@click.argument("keys", metavar="[KEY...]", nargs=-1, type=KEY)
@click.option("--prefix", type=KEY, metavar="PREFIX", help='Remove every key that begins with this; "" stands for all.')
@click.option("-y", "--yes", is_flag=True, help="Do not ask before --prefix removes.")
@json_option
@click.pass_obj
def remove(connection: Connection, keys: tuple[str, ...], prefix: str | None, yes: bool, as_json: bool) -> None:
    """Remove KEY, or several, or all that begin with a prefix. Exit code 1 if a KEY was not there.

    Several keys are removed at one moment. --prefix removes a page of 1,000 rows at a time: each page at one moment,
    not all of them together, and a row that is inserted meanwhile may stay. It asks first on a terminal; elsewhere it
    needs --yes.
    """
    if (prefix is None) == (not keys):
        raise click.UsageError("say what to remove: either KEY, or several, or --prefix PREFIX")
    if prefix is not None:
        _remove_prefix(connection, prefix, yes, as_json)
        return
    if len(keys) == 1:
        connection.table.remove(keys[0])
        _done(connection, as_json, removed=1)
        return
    wanted = list(dict.fromkeys(keys))
    removed = connection.table.remove_many(wanted)
    _done(connection, as_json, removed=removed)
    if removed < len(wanted):
        raise errors.NoSuchKey(f"{len(wanted) - removed} of {len(wanted)} keys were not there")


def _remove_prefix(connection: Connection, prefix: str, yes: bool, as_json: bool) -> None:
    from kvzmq.cli import show

    table = connection.table
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--prefix needs --yes where nobody can be asked")
        there = len(table.keys(prefix))
        if not there:
            show.note(f"no key begins with {prefix!r}" if prefix else "the table is empty")
            return _done(connection, as_json, removed=0)
        found = count(there, "row")
        which = f"whose key begins with {prefix!r}" if prefix else "of the table, all there are,"
        if not click.confirm(f"Remove {found} {which} from {connection.where}?", err=True):
            raise click.Abort
    removed = 0
    try:
        for page in _pages(iter(table.keys(prefix))):
            removed += table.remove_many(page)
    except errors.KvzmqError:
        show.note(f"kvzmq: {count(removed, 'row')} removed; run it again to go on")
        raise
    if not as_json:
        show.note(f"{count(removed, 'row')} removed")
    _done(connection, as_json, removed=removed)


def _pages(keys: Iterator[str]) -> Iterator[list[str]]:
    while page := list(islice(keys, _PAGE_ROWS)):
        yield page


@click.command(cls=TableCommand)
@click.argument("key", type=KEY)
@click.argument("value", type=VALUE, required=False)
@click.option("--expected", type=VALUE, metavar="VALUE", help="What KEY has to hold.")
@click.option("--absent", is_flag=True, help="KEY has to be absent.")
@click.option("--remove", "removes", is_flag=True, help="Remove KEY instead of setting it.")
@ttl_option
@string_option
@json_option
@click.pass_obj
def cas(
    connection: Connection,
    key: str,
    value: str | None,
    expected: str | None,
    absent: bool,
    removes: bool,
    ttl_s: float | None,
    as_string: bool,
    as_json: bool,
) -> None:
    """Set KEY to VALUE, or remove it, only if it holds what you expect: compare and set.

    \b
      kvzmq cas lock mine --absent
      kvzmq cas lock theirs --expected mine
      kvzmq cas lock --expected theirs --remove

    Exit code 1 if it holds something else; nothing has changed then.
    """
    if (expected is None) != absent:
        raise click.UsageError("say what KEY has to hold: either --expected VALUE or --absent")
    if (value is None) != removes:
        raise click.UsageError("say what to do: either VALUE or --remove")
    if removes and ttl_s is not None:
        raise click.UsageError("--ttl goes with VALUE, not with --remove")
    from kvzmq.client.core.calls import ABSENT

    wanted = ABSENT if expected is None else read_value(expected, as_string)
    new = ABSENT if value is None else read_value(value, as_string)
    if not connection.table.compare_and_set(key, wanted, new, ttl_s):
        raise errors.CheckFailed(f"not changed: {key!r} does not hold what was expected")
    _done(connection, as_json)


@click.command(cls=TableCommand)
@click.argument("key", type=KEY)
@click.argument("value", type=VALUE)
@ttl_option
@string_option
@json_option
@click.pass_obj
def setdefault(
    connection: Connection, key: str, value: str, ttl_s: float | None, as_string: bool, as_json: bool
) -> None:
    """Set KEY to VALUE if it is absent, and print the value it has then.

    --ttl is for the row that this sets; one that is there keeps its time to live.
    """
    from kvzmq.cli import show

    default = read_value(value, as_string)
    if ttl_s is None:
        found = connection.table.setdefault(key, default)
    else:
        found = _set_default_for(connection, key, default, ttl_s)
    show.one(found, as_json)


def _set_default_for(connection: Connection, key: str, default: object, ttl_s: float) -> Any:
    """Set a key for a time if it is absent, and return what it holds: as one transaction, or one lookup."""
    from kvzmq.client.core.calls import ABSENT

    while True:
        if connection.table.compare_and_set(key, ABSENT, default, ttl_s):
            return default
        try:
            return connection.table.lookup(key)
        except errors.NoSuchKey:
            continue  # it has gone since: what is absent can be set


class _Number(ParamType[float]):
    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return value
        for kind in (int, float):
            try:
                return kind(str(value))
            except ValueError:
                pass
        self.fail(f"{value!r} is not a number", param, ctx)


@click.command(cls=TableCommand)
@click.argument("key", type=KEY)
@click.argument("by", type=_Number(), default=1)
@click.option(
    "--ttl", "ttl_s", type=DURATION, metavar="TIME", help="Remove it so long from now, whatever was set before: 5m."
)
@json_option
@click.pass_obj
def incr(connection: Connection, key: str, by: float, ttl_s: float | None, as_json: bool) -> None:
    """Add BY, or 1, to the number at KEY, 0 if it is absent, and print the sum.

    --ttl is set in the same moment; without it the number keeps its time to live.
    """
    from kvzmq.cli import show

    if ttl_s is None:
        show.one(connection.table.increment(key, by), as_json)
        return
    with connection.table.transaction() as batch:
        total = batch.increment(key, by)
        batch.expire(key, ttl_s)
    show.one(total.result(), as_json)


@click.command(cls=TableCommand)
@click.argument("key", type=KEY)
@click.argument("seconds", type=DURATION, metavar="[TIME]", required=False)
@click.option("--forever", is_flag=True, help="Let KEY live for good.")
@json_option
@click.pass_obj
def ttl(connection: Connection, key: str, seconds: float | None, forever: bool, as_json: bool) -> None:
    """Print how many seconds KEY still lives, or `forever`; with TIME or --forever, set it.

    TIME is a duration: 10s, 5m, 2h, 7d, or seconds.
    """
    from kvzmq.cli import show

    if seconds is not None and forever:
        raise click.UsageError("either TIME or --forever")
    if seconds is not None or forever:
        connection.table.expire(key, seconds)
        _done(connection, as_json)
        return
    left_s = connection.table.ttl(key)
    if left_s is None and not as_json:
        show.put([b"forever"])
    else:
        show.one(left_s, as_json)
