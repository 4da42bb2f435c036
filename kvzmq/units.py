"""Sizes, times, counts and texts as people read them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from itertools import pairwise

_UNITS_S = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def size(count: float) -> str:
    """Return a number of bytes: 512 bytes, 1.2 MiB."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def duration(seconds: float) -> str:
    """Return a time, in two units at most: 0.25 s, 3 min 20 s, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    for (unit, unit_s), (part, part_s) in pairwise(_UNITS_S):
        if seconds >= unit_s:
            count, rest_s = divmod(int(seconds), unit_s)
            return f"{count} {unit}" + (f" {rest_s // part_s} {part}" if rest_s >= part_s else "")
    raise AssertionError("every time from a minute on has a unit")


def brief(seconds: float) -> str:
    """Return a time in one unit, with three digits at most: 85 us, 1.25 ms, 3.1 s."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{_digits(seconds * factor)} {unit}"
    return f"{_digits(seconds)} s"


def utc(time_us: int, unit: str = "milliseconds") -> str:
    """Return a time, microseconds since 1970 UTC, as people and programs read it: 2026-01-31T12:00:00.000Z.

    Args:
        unit: to which it is told, `milliseconds` or `microseconds`
    """
    return datetime.fromtimestamp(time_us / 1e6, timezone.utc).isoformat(timespec=unit).replace("+00:00", "Z")


def rate(per_s: float) -> str:
    """Return how many there are a second: 0, 0.25, 8.5, 41,234."""
    return f"{per_s:,.0f}" if per_s >= 99.95 or per_s == 0 else _digits(per_s)


def _digits(value: float) -> str:
    places = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(number: int, noun: str) -> str:
    """Return a number of things: 1 row, 1,234 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Escape control characters, and characters that reorder text, but for line breaks: for terminals and pages."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]  # JSON leaves DEL as it is
