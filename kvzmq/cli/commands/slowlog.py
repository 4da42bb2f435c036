"""`kvzmq slowlog`: the requests that took longest."""

from __future__ import annotations

import shutil

import click

from kvzmq.cli.connection import Connection, TableCommand, json_option
from kvzmq.protocol.limits import SLOW_REQUESTS_MAX


@click.command(cls=TableCommand)
@click.option(
    "--limit",
    type=click.IntRange(1, SLOW_REQUESTS_MAX),
    default=20,
    show_default=True,
    metavar="N",
    help="How many to show, the slowest first.",
)
@json_option
@click.pass_obj
def slowlog(connection: Connection, limit: int, as_json: bool) -> None:
    """Show the requests that took longest, and where their time went.

    The server keeps requests that took as long as `kvzmq server --slow-log-ms`: the slowest since it was started, and
    the latest. Columns as of `kvzmq monitor`: time spent queued, executed, synced (waiting for the disk) and sent.
    """
    from kvzmq.cli import records, show

    found = connection.table.slow_requests(limit)
    if as_json:
        show.put(map(records.as_json, found))
    elif show.on_terminal():
        columns = shutil.get_terminal_size().columns
        if found:
            click.secho(records.line(records.HEADS, columns), bold=True)
        for record in found:
            click.echo(records.line(records.as_cells(record), columns))
        show.note(f"{len(found)} slow request{'' if len(found) == 1 else 's'}")
    else:
        show.put(map(records.as_fields, found))
