"""Keys and values as text for the page, which puts them there as text and nothing else.

A value looks like JSON; bytes are their digits in hexadecimal, `<2 bytes 0a ff>`. What is long ends with an ellipsis.
Characters that cannot be seen, or that change the order of others, are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from kvzmq.units import printable as printable

PREVIEW_CHARS_MAX = 160
"""How much of a value is shown in a list."""

WHOLE_CHARS_MAX = 256 * 1024
"""How much of a value is shown when it is unfolded."""

_BYTES_AT_ONCE = 4096
_INDENT = "  "


def text_of(value: Any, chars_max: int = PREVIEW_CHARS_MAX, indent: bool = False) -> tuple[str, bool]:
    """Return a value as text, and whether that is all of it."""
    pieces: list[str] = []
    left = chars_max
    for piece in _pieces(value, "\n" if indent else ""):
        if len(piece) > left:
            pieces.append(piece[:left])
            return printable("".join(pieces)) + "…", False
        pieces.append(piece)
        left -= len(piece)
    return printable("".join(pieces)), True


def kind_of(value: Any) -> str:
    """Return what a value is, in a word or two: map of 3, 12 bytes, number."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return f"text, {len(value):,}" if len(value) > PREVIEW_CHARS_MAX else "text"
        case bytes():
            return f"{len(value):,} byte{'' if len(value) == 1 else 's'}"
        case list():
            return f"list of {len(value):,}"
        case _:
            return f"map of {len(value):,}"


def _pieces(value: Any, newline: str) -> Iterator[str]:
    """Yield the text of a value, bit by bit: who has enough need not wait for the rest."""
    if isinstance(value, dict):
        yield from _enclosed("{", "}", ((f"{_quoted(key)}: ", each) for key, each in value.items()), newline)
    elif isinstance(value, list):
        yield from _enclosed("[", "]", (("", each) for each in value), newline)
    elif isinstance(value, bytes):
        yield f"<{kind_of(value)}"
        for at in range(0, len(value), _BYTES_AT_ONCE):
            yield " " + value[at : at + _BYTES_AT_ONCE].hex(" ")
        yield ">"
    elif isinstance(value, str):
        yield _quoted(value)
    else:
        yield json.dumps(value)


def _enclosed(opening: str, closing: str, members: Iterator[tuple[str, Any]], newline: str) -> Iterator[str]:
    inner = newline + _INDENT if newline else ""
    comma = "," if newline else ", "
    yield opening
    first = True
    for name, each in members:
        yield ("" if first else comma) + inner + name
        yield from _pieces(each, inner)
        first = False
    yield closing if first else newline + closing


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
