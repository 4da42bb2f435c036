"""`kvzmq clients`: who is connected, and ending a connection."""

from __future__ import annotations

from typing import Any

import click

from kvzmq.cli import NOT_FOUND
from kvzmq.cli.connection import Connection, TableCommand, json_option

_COLUMNS = (
    "name", "transport", "address", "connected_s", "requests", "received_bytes", "unread_bytes", "replies_dropped",
    "watches",
)  # fmt: skip
_HEADS = ("name", "transport", "address", "connected", "requests", "received", "unread", "dropped", "watches")
_SPARE = ("transport", "dropped", "connected", "watches")
"""What a narrow terminal does without: names begin with the transport, as a rule."""


@click.command(cls=TableCommand)
@click.argument("action", type=click.Choice(["list", "kick"]), default="list", required=False)
@click.argument("names", metavar="[NAME...]", nargs=-1)
@json_option
@click.pass_context
def clients(ctx: click.Context, action: str, names: tuple[str, ...], as_json: bool) -> None:
    """List who is connected, or kick: end the connections of the clients of these names.

    Those that have most unread come first. A client that is kicked connects again if its program does so, as ours do:
    it goes on, without what it had not read. In a pipe the columns are name, transport, address, seconds connected,
    requests, bytes received, bytes unread, replies dropped, watches; "-" is unknown. Exit code 1 if there is
    none of a name to kick.
    """
    connection: Connection = ctx.obj
    if action == "kick":
        if not names:
            raise click.UsageError("kick whom? `kvzmq clients` shows their names")
        if not _kick(connection, names):
            ctx.exit(NOT_FOUND)
    elif names:
        raise click.UsageError(f"to end the connection of {names[0]}: kvzmq clients kick {names[0]}")
    else:
        _list(sorted(connection.table.clients(), key=lambda one: -(one["unread_bytes"] or 0)), as_json)


def _kick(connection: Connection, names: tuple[str, ...]) -> bool:
    from kvzmq.cli import show

    missing = [name for name in names if not connection.table.kick(name)]
    for name in missing:
        show.note(f"kvzmq: no client {name!r} whose connection is known")
    return not missing


def _list(found: list[dict[str, Any]], as_json: bool) -> None:
    from kvzmq.cli import show
    from kvzmq.units import count

    if as_json:
        show.put(map(show.encode_json, found))
    elif show.on_terminal():
        lines = ([_for_people(column, one[column]) for column in _COLUMNS] for one in found)
        left_out = show.table(_HEADS, lines, right=range(3, 9), spare=_SPARE)
        narrow = f"; left out for want of room: {', '.join(left_out)}" if left_out else ""
        show.note(f"{count(len(found), 'client')}{narrow}")
    else:
        show.put(
            "\t".join("-" if one[column] is None else str(one[column]) for column in _COLUMNS).encode() for one in found
        )


def _for_people(column: str, value: Any) -> str:
    from kvzmq.units import duration, size

    if value is None:
        return "?"
    if column.endswith("_bytes"):
        return size(value)
    return duration(value) if column.endswith("_s") else f"{value:,}" if isinstance(value, int) else str(value)
