"""`kvzmq monitor`: what the server answers, as it happens."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

from kvzmq.cli.arguments import KEY
from kvzmq.cli.connection import Connection, TableCommand, json_option
from kvzmq.cli.quantity import Quantity

if TYPE_CHECKING:
    from kvzmq.client.sync.monitor import Monitor
    from kvzmq.protocol.monitoring import MonitoredRequest


@click.command(cls=TableCommand)
@click.option("--client", default="", metavar="NAME", help="Of clients whose name, as in `kvzmq clients`, begins so.")
@click.option("--op", default="", metavar="METHOD", help="With this operation: insert, lookup, query ...")
@click.option("--prefix", default="", type=KEY, metavar="PREFIX", help="That touch keys which begin so.")
@click.option(
    "--slower-than",
    "slower_than_ms",
    type=Quantity("milliseconds"),
    default=0.0,
    metavar="MS",
    help="That took so many milliseconds, from arrival to reply.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Of all these, one in N.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after so many requests.")
@json_option
@click.pass_obj
def monitor(
    connection: Connection,
    client: str,
    op: str,
    prefix: str,
    slower_than_ms: float,
    sample: int,
    count: int | None,
    as_json: bool,
) -> None:
    """Print each request that the server answers: for whom, how, and how long each phase took; until Ctrl-C.

    Keys are shown, values never. The server spends 2 % of its time on this and never waits: requests that it could not
    show are counted, and their number is written to standard error (with --json it is `dropped`). In a pipe the columns
    are the time of arrival (UTC), step, client, operation, key, OK or the error, revision afterwards, bytes of request
    and results, and seconds queued, executed, synced (waiting for the disk) and sent.
    """
    requests = connection.table.monitor(client, op, prefix, slower_than_ms / 1000, sample)
    connection.command_ended()  # it answers: no notice that it does not
    with requests:
        _show(requests, count, as_json)


def _show(requests: Monitor, count: int | None, as_json: bool) -> None:
    from kvzmq.cli import records, show

    terminal = show.on_terminal() and not as_json
    if terminal:
        click.secho(records.line(records.HEADS, _columns()), bold=True)
    connections = requests.connections
    for seen, record in enumerate(requests, start=1):
        if requests.connections != connections:
            connections = requests.connections
            show.note("kvzmq: the connection was lost; what was answered meanwhile is not shown")
        if record.dropped and not as_json:
            show.note(f"kvzmq: {record.dropped:,} requests are not shown here")
        if terminal:
            click.echo(_colored(record, records.line(records.as_cells(record), _columns())))
        else:
            show.put([records.as_json(record) if as_json else records.as_fields(record)])  # flushed at once
        if seen == count:
            return


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _colored(record: MonitoredRequest, line: str) -> str:
    return click.style(line, fg="red") if record.error else line
