"""`kvzmq lookup, size, query, keys, items`: the commands that read the table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import click

from kvzmq.cli import NOT_FOUND
from kvzmq.cli.arguments import KEY, VALUE, read_value, string_option
from kvzmq.cli.connection import Connection, TableCommand, json_option

_limit_option = click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Stop after so many.")


def _first(found: Iterable[Any], limit: int | None) -> Iterable[Any]:
    return found if limit is None else islice(found, limit)


@click.command(cls=TableCommand)
@click.argument("keys", metavar="KEY...", nargs=-1, required=True, type=KEY)
@json_option
@click.pass_context
def lookup(ctx: click.Context, keys: tuple[str, ...], as_json: bool) -> None:
    """Print the value of KEY, or the rows of several.

    In a pipe a string and bytes are printed as they are, anything else as JSON. Exit code 1 if a key is absent.
    """
    from kvzmq.cli import show

    connection: Connection = ctx.obj
    if len(keys) == 1:
        show.one(connection.table.lookup(keys[0]), as_json)
        return
    found = connection.table.lookup_many(keys)
    show.rows(((key, found[key]) for key in keys if key in found), as_json)
    missing = [key for key in keys if key not in found]
    for key in missing:
        show.note(f"kvzmq: no key {key!r}")
    if missing:
        ctx.exit(NOT_FOUND)


@click.command(cls=TableCommand)
@json_option
@click.pass_obj
def size(connection: Connection, as_json: bool) -> None:
    """Print the number of rows."""
    from kvzmq.cli import show

    show.one(connection.table.size(), as_json)


@click.command(cls=TableCommand)
@click.argument("subkey")
@click.argument("subvalue", type=VALUE)
@string_option
@_limit_option
@json_option
@click.pass_obj
def query(
    connection: Connection, subkey: str, subvalue: str, as_string: bool, limit: int | None, as_json: bool
) -> None:
    """List the rows whose value is a map in which SUBKEY equals SUBVALUE.

    SUBVALUE is JSON, or else a plain string: `kvzmq query name fred`, `kvzmq query weight 100`.
    """
    from kvzmq.cli import show

    show.rows(_first(connection.table.query(subkey, read_value(subvalue, as_string)), limit), as_json)


@click.command(cls=TableCommand)
@click.argument("prefix", default="", type=KEY)
@_limit_option
@json_option
@click.pass_obj
def keys(connection: Connection, prefix: str, limit: int | None, as_json: bool) -> None:
    """List the keys that begin with PREFIX, or all, in order."""
    from kvzmq.cli import show

    show.names(_first(connection.table.keys(prefix), limit), as_json)


@click.command(cls=TableCommand)
@click.argument("prefix", default="", type=KEY)
@_limit_option
@json_option
@click.pass_obj
def items(connection: Connection, prefix: str, limit: int | None, as_json: bool) -> None:
    """List the rows whose key begins with PREFIX, or all, in order of the keys.

    In a pipe a row is a line, KEY TAB VALUE; `--json` is exact for keys and values of any kind.
    """
    from kvzmq.cli import show

    show.rows(_first(connection.table.items(prefix), limit), as_json)
