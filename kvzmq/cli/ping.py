"""`kvzmq ping, stats`: ask the server about itself."""

from __future__ import annotations

import click

from kvzmq import errors
from kvzmq.cli import UNREACHABLE
from kvzmq.cli.connection import Connection, TableCommand, json_option


@click.command(cls=TableCommand)
@click.option("--explain", is_flag=True, help="Go to the server step by step, and say which step fails.")
@json_option
@click.pass_context
def ping(ctx: click.Context, explain: bool, as_json: bool) -> None:
    """Say whether the server answers and how long it took; exit code 4 if it does not."""
    from kvzmq.cli import show

    connection: Connection = ctx.obj
    if explain:
        if not _explain(connection, as_json):
            ctx.exit(UNREACHABLE)
        return
    first_s = connection.table.ping()
    again_s = connection.table.ping()  # the first one waited for the connection, too
    if as_json:
        show.put([show.encode_json({"url": connection.url, "connected_s": first_s, "answered_s": again_s})])
    else:
        show.put([f"{connection.url} answers in {again_s * 1000:.2f} ms (connected in {first_s * 1000:.0f} ms)".encode()])


def _explain(connection: Connection, as_json: bool) -> bool:
    """Show what each step found; True if the table answered."""
    from kvzmq.cli import show
    from kvzmq.cli.explain import Finding, diagnose

    table = connection.table  # first, for the error of a malformed URL
    findings = diagnose(connection.url, min(2.0, connection.timeout_s))
    answered = False
    if any(finding.arrived for finding in findings):
        try:
            stats = table.stats()
            answered = True
            findings.append(Finding(True, (
                f"the table answers: kvzmq {stats.get('version')}, {stats.get('keys')} rows, revision {stats.get('revision')}"
            )))  # fmt: skip
            trouble = stats.get("storage_trouble") or stats.get("compaction_trouble")
            if trouble:
                findings.append(Finding(False, f"but it reports: {trouble}"))
        except errors.Timeout:
            findings.append(Finding(False, (
                f"no reply to a request within {connection.timeout_s:g} s: the server is stopped, overloaded or waits "
                "for its disk, or this is another program's socket"
            )))  # fmt: skip
        except errors.KvzmqError as error:
            findings.append(Finding(False, str(error)))
    if as_json:
        show.put([show.encode_json({"url": connection.url, "answers": answered,
                                    "findings": [{"well": one.well, "text": one.text} for one in findings]})])  # fmt: skip
    else:
        show.put(f"{'ok    ' if each.well else 'WRONG '} {each.text}".encode() for each in findings)
    return answered


@click.command(cls=TableCommand)
@json_option
@click.pass_obj
def stats(connection: Connection, as_json: bool) -> None:
    """Show what the server says of itself: rows, revision, clients, commits, log, compactions, memory.

    Sizes are in bytes, times in seconds.
    """
    from kvzmq.cli import show

    show.mapping(connection.table.stats(), as_json)
