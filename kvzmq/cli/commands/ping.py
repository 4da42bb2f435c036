"""`kvzmq ping`: does the server answer, and if not, why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from kvzmq import errors
from kvzmq.cli import DONE, STORAGE_FAILED, UNREACHABLE
from kvzmq.cli.connection import Connection, TableCommand, json_option
from kvzmq.cli.param_type import ParamType

if TYPE_CHECKING:
    from kvzmq.client.sync.client import Client


class _Lineage(ParamType[str]):
    """A lineage, or how one begins."""

    name = "HEX"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        digits = str(value).lower()
        if not re.fullmatch(r"[0-9a-f]{4,32}", digits):
            self.fail(
                f"{value!r} is no lineage: 4 to 32 hexadecimal digits, as `kvzmq ping --explain` says", param, ctx
            )
        return digits


@click.command(cls=TableCommand)
@click.option("--explain", is_flag=True, help="Go to the server step by step, and say which step fails.")
@click.option(
    "--lineage",
    type=_Lineage(),
    metavar="HEX",
    help="Which table it should be: the lineage of before, or how it begins.",
)
@json_option
@click.pass_context
def ping(ctx: click.Context, explain: bool, lineage: str | None, as_json: bool) -> None:
    """Say whether the server answers, how long it took, and whether it can write.

    With --explain also which table it is, by its lineage; --lineage compares. Exit code 4 if it does not answer, or is
    another table; 5 if it answers and its last write failed, as on a full disk: reads go on, and
    the next write that succeeds ends it.
    """
    from kvzmq.cli import show

    connection: Connection = ctx.obj
    if explain:
        ctx.exit(_explain(connection, lineage, as_json))
    first_s = connection.table.ping()
    again_s = connection.table.ping()  # the first one waited for the connection, too
    if another := _another_table(connection.table, lineage):
        show.note(f"kvzmq: {another}")
        ctx.exit(UNREACHABLE)
    trouble = _stats(connection.table).get("storage_trouble")
    if as_json:
        found = {"url": connection.where, "connected_s": first_s, "answered_s": again_s, "storage_trouble": trouble}
        show.put([show.encode_json(found)])
    else:
        show.put(
            [f"{connection.where} answers in {again_s * 1000:.2f} ms (connected in {first_s * 1000:.0f} ms)".encode()]
        )
    if trouble:
        show.note(f"kvzmq: it answers, but its last write failed: {_reason(trouble)}")
        ctx.exit(STORAGE_FAILED)


def _stats(table: Client) -> dict[str, Any]:
    """Return what the server says of itself, nothing if this client has not the right admin."""
    try:
        return table.stats()
    except errors.NotAllowed:
        return {}


def _another_table(table: Client, lineage: str | None) -> str | None:
    """Return what to say if the table that has answered is not of the lineage, which may be its first digits."""
    found = table.lineage
    if lineage is None or (found is not None and found.startswith(lineage)):
        return None
    return (
        f"another table than before answers here: its lineage is {found}, not {lineage}. Was the server started with "
        "another --data, or the address given to another server? Clients that knew the other table say TableChanged"
    )


def _explain(connection: Connection, lineage: str | None, as_json: bool) -> int:
    """Show what each step found, and return the exit code."""
    from kvzmq.cli import show
    from kvzmq.cli.explain import Finding, diagnose
    from kvzmq.units import count

    table = connection.table  # first, for the error of a malformed URL
    findings = diagnose(connection.targets, min(2.0, connection.timeout_s))
    answered = False
    code = UNREACHABLE
    if any(finding.arrived for finding in findings):
        try:
            table.ping()
            another = _another_table(table, lineage)
            answered, code = True, UNREACHABLE if another else DONE
            stats = _stats(table)
            findings.append(Finding(True, (
                f"the table answers: kvzmq {stats.get('version')}, {count(int(stats.get('keys', 0)), 'row')}, "
                f"revision {stats.get('revision')}, lineage {table.lineage} (transport={table.transport})"
                if stats else f"the table answers: lineage {table.lineage} (transport={table.transport})"
            )))  # fmt: skip
            if another:
                findings.append(Finding(False, another))
            if stats.get("storage_trouble"):
                code = code or STORAGE_FAILED
                findings.append(Finding(False, f"but its last write failed: {_reason(stats['storage_trouble'])}"))
            if stats.get("barrier_trouble"):
                findings.append(Finding(False, f"but it is cut off from its log: {stats['barrier_trouble']}"))
            if stats.get("compaction_trouble"):
                findings.append(Finding(False, f"but its log cannot be compacted: {stats['compaction_trouble']}"))
        except errors.Timeout:
            findings.append(Finding(False, (
                f"no reply to a request within {connection.timeout_s:g} s: the server is stopped, overloaded or waits "
                "for its disk, or this is another program's socket"
            )))  # fmt: skip
        except errors.KvzmqError as error:
            findings.append(Finding(False, str(error)))
    if as_json:
        found = [{"well": one.well, "text": one.text} for one in findings]
        show.put([show.encode_json({"url": connection.where, "answers": answered, "findings": found})])
    else:
        show.put(f"{'ok    ' if each.well else 'WRONG '} {show.printable(each.text)}".encode() for each in findings)
    return code


def _reason(trouble: str) -> str:
    return trouble.removeprefix("not applied: ")
