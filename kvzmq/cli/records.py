"""How records of requests are printed by `kvzmq monitor` and `kvzmq slowlog`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvzmq.cli import show
from kvzmq.protocol.monitoring import MonitoredRequest
from kvzmq.units import brief, size, utc

HEADS = (
    "received", "took", "queued", "executed", "synced", "sent", "client", "operation", "key", "answer", "request",
    "reply",
)  # fmt: skip
"""The columns on a terminal."""

_RIGHT = (1, 2, 3, 4, 5, 10, 11)
"""Those that are numbers."""


def operation(record: MonitoredRequest) -> str:
    """Return the name of the first operation, with `+N` if there are N more; "-" if none could be read."""
    if not record.operations:
        return "-"
    more = record.operation_count - 1
    return f"{record.operations[0].name}+{more}" if more else record.operations[0].name


def key(record: MonitoredRequest) -> str | None:
    """Return the first key or prefix, or None."""
    return next((op.key for op in record.operations if op.key is not None), None)


def as_json(record: MonitoredRequest) -> bytes:
    """Return a record as a line of JSON: its fields by name, and `error` and `took_s`."""
    fields: dict[str, Any] = {name: getattr(record, name) for name in record.__struct_fields__}
    fields["operations"] = [op._asdict() for op in record.operations]
    return show.encode_json(fields | {"error": record.error, "took_s": record.took_s})


def as_fields(record: MonitoredRequest) -> bytes:
    """Return a record as a pipe gets it: fields with tabs between them, times in seconds."""
    first = key(record)
    fields = [
        utc(record.received_us, "microseconds").encode(), str(record.step).encode(), record.client.encode(),
        operation(record).encode(), b"-" if first is None else show.bare_field(first), (record.error or "OK").encode(),
        *(str(number).encode() for number in (record.revision_after, record.request_bytes, record.reply_bytes)),
        *(f"{seconds:.6f}".encode() for seconds in (
            record.queued_s, record.executed_s, record.synced_s, record.sent_s
        )),
    ]  # fmt: skip
    return b"\t".join(fields)


def as_cells(record: MonitoredRequest) -> list[str]:
    """Return a record as a terminal gets it, a text for each of HEADS."""
    first = key(record)
    return [
        utc(record.received_us)[11:-1],
        *(brief(seconds) for seconds in (
            record.took_s, record.queued_s, record.executed_s, record.synced_s, record.sent_s
        )),
        show.printable(record.client), operation(record), "" if first is None else show.printable(first),
        record.error or "OK", size(record.request_bytes), size(record.reply_bytes),
    ]  # fmt: skip


_WIDTHS = (12, 8, 8, 8, 8, 8, 14, 15, 20, 12, 10, 10)
"""How wide the columns on a terminal are; the key takes what is left, and gives what is missing."""

_KEY = HEADS.index("key")
_KEY_WIDTH_MIN = 11
_SIZES = ("reply", "request")
_LEFT_OUT = (*_SIZES, "sent", "queued", "client", "executed", "synced", "received")
"""Which columns a narrow terminal does without, in this order."""


def line(cells: Iterable[str], columns: int) -> str:
    """Return a line of HEADS, or of `as_cells`, as wide as the terminal: a longer key or name is cut."""
    widths = dict(enumerate(_WIDTHS))
    for head in _LEFT_OUT:
        given = 0 if head in _SIZES else _WIDTHS[_KEY] - _KEY_WIDTH_MIN  # a key is cut for a phase, not for a size
        if sum(widths.values()) + len(widths) - 1 - given <= columns:
            break
        del widths[HEADS.index(head)]
    spare = columns - sum(widths.values()) - len(widths) + 1
    widths[_KEY] = max(_KEY_WIDTH_MIN, widths[_KEY] + spare)
    shown = []
    for at, cell in enumerate(cells):
        width = widths.get(at)
        if width is not None:
            cell = cell.replace("\n", "\\n")
            cell = cell if len(cell) <= width else cell[: width - 1] + "…"
            shown.append(cell.rjust(width) if at in _RIGHT else cell.ljust(width))
    return " ".join(shown).rstrip()
