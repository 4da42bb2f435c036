"""The filters that a catalog evaluates: the part of the original's expressions that lookups need."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_TERM = re.compile(
    r"""\s* (?: (?P<true>true)\b
            | (?P<name>[A-Za-z_][A-Za-z0-9_]*) \s* == \s* (?P<value> "(?:[^"\\]|\\[^u])*" | -?[0-9]{1,18}(?![\w.]) )
        ) \s* (?P<next> && | \band\b | \Z )""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"and", "or", "not", "true", "false", "null", "for", "in", "if", "error"})


def parse_where(expression: str) -> list[tuple[str, str | int]] | None:
    """Return the (field, value) pairs that an entry must have, or None if the expression is not of this form.

    Of the original's expression language these are understood: `true`, and comparisons of a field with a string or an
    integer by `==`, joined by `&&` or `and`.
    """
    wanted: list[tuple[str, str | int]] = []
    position = 0
    while (term := _TERM.match(expression, position)) is not None:
        if not term["true"]:
            if term["name"] in _KEYWORDS:
                return None
            try:
                wanted.append((term["name"], msgspec.json.decode(term["value"], type=str | int)))
            except ValueError:
                return None
        if not term["next"]:
            return wanted
        position = term.end()
    return None


def satisfies(fields: dict[str, Any], wanted: list[tuple[str, str | int]]) -> bool:
    """Say whether an entry has all of the wanted fields with the wanted values."""
    # True == 1 in Python, and not in the original.
    return all(
        name in fields and not isinstance(fields[name], bool) and fields[name] == value for name, value in wanted
    )
