"""`kvzmq doctor`: what is wrong, or soon will be, and what mends it."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvzmq import errors
from kvzmq.cli import NOT_FOUND
from kvzmq.cli.connection import Connection, TableCommand, json_option

if TYPE_CHECKING:
    from kvzmq.observing.doctor import Evidence

_JOURNALS = Path("/proc/fs/jbd2")


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
    from kvzmq.observing.doctor import Evidence, diagnose
    from kvzmq.observing.figures import clients_of, figures_of

    connection: Connection = ctx.obj
    evidence = Evidence(url=connection.where, asked_s=time.time())
    try:
        evidence.stats = figures_of(connection.table.stats())
        evidence.asked_s = time.time()
        evidence.clients = clients_of(connection.table.clients())
    except errors.InvalidMethod:
        pass  # one of an earlier version, which does not list its clients
    except errors.NotAllowed as error:
        evidence.refusal = str(error)
    except (errors.KvzmqError, OSError) as error:
        evidence.silence = str(error)
    if data is not None:
        look_at_files(evidence, data)
    findings = diagnose(evidence)
    if as_json:
        show.put([show.encode_json({"url": connection.where, "findings": findings})])
    elif findings:
        show.put(f"{finding.text}\n    mend: {finding.command}".encode() for finding in findings)
    else:
        show.put([f"nothing wrong with {connection.where}{'' if data is None else f' and {data}'}".encode()])
    if findings:
        ctx.exit(NOT_FOUND)


def look_at_files(evidence: Evidence, data: Path) -> None:
    """Add what the directory of a table shows.

    Raises:
        OSError: it cannot be read
    """
    from kvzmq.bench.machine import file_system
    from kvzmq.store.offline.check import inspect
    from kvzmq.store.offline.reading import Reading

    evidence.data = str(data)
    status = data.stat()
    evidence.mode = stat.S_IMODE(status.st_mode)
    evidence.kind = file_system(data)
    if evidence.kind[0] in ("ext3", "ext4"):
        evidence.has_journal = _journal_of(status.st_dev)
    with Reading(data) as reading:
        if reading.in_use:
            return  # who serves them has read them; reading them again would take as much memory again
        report = inspect(reading)
    evidence.damage = [f"{file.name}: {line}" for file in report.files for line in file.damage]
    if report.refusal is not None and not evidence.damage:
        evidence.damage = [report.refusal]


def _journal_of(device: int, journals: Path = _JOURNALS) -> bool | None:
    """Say whether an ext file system has a journal, which the kernel then lists by the name of its device."""
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    try:
        return any(each.name.startswith(f"{name}-") for each in journals.iterdir())
    except OSError:
        return None
