"""Checks a table's files: reads every frame of every file, those after damage too, and then recovers the table in
memory as a server would. Changes nothing.
"""

from __future__ import annotations

import contextlib

import msgspec

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.store.file import checkpoint, frames
from kvzmq.store.file.file_log import MAGIC, NAME, FileLog
from kvzmq.store.file.files import File
from kvzmq.store.offline.reading import NAMES, Gap, Reading, describe, regions
from kvzmq.store.store import Store
from kvzmq.store.table import Table


class FileReport(msgspec.Struct):
    """What is in one file."""

    name: str
    bytes: int
    frames: int = 0
    first_group: int | None = None
    last_group: int | None = None
    requests: int = 0
    operations: int = 0
    from_us: int | None = None
    to_us: int | None = None
    torn_bytes: int = 0
    damage: list[str] = msgspec.field(default_factory=list)
    checkpoint: bool = False
    """Whether it is a checkpoint, else a log."""


class Report(msgspec.Struct):
    """What is in a table's directory, and what recovery would make of it; or in a backup, and what a restore would."""

    path: str
    in_use: bool
    files: list[FileReport]
    refusal: str | None = None
    """Why a server would refuse to start, or None."""
    group: int = 0
    rows: int = 0
    revision: int = 0
    sessions: int = 0
    lineage: str | None = None
    epoch: str | None = None
    """The table's lineage and latest epoch, 32 hexadecimal digits."""
    replayed: int = 0
    """Groups that recovery applies after the checkpoint."""
    torn_bytes: int = 0
    """How many bytes of a torn tail recovery would truncate, and save in a file of their own."""
    time_us: int = 0
    """The table's time, microseconds since 1970 UTC."""
    backup: bool = False
    """Whether it is a backup, a single file."""

    @property
    def damaged(self) -> bool:
        """Whether a file is damaged; a torn tail is not damage."""
        return self.refusal is not None or any(file.damage for file in self.files)

    def describe(self, table: Table) -> None:
        """Take down what there is to say of a table."""
        self.rows = len(table.rows)
        self.revision = table.revision
        self.time_us = table.time_us
        self.sessions = len(table.sessions)
        identity = table.identity()
        self.lineage, self.epoch = identity["lineage"], identity["epoch"]


def inspect(reading: Reading) -> Report:
    """Read everything in a directory, and recover from it in memory."""
    files = []
    for name in NAMES:
        if reading.exists(name):
            file = reading.open(name)
            read = inspect_checkpoint if name == checkpoint.NAME else _inspect_log
            files.append(read(file, name, last=name == NAME))
    report = Report(str(reading.path), reading.in_use, files)
    _recover(reading, report)
    return report


def inspect_checkpoint(file: File, name: str, last: bool) -> FileReport:
    """Read every frame of a checkpoint, past damage too."""
    report = FileReport(name, file.size(), checkpoint=True)
    with contextlib.suppress(errors.CorruptionError):  # `regions` reports it
        report.last_group = frames.read_header(file, checkpoint.MAGIC, name).number
    for found in regions(file, checkpoint.MAGIC, name, last):
        if isinstance(found, Gap):
            report.damage.append(describe(found))
        else:
            report.frames += 1
    return report


def _inspect_log(file: File, name: str, last: bool) -> FileReport:
    report = FileReport(name, file.size())
    for found in regions(file, MAGIC, name, last):
        if isinstance(found, Gap):
            if found.torn:
                report.torn_bytes = found.end - found.offset
            else:
                report.damage.append(describe(found))
            continue
        report.frames += 1
        if report.last_group is not None and found.number != report.last_group + 1:
            report.damage.append(f"offset {found.offset}: group {found.number} follows group {report.last_group}")
        report.first_group = found.number if report.first_group is None else report.first_group
        report.last_group = found.number
        try:
            time_us, requests = msgpack.decode_group(found.payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            report.damage.append(f"offset {found.offset}: group {found.number} is not a group: {error}")
            continue
        report.requests += len(requests)
        report.operations += sum(len(request.ops) for request in requests)
        report.from_us = time_us if report.from_us is None else report.from_us
        report.to_us = time_us
    return report


def _recover(reading: Reading, report: Report) -> None:
    """Recover the table in memory, as a server would."""
    log = FileLog(reading, read_only=True)
    store = Store(log)
    try:
        store.recover()
    except errors.CorruptionError as error:
        report.refusal = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        report.refusal = f"group {log.group} is not a group: {error}"
    base = next((file.last_group or 0 for file in report.files if file.name == checkpoint.NAME), 0)
    report.group = log.group
    report.replayed = max(0, log.group - base)
    report.torn_bytes = log.torn_bytes
    report.describe(store.table)
