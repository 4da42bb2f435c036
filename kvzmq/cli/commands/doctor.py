"""`kvzmq doctor`: what is wrong, or soon will be, and what mends it."""

from __future__ import annotations

from pathlib import Path

import click

from kvzmq import errors
from kvzmq.cli import NOT_FOUND
from kvzmq.cli.connection import Connection, TableCommand, json_option


@click.command(cls=TableCommand)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The server's directory, on this machine: its files and their file system are looked at, too.",
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Say what is wrong with the server, or soon will be, and the command that mends it.

    It asks the server for its figures and its clients, and with --data reads the files: whether they are whole, unless
    a server has them open, and on what file system they are. Exit code 1 if it found something, also if it may not ask:
    under CURVE its key needs the right admin.
    """
    from kvzmq.cli import show
    from kvzmq.observing import doctor as checks
    from kvzmq.observing.figures import clients_of, figures_of

    connection: Connection = ctx.obj
    evidence = checks.Evidence(url=connection.where, asked_s=checks.now_s())
    try:
        evidence.stats = figures_of(connection.table.stats())
        evidence.asked_s = checks.now_s()
        evidence.clients = clients_of(connection.table.clients())
    except errors.InvalidMethod:
        pass  # one of an earlier version, which does not list its clients
    except errors.NotAllowed as error:
        evidence.refusal = str(error)
    except (errors.KvzmqError, OSError) as error:
        evidence.silence = str(error)
    if data is not None:
        checks.look_at_files(evidence, data)
    findings = checks.diagnose(evidence)
    if as_json:
        show.put([show.encode_json({"url": connection.where, "findings": findings})])
    elif findings:
        show.put(f"{finding.text}\n    mend: {finding.command}".encode() for finding in findings)
    else:
        show.put([f"nothing wrong with {connection.where}{'' if data is None else f' and {data}'}".encode()])
    if findings:
        ctx.exit(NOT_FOUND)
