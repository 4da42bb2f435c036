"""`kvzmq catalog`: serve a catalog, in which servers announce themselves and clients look them up."""

from __future__ import annotations

import signal
import sys

import click

from kvzmq.catalog.addresses import DEFAULT_HOST, DEFAULT_PORT
from kvzmq.catalog.server import CatalogServer
from kvzmq.catalog.table import LIFETIME_S
from kvzmq.cli import REFUSED_TO_START
from kvzmq.cli.quantity import Quantity
from kvzmq.errors import CatalogError


@click.command("catalog")
@click.option(
    "--host",
    default=DEFAULT_HOST,
    show_default=True,
    envvar="KVZMQ_CATALOG_HOST",
    metavar="HOST",
    help="Listen on this address; 0.0.0.0 is every address of this machine.",
)
@click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    envvar="KVZMQ_CATALOG_PORT",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Listen on this port, UDP and TCP, and for updates by TCP on the next one; 0 takes a free one.",
)
@click.option(
    "--lifetime",
    default=LIFETIME_S,
    show_default=True,
    envvar="KVZMQ_CATALOG_LIFETIME",
    metavar="SECONDS",
    type=Quantity("seconds", above=True),
    help="Drop a server after this time without a word from it.",
)
def catalog(host: str, port: int, lifetime: float) -> None:
    """Serve a catalog of servers, for programs and people.

    Servers announce themselves to it (kvzmq server --project NAME --catalog HOST:PORT), clients look them
    up by name (kvzmq -c catalog://HOST:PORT/NAME), and a browser shows the list. It keeps nothing on disk:
    after a restart, servers are back within a minute.

    It speaks the protocol of the Cooperative Computing Tools' catalog_server. There is no authentication:
    who can reach it can announce anything.
    """
    # Ctrl-C's way out serves for SIGTERM, too: there is nothing to save.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server = CatalogServer(host, port, lifetime_s=lifetime)
    except CatalogError as error:
        click.echo(f"kvzmq catalog: {error}\nIf a catalog runs there, use it, or choose another --port.", err=True)
        sys.exit(REFUSED_TO_START)
    try:
        click.echo(f"Listening on port {server.port}\nFor people: http://{server.address}/")
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
