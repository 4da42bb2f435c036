"""How data is printed: formatted on a terminal, plain in a pipe, or as JSON.

In a pipe a string is printed without quotes and any other value as JSON, as `jq -r` does, and bytes as they are; a
row is one line, key TAB value, in which a string with control characters is printed as JSON, so that a line is always
a row. On a terminal a string has quotes, so that "5" differs from 5, and control characters are escaped. As JSON a
row is {"key": ..., "value": ...}, bytes are base64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import click
import msgspec

from kvzmq.units import printable as printable

_PAGE_ROWS = 1000
"""How many rows a table on the terminal has before the next one is begun."""

_WRITE_BYTES = 1 << 16

_GAP = 3
"""Columns of the terminal between two of a table."""

_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def on_terminal() -> bool:
    """Say whether standard output is a terminal."""
    return sys.stdout.isatty()


def encode_json(value: Any) -> bytes:
    """Return a value as JSON; for a terminal what could move its cursor, or reorder its text, is escaped as JSON does.

    JSON itself leaves DEL, and the control characters from U+0080 on, as they are.
    """
    data = _encode(value)
    return printable(data.decode()).encode() if on_terminal() else data


def put(lines: Iterable[bytes]) -> None:
    """Write lines to standard output, buffered: a million of them take a second, not a minute."""
    out = sys.stdout.buffer
    size = 0
    buffer: list[bytes] = []
    for line in lines:
        buffer.append(line)
        size += len(line)
        if size >= _WRITE_BYTES:
            out.write(b"\n".join(buffer) + b"\n")
            buffer, size = [], 0
    if buffer:
        out.write(b"\n".join(buffer) + b"\n")
    out.flush()


def bare(value: Any) -> bytes:
    """Return a value as a pipe gets it."""
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else encode_json(value)


def bare_field(value: Any) -> bytes:
    """Return a value, or a key, as a field of a line."""
    if isinstance(value, str) and value.isprintable():
        return value.encode()
    return encode_json(value)


def on_screen(value: Any, indent: bool = False) -> str:
    """Return a value as a terminal gets it."""
    if isinstance(value, bytes):
        return f"<{len(value)} byte{'' if len(value) == 1 else 's'}>"
    data = encode_json(value)
    if indent and len(data) > 60:
        data = msgspec.json.format(data, indent=2)
    return printable(data.decode())


def one(value: Any, as_json: bool) -> None:
    """Show one value."""
    if as_json:
        put([encode_json(value)])
    elif on_terminal():
        put([on_screen(value, indent=True).encode()])
    elif isinstance(value, bytes):
        sys.stdout.buffer.write(value)  # without a newline: it may be the contents of a file
    else:
        put([bare(value)])


def as_row(key: str, value: Any) -> bytes:
    """Return a row as a line of JSON."""
    return encode_json({"key": key, "value": value})


def rows(found: Iterable[tuple[str, Any]], as_json: bool) -> int:
    """Show keys and values, and return how many."""
    counted = _Counted(found)
    if as_json:
        put(as_row(key, value) for key, value in counted)
    elif on_terminal():
        while page := list(islice(counted, _PAGE_ROWS)):
            table(("key", "value"), ((printable(key), on_screen(value)) for key, value in page))
        note(f"{counted.count} row{'' if counted.count == 1 else 's'}")
    else:
        put(bare_field(key) + b"\t" + bare_field(value) for key, value in counted)
    return counted.count


def names(found: Iterable[str], as_json: bool) -> None:
    """Show keys."""
    if as_json:
        put(encode_json(key) for key in found)
    elif on_terminal():
        put(printable(key).encode() for key in found)
    else:
        put(bare_field(key) for key in found)


def mapping(found: Mapping[str, Any], as_json: bool) -> None:
    """Show names and their values."""
    if as_json:
        put([encode_json(found)])
    elif on_terminal():
        table(("name", "value"), ((name, on_screen(value)) for name, value in found.items()))
    else:
        put(name.encode() + b"\t" + bare_field(value) for name, value in found.items())


def table(
    heads: Sequence[str], lines: Iterable[Sequence[str]], right: Iterable[int] = (), spare: Iterable[str] = ()
) -> list[str]:
    """Print a table as wide as its contents or the terminal; what is too long continues on the next line.

    Args:
        right: the columns that are aligned at the right, by number
        spare: the heads of columns that a terminal does without which is too narrow for all, in this order

    Returns:
        the heads of the columns that were left out
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    lines = list(lines)
    widths = {at: max(cell_len(line[at]) for line in (heads, *lines)) for at in range(len(heads))}
    left_out = []
    for head in spare:
        if sum(widths.values()) + _GAP * len(widths) <= console.width:
            break
        del widths[heads.index(head)]
        left_out.append(head)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for at in widths:
        drawn.add_column(heads[at], overflow="fold", justify="right" if at in right else "left")
    for line in lines:
        drawn.add_row(*(Text(line[at]) for at in widths))
    console.print(drawn)
    return left_out


def note(text: str) -> None:
    """Write a message about the data to standard error, with control characters escaped."""
    click.echo(printable(text), err=True)


class _Counted(Iterator[tuple[str, Any]]):
    def __init__(self, found: Iterable[tuple[str, Any]]) -> None:
        self._found = iter(found)
        self.count = 0

    def __next__(self) -> tuple[str, Any]:
        row = next(self._found)
        self.count += 1
        return row
