"""`kvzmq dashboard`: a page that shows a server at work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kvzmq.cli import REFUSED_TO_START
from kvzmq.cli.arguments import Address
from kvzmq.cli.connection import Connection, TableCommand
from kvzmq.cli.regular_file import RegularFile

_NEEDS = ("starlette", "uvicorn", "nicegui")


@click.command(cls=TableCommand)
@click.option(
    "--bind",
    type=Address(host_default=None),
    default="127.0.0.1:5580",
    show_default=True,
    metavar="HOST:PORT",
    help="Listen here. If other machines reach it, everybody has to show a token. Port 0 takes a free one.",
)
@click.option(
    "--token-file",
    "token_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What everybody has to show: the line in FILE, 16 bytes or more, that nobody else may read.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name that browsers may use for it, besides addresses and localhost; several times for several.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The server's directory, on this machine: rows then have their history from the log, with times and sessions.",
)
@click.option(
    "--trace",
    type=RegularFile(),
    help="What `kvzmq server --trace FILE` wrote: drawn as lanes.",
)
@click.option(
    "--catalog",
    type=Address(host_default=None),
    metavar="HOST:PORT",
    help="The catalog whose servers are shown.  [default: CATALOG_HOST and CATALOG_PORT, or 127.0.0.1:9097]",
)
@click.pass_obj
def dashboard(
    connection: Connection,
    bind: tuple[str, int],
    token_path: Path | None,
    hosts: tuple[str, ...],
    data: Path | None,
    trace: Path | None,
    catalog: tuple[str, int] | None,
) -> None:
    """Show the server as a page: rates, latencies, clients, rows, how requests interleave, what is wrong.

    It is a client like any other, and only reads: start and stop it whenever you like, also while the server is down.
    Needs kvzmq[web]. Under CURVE its key needs the rights admin, for figures and clients, and read, for rows.
    """
    try:
        from kvzmq.dashboard import charts, run
        from kvzmq.dashboard.app import make_app
        from kvzmq.dashboard.assembly import assemble
        from kvzmq.dashboard.safety import make_token
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDS:
            raise
        _refuse(f"it needs {error.name}, which is not installed: pip install 'kvzmq[web]'")
    host, port = bind
    try:
        charts.directory()
    except charts.NoCharts as error:
        _refuse(str(error))
    token = _token(token_path)
    printed = False
    if token is None and run.is_open_to_others(host):
        if not sys.stdout.isatty():
            _refuse(
                f"other machines reach {host}, so it needs a token: --token-file FILE (openssl rand -hex 32 > FILE)"
            )
        token, printed = make_token(), True
    try:
        parts = assemble(connection.url, connection.curve_key, connection.server_key, data, trace, catalog)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    listening = run.listen(host, port)
    port = listening.getsockname()[1]
    own = _shown(host)
    url = f"http://{own}:{port}/"
    shown = f"{url}?token={token.decode()}" if printed and token is not None else url
    click.echo(f"{connection.where} at {shown}")
    app = make_app(parts, not run.is_open_to_others(host), {*hosts, own}, token)
    run.serve(app, listening, stopping=parts.streams.ended.set)


def _token(path: Path | None) -> bytes | None:
    from kvzmq.curve import BadKey, read_token

    try:
        return None if path is None else read_token(path)
    except BadKey as error:
        raise click.UsageError(str(error)) from None


def _shown(host: str) -> str:
    """Return the host of a URL: for every address of the machine, this machine's name."""
    import socket

    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _refuse(why: str) -> Any:
    click.echo(f"kvzmq dashboard: {why}", err=True)
    sys.exit(REFUSED_TO_START)
