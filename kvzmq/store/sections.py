"""The sections of a checkpoint: a table's parts encoded as bytes, and decoded again.

A section is MessagePack, `[kind, content]`:

    head       {revision, time_us, rows, sessions}, the latter two counts; the first section
    epochs     [lineage, [[epoch, revision], ...]], of a table that a log has begun
    rows       {key: value, ...}, each value as bytes
    deadlines  {key: microseconds, ...}
    sessions   [[id, floor, [[seq, digest, revision, results], ...]], ...], the one to be dropped first comes first

Rows, deadlines and sessions are split into as many sections as it takes to keep each below _SECTION_BYTES. Nothing
here accesses a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, Union

import msgspec
from msgspec import Raw

from kvzmq import errors
from kvzmq.protocol import msgpack
from kvzmq.store.epochs import Epochs
from kvzmq.store.expiries import Expiries
from kvzmq.store.sessions import Sessions

_SECTION_ITEMS = 10_000
_SECTION_BYTES = 4 << 20
"""A section holds no more items, and hardly more bytes: a frame is written and read in one piece."""


class Parts(NamedTuple):
    """What a table consists of, beside its revision and time."""

    epochs: Epochs
    rows: dict[str, bytes]
    expiries: Expiries
    sessions: Sessions


def dump(parts: Parts, revision: int, time_us: int) -> Iterator[bytes]:
    """Yield a table's sections."""
    epochs, rows, expiries, sessions = parts
    head = {"revision": revision, "time_us": time_us, "rows": len(rows), "sessions": len(sessions)}
    yield msgpack.encode_value(("head", head))
    if epochs.lineage is not None:
        yield msgpack.encode_value(("epochs", epochs.dump()))
    for some_rows in _chunks(rows.items(), lambda row: 4 * len(row[0]) + len(row[1])):
        yield msgpack.encode_value(("rows", dict(some_rows)))
    for deadlines in _chunks(expiries.items(), lambda deadline: 4 * len(deadline[0])):
        yield msgpack.encode_value(("deadlines", dict(deadlines)))
    for some_sessions in _chunks(sessions.dump(), lambda session: sum(len(reply[3]) for reply in session[2])):
        yield msgpack.encode_value(("sessions", some_sessions))


def load(parts: Parts, sections: Iterable[bytes]) -> tuple[int, int]:
    """Add what the sections hold to the parts of an empty table; return its revision and time.

    Raises:
        CorruptionError: the counts of rows and sessions in the head are wrong; what the sections hold was added
    """
    epochs, rows, expiries, sessions = parts
    load_content: Mapping[str, Callable[[Raw], object]] = {
        "epochs": lambda content: epochs.load(*_decode_epochs(content)),
        "rows": lambda content: rows.update(_decode_rows(content)),
        "deadlines": lambda content: expiries.load(_decode_deadlines(content)),
        "sessions": lambda content: sessions.load(_decode_sessions(content)),
    }
    head: dict[str, int] = {}
    for data in sections:
        section = _decode_section(data)
        if section.kind in load_content:
            load_content[section.kind](section.content)
        else:
            head = _decode_head(section.content)
    if head.get("rows") != len(rows) or head.get("sessions") != len(sessions):
        raise errors.CorruptionError(f"the checkpoint holds {len(rows)} rows and {len(sessions)} sessions, not {head}")
    return head["revision"], head["time_us"]


class Summary(NamedTuple):
    """What a table's sections say of it: `lineage` and the latest `epoch` are 32 hexadecimal digits, or None."""

    revision: int
    time_us: int
    rows: int
    sessions: int
    lineage: str | None
    epoch: str | None


def summarize(sections: Iterable[bytes]) -> Summary:
    """Go through a table's sections, and return what the first ones say of it.

    Raises:
        CorruptionError: they do not begin with a head
    """
    head: dict[str, int] = {}
    epochs = Epochs()
    for number, data in enumerate(sections):
        if number < 2:  # the others hold rows
            section = _decode_section(data)
            if section.kind == "head":
                head = _decode_head(section.content)
            elif section.kind == "epochs":
                epochs.load(*_decode_epochs(section.content))
    if not head:
        raise errors.CorruptionError("a checkpoint without a head: it was never written by any version")
    lineage, epoch = (None if id is None else id.hex() for id in (epochs.lineage, epochs.current))
    return Summary(head["revision"], head["time_us"], head["rows"], head["sessions"], lineage, epoch)


class _Section(msgspec.Struct, array_like=True, gc=False):
    kind: str
    content: Raw


_decode_section: Callable[[bytes], _Section] = msgspec.msgpack.Decoder(_Section).decode
_decode_head: Callable[[Any], dict[str, int]] = msgspec.msgpack.Decoder(dict[str, int]).decode
_decode_epochs: Callable[[Any], tuple[Union[bytes, None], list[tuple[bytes, int]]]] = msgspec.msgpack.Decoder(
    tuple[Union[bytes, None], list[tuple[bytes, int]]]
).decode
_decode_rows: Callable[[Any], dict[str, bytes]] = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_decode_deadlines: Callable[[Any], dict[str, int]] = msgspec.msgpack.Decoder(dict[str, int]).decode
_decode_sessions: Callable[[Any], list[list[Any]]] = msgspec.msgpack.Decoder(list[list[Any]]).decode


def _chunks(items: Iterable[Any], bytes_of: Callable[[Any], int]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _SECTION_ITEMS)):
        yield from _split(chunk, bytes_of)


def _split(chunk: list[Any], bytes_of: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Halve a chunk that is too large for one section, repeatedly if need be."""
    if len(chunk) == 1 or sum(map(bytes_of, chunk)) <= _SECTION_BYTES:
        yield chunk
    else:
        middle = len(chunk) // 2
        yield from _split(chunk[:middle], bytes_of)
        yield from _split(chunk[middle:], bytes_of)
