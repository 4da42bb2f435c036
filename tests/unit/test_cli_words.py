"""What the shell makes of a line."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvzmq.cli.words import BadLine, Unfinished, quote, split


def raws(line: str) -> list[str]:
    return [word.raw for word in split(line)]


@pytest.mark.parametrize(
    "line, words",
    [
        ("", []),
        ("   \t ", []),
        ("# a comment {", []),
        ("size", ["size"]),
        ("lookup  a\tb ", ["lookup", "a", "b"]),
        ('insert a {"x": [1, "}"]}', ["insert", "a", '{"x": [1, "}"]}']),
        ("insert a [1, 2] --ttl 5", ["insert", "a", "[1, 2]", "--ttl", "5"]),
        ("insert a '{\"x\": 1}'", ["insert", "a", '{"x": 1}']),
        ("insert a ''", ["insert", "a", ""]),
        ("insert it's fine", ["insert", "it's", "fine"]),
        ("incr n -5", ["incr", "n", "-5"]),
        ("insert a {}", ["insert", "a", "{}"]),
    ],
)
def test_a_line_is_split_into_words(line: str, words: list[str]) -> None:
    assert raws(line) == words


def test_a_json_string_is_a_key_without_its_quotes_and_a_value_with_them() -> None:
    word = split('lookup "my \\"key\\""')[1]
    assert word == 'my "key"' and word.raw == '"my \\"key\\""'


def test_json_goes_on_until_its_brackets_are_closed() -> None:
    for part in ("insert a {", 'insert a {"x": [1,\n', 'insert a [{"y": "]"},'):
        with pytest.raises(Unfinished):
            split(part)
    assert raws('insert a {"x":\n [1,\n2]}') == ["insert", "a", '{"x":\n [1,\n2]}']


@pytest.mark.parametrize(
    "line", ['lookup "a', "lookup 'a", 'insert a {"x', 'insert a "b"c', "insert a {}{}", 'insert a "\\q"']
)
def test_quotes_that_do_not_fit_are_an_error_that_waits_for_nothing(line: str) -> None:
    with pytest.raises(BadLine) as caught:
        split(line)
    assert not isinstance(caught.value, Unfinished)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_key_is_read_back(key: str) -> None:
    assert split(f"lookup {quote(key)}")[1:] == [key]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    )
)
def test_json_is_one_word_however_it_is_laid_out(value: object) -> None:
    for indent in (None, 2):
        text = json.dumps(value, indent=indent)
        words = split(f"insert key {text} --json")
        assert len(words) == 4 and json.loads(words[2].raw) == value


@given(st.text())
def test_any_line_is_words_or_an_error(line: str) -> None:
    with contextlib.suppress(BadLine):
        split(line)
