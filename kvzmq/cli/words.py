"""Splits a line of `kvzmq shell` into words. No I/O.

insert zebra {"weight": 100, "name": "fred"}      JSON needs no quotes around it
lookup "a key with spaces"                        a JSON string, as a key and as a value
insert zebra '{"weight": 100}'                    as on the command line
# a comment
"""

from __future__ import annotations

import json
import re

_SPACE = re.compile(r"\s*")
_PLAIN = re.compile(r"\S+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'")
_OPENING, _CLOSING = "{[", "}]"


class Word(str):
    """A word as it is used for a key or an option; `raw`, used for a value, keeps the quotes of a JSON string."""

    raw: str

    def __new__(cls, text: str, raw: str | None = None) -> Word:
        word = super().__new__(cls, text)
        word.raw = text if raw is None else raw
        return word


class BadLine(ValueError):
    """A line cannot be split into words."""


class Unfinished(BadLine):
    """A bracket is not closed yet: the command continues on the next line."""


def split(line: str) -> list[Word]:
    """Return the words of a line.

    Raises:
        Unfinished: JSON goes on in the next line
        BadLine: quotes are not closed, or something follows them at once
    """
    words: list[Word] = []
    at = _skip_space(line, 0)
    if line.startswith("#", at):
        return words
    while at < len(line):
        word, at = _word(line, at)
        words.append(word)
        end = at
        at = _skip_space(line, at)
        if at == end and at < len(line):
            raise BadLine(f"no space before {line[at : at + 10]!r}")
    return words


def _skip_space(line: str, at: int) -> int:
    match = _SPACE.match(line, at)
    assert match is not None
    return match.end()


def _word(line: str, at: int) -> tuple[Word, int]:
    first = line[at]
    if first in _OPENING:
        end = _end_of_json(line, at)
        return Word(line[at:end]), end
    if first == '"':
        found = _STRING.match(line, at)
        if found is None:
            raise BadLine("a double quote is not closed")
        try:
            return Word(json.loads(found[0]), found[0]), found.end()
        except ValueError as error:
            raise BadLine(f"{found[0]} is not a JSON string: {error}") from None
    if first == "'":
        found = _SINGLE.match(line, at)
        if found is None:
            raise BadLine("a single quote is not closed")
        return Word(found[1]), found.end()
    found = _PLAIN.match(line, at)
    assert found is not None
    return Word(found[0]), found.end()


def _end_of_json(line: str, at: int) -> int:
    """Return where the object or array that begins at `at` ends, by its brackets."""
    depth = 0
    while at < len(line):
        char = line[at]
        if char == '"':
            found = _STRING.match(line, at)
            if found is None:
                raise BadLine("a double quote is not closed")
            at = found.end()
            continue
        depth += (char in _OPENING) - (char in _CLOSING)
        at += 1
        if depth == 0:
            return at
    raise Unfinished("a bracket is not closed")


def quote(key: str) -> str:
    """Return how to type a key so that `split` gives it back."""
    plain = bool(key) and key.isprintable() and " " not in key and key[0] not in "\"'{[#-"
    return key if plain and _PLAIN.fullmatch(key) else json.dumps(key, ensure_ascii=not key.isprintable())
