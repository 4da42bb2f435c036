"""`kvzmq log`: the audit trail, from the log files: who changed what, and when."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import click

from kvzmq import errors
from kvzmq.cli import show
from kvzmq.cli.arguments import duration_s
from kvzmq.cli.connection import json_option
from kvzmq.cli.param_type import ParamType
from kvzmq.protocol.operations import OPERATIONS
from kvzmq.store.offline.audit import AuditEntry, AuditFilter, entries
from kvzmq.store.offline.reading import Reading
from kvzmq.units import utc

_WRITES = sorted(name for name, kind in OPERATIONS.items() if kind.writes)
_KEYS_SHOWN = 5
_KEYS_WIDTH = 16
_HEADS = ("time (UTC)", "group", "session", "client", "seq", "operation", "keys")


class _Moment(ParamType[int]):
    """A time in UTC, or how long ago; microseconds since 1970."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value)
        ago_s = duration_s(text) if text[-1:].isalpha() else None  # a number alone would be a year
        if ago_s is not None:
            return int((time.time() - ago_s) * 1e6)
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            self.fail(
                f"{text!r} is neither a time (2026-01-31, 2026-01-31T12:00:00) nor an age (90s, 15m, 2h, 1d)",
                param,
                ctx,
            )
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
        return int(moment.timestamp() * 1e6)


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option(
    "-k", "--key", "keys", multiple=True, metavar="KEY", help="Only what names this key; several times for several."
)
@click.option("--prefix", metavar="PREFIX", help="Only what names a key that begins with this.")
@click.option("--session", metavar="HEX", help="Only what this session did; its first digits are enough.")
@click.option("--client", metavar="NAME", help="Only what the client of this name did, where clients have keys.")
@click.option("--since", "since_us", type=_Moment(), help="Only from this time on: UTC, or an age such as 15m.")
@click.option("--until", "until_us", type=_Moment(), help="Only before this time.")
@click.option(
    "--operation",
    "operations",
    multiple=True,
    type=click.Choice(_WRITES),
    metavar="NAME",
    help="Only this operation, also within transactions; several times for several.",
)
@click.option("--values", is_flag=True, help="Show the operations' arguments, too.")
@json_option
@click.pass_context
def log(
    ctx: click.Context,
    directory: Path,
    keys: tuple[str, ...],
    prefix: str | None,
    session: str | None,
    client: str | None,
    since_us: int | None,
    until_us: int | None,
    operations: tuple[str, ...],
    values: bool,
    as_json: bool,
) -> None:
    """Show every change that is in the log of DIR: when, by which client, which operation, which keys.

    The log reaches back to the last compaction; what came before is in the checkpoint, without its history. It shows
    what was asked for: an operation that found its condition not met, or its key absent, is there, too. May run
    beside a server. Damaged places are skipped and reported; exit code 1 then.

    A client has a name where the server asks for keys (CURVE), then also in the log; else it is known by its session
    alone.

    On a terminal the columns have a header. In a pipe there is none: a line is TIME TAB GROUP TAB SESSION TAB SEQ TAB
    OPERATION TAB KEYS, then TAB ARGUMENTS with --values, and TAB CLIENT at the end. --json has names.
    """
    wanted = AuditFilter(keys, prefix, session, since_us, until_us, operations, client)
    gaps: list[str] = []
    with Reading(directory) as reading:
        found = entries(reading, wanted, gaps)
        if as_json:
            show.put(show.encode_json(_as_dict(entry)) for entry in found)
        else:
            heads = [_header(values)] if show.on_terminal() else []
            show.put(line.encode() for line in chain(heads, (_as_line(entry, values) for entry in found)))
    for gap in gaps:
        show.note(f"kvzmq: {gap}")
    if gaps:
        raise errors.CheckFailed("the log is damaged, `kvzmq check` says more")


def _as_dict(entry: AuditEntry) -> dict[str, Any]:
    return {
        "time": utc(entry.time_us),
        "group": entry.group,
        "session": None if entry.session is None else entry.session.hex(),
        "client": entry.client,
        "seq": entry.seq,
        "operation": entry.operation,
        "keys": entry.keys,
        "arguments": entry.arguments(),
    }


def _as_line(entry: AuditEntry, values: bool) -> str:
    terminal = show.on_terminal()
    session = "-" if entry.session is None else entry.session.hex()
    names = entry.keys
    if terminal:
        session = session[:8]
        shown = [show.printable(key) for key in names[:_KEYS_SHOWN]]
        if len(names) > _KEYS_SHOWN:
            shown.append(f"... ({len(names)} keys)")
    else:
        shown = [show.bare_field(key).decode() for key in names]
    client = entry.client or "-"
    fields = [utc(entry.time_us), str(entry.group), session, str(entry.seq), entry.operation, " ".join(shown)]
    if values:
        fields.append(show.on_screen(entry.arguments()) if terminal else show.encode_json(entry.arguments()).decode())
    return _aligned([*fields[:3], client, *fields[3:]]) if terminal else "\t".join([*fields, client])


def _header(values: bool) -> str:
    return _aligned([*_HEADS, "arguments"] if values else list(_HEADS))


def _aligned(fields: list[str]) -> str:
    moment, group, session, client, seq, operation, keys, *rest = fields
    keys = keys.ljust(_KEYS_WIDTH) if rest else keys
    return "  ".join(
        (
            moment.ljust(24),
            group.rjust(6),
            session.ljust(8),
            client.ljust(8),
            seq.rjust(5),
            operation.ljust(15),
            keys,
            *rest,
        )
    )
