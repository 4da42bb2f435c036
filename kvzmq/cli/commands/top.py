"""`kvzmq top`: a server's figures, live in the terminal, or once for scripts."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from kvzmq.cli import INTERRUPTED
from kvzmq.cli.connection import Connection, TableCommand, json_option
from kvzmq.cli.quantity import Quantity

if TYPE_CHECKING:
    from kvzmq.cli.top.gathering import Gathered

PREFIXES = 20
"""How many of the hottest prefixes --once --json says."""

ONCE_COLUMNS = 100
"""How wide --once draws where there is no terminal, and no COLUMNS."""


@click.command(cls=TableCommand)
@click.option(
    "-i", "--interval", "interval_s", type=Quantity("seconds", 0.1, 3600), default=1.0, show_default=True,
    metavar="SECONDS", help="How often to ask the server; with --once, over which time.",
)  # fmt: skip
@click.option("--sample", "sampling", is_flag=True, help="Begin with the hottest prefixes shown, as does the key m.")
@click.option("--once", is_flag=True, help="Print the figures of one interval, and end: for scripts.")
@json_option
@click.pass_context
def top(ctx: click.Context, interval_s: float, sampling: bool, once: bool, as_json: bool) -> None:
    """Show live what a server does: rates, latencies, where a step's time goes, operations, clients, what is wrong.

    \b
      q quit   s sort clients   o sort operations   / filter   p pause
      m hottest prefixes, from a sample of the requests   + - interval   h help

    It needs a terminal of 80 x 24 or more; a server that goes away is waited for. With --once it prints the picture
    as text, with --once --json one object: the server's state, rates as of the interval (times in seconds, sizes in
    bytes), and what `kvzmq doctor` finds.
    """
    connection: Connection = ctx.obj
    if once:
        asyncio.run(_once(connection, interval_s, sampling, as_json))
        return
    if as_json:
        raise click.UsageError("--json goes with --once: kvzmq top --once --json")
    from kvzmq.cli.top.screen import Screen, is_terminal
    from kvzmq.cli.top.view import View
    from kvzmq.cli.top.watching import Watching

    if not is_terminal():
        raise click.UsageError("this is no terminal to draw on: kvzmq top --once prints the figures once (--json)")
    if connection.no_wait:
        connection.table.ping()
    with Screen() as screen:
        number = asyncio.run(Watching(connection, View(interval_s=interval_s, sampling=sampling), screen).run())
    if number == signal.SIGINT:
        ctx.exit(INTERRUPTED)
    elif number is not None:
        signal.signal(number, signal.SIG_DFL)  # whoever waits for it sees by what it was ended
        os.kill(os.getpid(), number)


async def _once(connection: Connection, interval_s: float, sampling: bool, as_json: bool) -> None:
    """Print what happens in one interval.

    Raises:
        Timeout: the server does not answer
    """
    from kvzmq.cli import show
    from kvzmq.cli.top.gathering import Gathered, snapshot_of
    from kvzmq.cli.top.watching import open_client

    gathered = Gathered(connection.where)
    async with open_client(connection) as client:
        gathered.answered(await snapshot_of(client, connection.timeout_s))
        ends_s = time.monotonic() + interval_s
        if sampling:
            await gathered.sample(client, lambda: time.monotonic() < ends_s)
        await asyncio.sleep(max(0.0, ends_s - time.monotonic()))
        gathered.answered(await snapshot_of(client, connection.timeout_s))
    if as_json:
        show.put([show.encode_json(_described(gathered))])
    else:
        _print(gathered, interval_s, sampling)


def _described(gathered: Gathered) -> Mapping[str, Any]:
    snapshot = gathered.recent.snapshot
    assert snapshot is not None
    state = {
        name: value
        for name, value in snapshot.stats.items()
        if not isinstance(value, (dict, list)) or name == "indexes"
    }
    found = {"url": gathered.url, "server": state, "rates": gathered.rates, "alarms": gathered.alarms}
    if gathered.prefixes is not None:
        found["prefixes"] = dict(gathered.prefixes.shares(PREFIXES))
    return found


def _print(gathered: Gathered, interval_s: float, sampling: bool) -> None:
    from kvzmq.cli import show
    from kvzmq.cli.top.drawing import whole
    from kvzmq.cli.top.view import View
    from kvzmq.cli.top.watching import escaped

    colored = show.on_terminal()
    columns = shutil.get_terminal_size((ONCE_COLUMNS, 24)).columns
    view = View(interval_s=interval_s, sampling=sampling)
    lines = escaped(whole(gathered, view, columns, time.strftime("%H:%M:%S")), columns, colored)
    show.put((line if colored else line.rstrip()).encode() for line in lines)
