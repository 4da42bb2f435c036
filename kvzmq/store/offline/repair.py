"""Saves what can be read of a damaged table into a new directory; the damaged one is not touched.

The log holds operations, not rows: those after damage were executed on rows whose values are not known. So the new
table is what recovery gives up to the damage: the longest prefix of the log, a state that the table really had.

Some rows can be restored from the log after the damage. An insert sets a row's value whatever it was before; from
then on later changes of this row alone can be replayed. The rows restored so, as they were at the end of the log, are
`Saved.later`: the operator decides whether to import them. The keys of rows that the log changes only relative to
their value, as by an increment or a compare_and_set, are in `Saved.unknown`.

If the checkpoint is damaged there is no prefix, unless the log reaches back to the first group. The rows in its
intact sections are known, as they were after its group, and the log is applied to them by the same rule. The new
table has these rows and no others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvzmq import errors
from kvzmq.protocol import msgpack, operations
from kvzmq.protocol.declaration import Operation
from kvzmq.protocol.messages import Request
from kvzmq.store.file import checkpoint, frames
from kvzmq.store.file.file_log import write_table
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.log import Checkpoint
from kvzmq.store.offline.reading import Gap, Group, Reading, describe, groups, regions
from kvzmq.store.table import Table

_UNCONDITIONAL = (operations.Insert, operations.InsertMany, operations.Remove, operations.RemoveMany)
"""The writes after which a row's value is known even if it was not before."""


@dataclass
class Saved:
    """What a repair found.

    table     the rows that are saved
    group     the last group in it
    prefix    whether the table once had exactly these rows; else rows are missing
    left_out  what is not in it, and why, a line each
    later     rows restored from after the damage, by key: MessagePack, or None for removed; and the deadline or None
    unknown   keys that were changed after the damage, whose values are not known
    """

    table: Table
    group: int = 0
    prefix: bool = True
    left_out: list[str] = field(default_factory=list)
    later: dict[str, tuple[bytes | None, int | None]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


def save(reading: Reading) -> Saved:
    """Read what can be read; the module's docstring says what it means."""
    saved = Saved(Table())
    found = list(_groups(reading, saved.left_out))
    keys: set[str] | None = None
    if not _load_checkpoint(reading, saved):
        if found and found[0].number == 1:
            saved.table, saved.group = Table(), 0
            saved.left_out.append("the log begins with the first group, so the checkpoint is not needed")
        else:
            saved.prefix = False
            keys = set(saved.table.rows)
    replay = _Replay(saved.table, keys)
    last = saved.group
    for group in found:
        if group.number <= last:
            continue  # in the checkpoint already
        if group.number != last + 1:
            saved.left_out.append(f"group{_span(last + 1, group.number - 1)} cannot be read")
            replay = _Replay(Table(), set())
        last = group.number
        replay.apply(group)
        if replay.table is saved.table:
            saved.group = last
    saved.unknown = replay.unknown
    if replay.table is not saved.table:
        saved.left_out.append(f"group{_span(saved.group + 1, last)}: after the damage, so not in the table")
        rows, expiries = replay.table.rows, replay.table.expiries
        saved.later = {key: (rows.get(key), expiries.get(key)) for key in sorted(replay.keys or ())}
    return saved


def _span(first: int, last: int) -> str:
    return f" {first}" if first == last else f"s {first} to {last}"


def _groups(reading: Reading, left_out: list[str]) -> Iterator[Group]:
    """Yield every group that can be read; for each part that cannot, append a line to `left_out`."""
    for found in groups(reading):
        if isinstance(found, Group):
            yield found
        else:
            left_out.append(found.what + (", a torn tail" if found.torn else ""))


def _load_checkpoint(reading: Reading, saved: Saved) -> bool:
    """Load the checkpoint; if it is damaged load its intact sections and return False."""
    try:
        found = checkpoint.read(reading)
        if found is not None:
            saved.table.load(found.sections)
            saved.group = found.group
        return True
    except errors.CorruptionError as error:
        saved.left_out.append(str(error))
    saved.table = Table()
    file = reading.open(checkpoint.NAME)
    sections: list[bytes] = []
    head: dict[str, int] = {}
    for region in regions(file, checkpoint.MAGIC, checkpoint.NAME, last=False):
        if isinstance(region, Gap):
            saved.left_out.append(f"{checkpoint.NAME}: {describe(region)}")
        elif region.number == 1:
            head = msgpack.decode_value(region.payload)[1]
        elif region.number != 0:
            sections.append(region.payload)
    table = saved.table
    with contextlib.suppress(errors.CorruptionError):  # the counts do not fit: that is what is being repaired
        table.load(sections)
    table.revision = head.get("revision", 0)
    table.time_us = head.get("time_us", 0)
    total = head.get("rows")
    saved.left_out.append(
        f"{checkpoint.NAME}: {len(table.rows)} rows could be read"
        + (f", of {total}" if total is not None else ", of an unknown number")
    )
    try:
        saved.group = frames.read_header(file, checkpoint.MAGIC, checkpoint.NAME).number
    except errors.CorruptionError:
        saved.group = 0
    return False


class _Replay:
    """Applies groups to a table whose rows are all known, or only some of them.

    Args:
        table: the known rows
        keys: the known keys, present or absent; None for all
    """

    def __init__(self, table: Table, keys: set[str] | None) -> None:
        self.table = table
        self.keys = keys
        self.unknown: set[str] = set()
        """Keys that were changed, and whose values are not known."""
        self._seen: set[tuple[bytes, int]] = set()

    def apply(self, group: Group) -> None:
        """Apply one group."""
        self.table.advance(group.time_us)
        for request in group.requests:
            if self.keys is None:
                self.table.execute(request)
            elif request.session is None or (request.session, request.seq) not in self._seen:
                if request.session is not None:
                    self._seen.add((request.session, request.seq))  # a retry may be logged beside the first
                for op in request.ops:
                    if op.writes:
                        self._follow(op, self.keys)

    def _follow(self, op: Operation, known: set[str]) -> None:
        touched = set(op.named_keys())
        if isinstance(op, _UNCONDITIONAL):
            known |= touched
            self.unknown -= touched
        elif not touched <= known:
            self._execute(operations.RemoveMany(list(touched)))
            known -= touched
            self.unknown |= touched
            return
        self._execute(op)

    def _execute(self, op: Operation) -> None:
        self.table.execute(Request(None, 1, [op], b""))


def write(saved: Saved, path: str | os.PathLike[str]) -> None:
    """Write the saved table into a new directory, durably.

    Raises:
        DirectoryInUse, OSError: it could not be written
    """
    directory = DiskDirectory(path)
    try:
        write_table(directory, Checkpoint(saved.group, saved.table.dump()))
    finally:
        directory.close()
