"""`kvzmq insert, remove, cas, setdefault, incr, ttl`: the commands that change the table."""

from __future__ import annotations

import sys
from typing import Any

import click

from kvzmq import errors
from kvzmq.cli.connection import VALUE, Connection, TableCommand, is_stdin, json_option, read_value

_string_option = click.option(
    "-s", "--string", "as_string", is_flag=True, help="VALUE is a string, whatever it looks like."
)
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
@click.argument("key")
@click.argument("value", type=VALUE)
@click.option("--ttl", "ttl_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Remove it after so long.")
@_string_option
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
      kvzmq insert greeting hello
      kvzmq insert zip 46556 --string
      kvzmq insert photo - --bytes < photo.jpg
    """
    connection.table.insert(key, _value(value, as_string, as_bytes), ttl_s)
    _done(connection, as_json)


@click.command(cls=TableCommand)
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@json_option
@click.pass_obj
def remove(connection: Connection, keys: tuple[str, ...], as_json: bool) -> None:
    """Remove KEY, or several. Exit code 1 if one was not there."""
    if len(keys) == 1:
        connection.table.remove(keys[0])
        _done(connection, as_json, removed=1)
        return
    wanted = list(dict.fromkeys(keys))
    removed = connection.table.remove_many(wanted)
    _done(connection, as_json, removed=removed)
    if removed < len(wanted):
        raise errors.NoSuchKey(f"{len(wanted) - removed} of {len(wanted)} keys were not there")


@click.command(cls=TableCommand)
@click.argument("key")
@click.argument("value", type=VALUE, required=False)
@click.option("--expected", type=VALUE, metavar="VALUE", help="What KEY has to hold.")
@click.option("--absent", is_flag=True, help="KEY has to be absent.")
@click.option("--remove", "removes", is_flag=True, help="Remove KEY instead of setting it.")
@_string_option
@json_option
@click.pass_obj
def cas(
    connection: Connection,
    key: str,
    value: str | None,
    expected: str | None,
    absent: bool,
    removes: bool,
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
    from kvzmq.client.operations import ABSENT

    done = connection.table.compare_and_set(
        key,
        ABSENT if expected is None else read_value(expected, as_string),
        ABSENT if value is None else read_value(value, as_string),
    )
    if not done:
        raise errors.CheckFailed(f"not changed: {key!r} does not hold what was expected")
    _done(connection, as_json)


@click.command(cls=TableCommand)
@click.argument("key")
@click.argument("value", type=VALUE)
@_string_option
@json_option
@click.pass_obj
def setdefault(connection: Connection, key: str, value: str, as_string: bool, as_json: bool) -> None:
    """Set KEY to VALUE if it is absent, and print the value it has then."""
    from kvzmq.cli import show

    show.one(connection.table.setdefault(key, read_value(value, as_string)), as_json)


class _Number(click.ParamType[float]):
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
@click.argument("key")
@click.argument("by", type=_Number(), default=1)
@json_option
@click.pass_obj
def incr(connection: Connection, key: str, by: float, as_json: bool) -> None:
    """Add BY, or 1, to the number at KEY, 0 if it is absent, and print the sum."""
    from kvzmq.cli import show

    show.one(connection.table.increment(key, by), as_json)


@click.command(cls=TableCommand)
@click.argument("key")
@click.argument("seconds", type=click.FloatRange(min=0, min_open=True), required=False)
@click.option("--forever", is_flag=True, help="Let KEY live for good.")
@json_option
@click.pass_obj
def ttl(connection: Connection, key: str, seconds: float | None, forever: bool, as_json: bool) -> None:
    """Print how many seconds KEY still lives, or `forever`; with SECONDS or --forever, set it."""
    from kvzmq.cli import show

    if seconds is not None and forever:
        raise click.UsageError("either SECONDS or --forever")
    if seconds is not None or forever:
        connection.table.expire(key, seconds)
        _done(connection, as_json)
        return
    left_s = connection.table.ttl(key)
    if left_s is None and not as_json:
        show.put([b"forever"])
    else:
        show.one(left_s, as_json)
