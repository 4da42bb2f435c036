"""`kvzmq check`: read a table's files, say whether they are whole, save what can be saved."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from kvzmq import errors
from kvzmq.cli import NOT_FOUND, show
from kvzmq.cli.arguments import RegularFile
from kvzmq.cli.connection import json_option
from kvzmq.store.offline import backup
from kvzmq.store.offline.check import FileReport, Report, inspect
from kvzmq.store.offline.reading import Reading
from kvzmq.units import count, size, utc

_LISTED = 10


@click.command()
@click.argument("path", type=RegularFile(directories=True), metavar="DIR|BACKUP")
@click.option("--repair", is_flag=True, help="Save what can be read to another directory. DIR itself is not touched.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR2",
    help="Where --repair writes; must not exist.  [default: DIR.repaired]",
)
@json_option
@click.pass_context
def check(ctx: click.Context, path: Path, repair: bool, output: Path | None, as_json: bool) -> None:
    """Read everything in DIR, the directory of a table, and say what is there and what recovery would do.

    BACKUP, a file that `kvzmq backup` has written, is read in the same way.

    Changes nothing, and may run beside a server. Exit code 1 if there is damage.

    --repair writes a new directory with the longest prefix that can be recovered: the table as it was before
    the first damage. Rows that were certainly set after the damage go to later.jsonl in it, for you to judge
    and then to `kvzmq import`. What is left out is said, group by group.
    """
    if output is not None and not repair:
        raise click.UsageError("--output goes with --repair")
    if not path.is_dir():
        if repair:
            raise click.UsageError(f"--repair reads a directory: put {path} into a new one as table.ckpt")
        report = backup.inspect(path)
        _show(report, as_json)
        ctx.exit(NOT_FOUND if report.damaged else 0)
    with Reading(path) as reading:
        report = inspect(reading)
        if not repair:
            _show(report, as_json)
            ctx.exit(NOT_FOUND if report.damaged else 0)
        _repair(reading, report, output or path.with_name(path.absolute().name + ".repaired"), as_json)


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        show.put([show.encode_json({"damaged": report.damaged, **msgspec.to_builtins(report)})])
        return
    lines = []
    for file in report.files:
        lines += [f"{file.name}: {_summary(file)}"]
        lines += [f"  DAMAGED  {damage}" for damage in file.damage[:_LISTED]]
        if len(file.damage) > _LISTED:
            lines.append(f"  DAMAGED  and {len(file.damage) - _LISTED} more places")
        if file.torn_bytes:
            lines.append(f"  the last {file.torn_bytes} bytes are a torn tail, never acknowledged")
    lines.append(f"restore: {_restore(report)}" if report.backup else f"recovery: {_recovery(report)}")
    if report.refusal is None:
        lines.append(
            f"table: {count(report.rows, 'row')}, revision {report.revision}, {count(report.sessions, 'session')}, "
            f"{f'as of {utc(report.time_us)}' if report.backup else _time_range(report)}"
        )
        if report.lineage is not None and report.epoch is not None:
            lines.append(f"lineage: {report.lineage}, latest epoch {report.epoch}")
    if report.in_use:
        lines.append(
            "in use: a server has the directory; this is what was there at one moment, up to the last whole group"
        )
    lines.append("no damage" if not report.damaged else _ADVICE[report.backup])
    show.put(line.encode() for line in lines)


_ADVICE = {
    False: "DAMAGED: `kvzmq check --repair` saves what can be read to a copy",
    True: "DAMAGED, or no backup: take an earlier one",
}


def _summary(file: FileReport) -> str:
    if file.checkpoint:
        if file.last_group is None:
            return f"{size(file.bytes)}, no checkpoint that can be read"
        sections = count(file.frames, "section")
        return f"{size(file.bytes)}, checkpoint of everything up to group {file.last_group}, {sections}"
    if file.first_group is None:
        return f"{size(file.bytes)}, log without groups"
    return (
        f"{size(file.bytes)}, log of {count(file.frames, 'group')} ({file.first_group} to {file.last_group}), "
        f"{count(file.requests, 'request')}, {count(file.operations, 'operation')}, "
        f"{_between(file.from_us, file.to_us)}"
    )


def _restore(report: Report) -> str:
    return "begins with this checkpoint" if report.refusal is None else f"refuses: {report.refusal}"


def _recovery(report: Report) -> str:
    if report.refusal is not None:
        return f"a server refuses to start: {report.refusal}"
    base = report.files[0].last_group if report.files[0].checkpoint else None
    steps = ["starts with an empty table" if base is None else f"loads the checkpoint of group {base}"]
    if report.replayed:
        steps.append(f"replays {count(report.replayed, 'group')}, up to {report.group}")
    if report.torn_bytes:
        steps.append(f"saves the torn tail of {report.torn_bytes} bytes aside and cuts it")
    return ", then ".join(steps)


def _time_range(report: Report) -> str:
    starts = [file.from_us for file in report.files if file.from_us is not None]
    ends = [file.to_us for file in report.files if file.to_us is not None]
    return f"log from {_between(min(starts), max(ends))}" if starts else "nothing in the log"


def _between(from_us: int | None, to_us: int | None) -> str:
    return f"{utc(from_us or 0)} to {utc(to_us or 0)}"


def _repair(reading: Reading, report: Report, output: Path, as_json: bool) -> None:
    from kvzmq.cli.rows.lines import line_of
    from kvzmq.store.offline import repair

    if reading.in_use:
        raise errors.DirectoryInUse(f"{reading.path} is in use by a kvzmq server: stop it first")
    if output.exists():
        raise click.UsageError(f"{output} exists: choose another --output")
    saved = repair.save(reading)
    repair.write(saved, output)
    later = output / "later.jsonl"
    if saved.later:
        with later.open("xb") as file:
            file.writelines(line_of(key, *row) + b"\n" for key, row in saved.later.items())
    with Reading(output) as copy:
        verified = inspect(copy)
    if verified.damaged or verified.rows != len(saved.table.rows):
        raise errors.CorruptionError(
            f"{output} does not read back as it was written: {verified.refusal}; do not use it"
        )
    if as_json:
        show.put([show.encode_json({
            "output": str(output), "rows": verified.rows, "revision": verified.revision, "group": saved.group,
            "prefix": saved.prefix, "left_out": saved.left_out, "later": len(saved.later),
            "unknown": sorted(saved.unknown),
        })])  # fmt: skip
        return
    what = f"the table as it was after group {saved.group}" if saved.prefix else "a part of the table, as it is known"
    lines = [f"saved to {output}: {what}: {count(verified.rows, 'row')}, revision {verified.revision}"]
    lines += [f"  left out: {line}" for line in saved.left_out] or ["  nothing was left out"]
    if saved.later:
        lines.append(f"  {count(len(saved.later), 'row')} as certainly known from after the damage: {later}")
        lines.append("  to add them to the repaired table: start a server on it, then `kvzmq import` that file")
    if saved.unknown:
        listed = ", ".join(repr(key) for key in sorted(saved.unknown)[:_LISTED])
        more = f" and {len(saved.unknown) - _LISTED} more (--json has all)" if len(saved.unknown) > _LISTED else ""
        lines.append(f"  changed after the damage to what cannot be known: {listed}{more}")
    show.put(line.encode() for line in lines)
    if not report.damaged:
        print("kvzmq: there was no damage; the copy holds everything", file=sys.stderr)
