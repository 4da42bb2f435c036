"""How data is shown in a pipe, on a terminal and as JSON."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvzmq.cli import show

Output = Callable[..., str]


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Return what a function of `show` writes, in a pipe or on a terminal of some width."""

    def run(function: Callable[..., object], *arguments: Any, terminal: bool = False, columns: int = 80) -> bytes:
        with monkeypatch.context() as patch:
            stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(show, "on_terminal", lambda: terminal)
            patch.setenv("COLUMNS", str(columns))
            function(*arguments)
            stdout.flush()
            data = stdout.buffer.getvalue()
            assert isinstance(data, bytes)
            return data

    return run


@pytest.mark.parametrize(
    "value, bare, on_screen",
    [
        ("fred", b"fred\n", b'"fred"\n'),
        ("two\nlines", b"two\nlines\n", b'"two\\nlines"\n'),
        ("", b"\n", b'""\n'),
        (5, b"5\n", b"5\n"),
        ("5", b"5\n", b'"5"\n'),
        (None, b"null\n", b"null\n"),
        (True, b"true\n", b"true\n"),
        ({"a": [1.5, "ü"]}, '{"a":[1.5,"ü"]}\n'.encode(), '{"a":[1.5,"ü"]}\n'.encode()),
        (b"\x00\xff", b"\x00\xff", b"<2 bytes>\n"),
    ],
)
def test_a_value_is_bare_in_a_pipe_and_typed_on_a_terminal(
    output: Callable[..., bytes], value: Any, bare: bytes, on_screen: bytes
) -> None:
    assert output(show.one, value, False) == bare
    assert output(show.one, value, False, terminal=True) == on_screen


def test_a_long_value_is_laid_out_over_several_lines_on_a_terminal(output: Callable[..., bytes]) -> None:
    value = {f"field{n}": n for n in range(20)}
    shown = output(show.one, value, False, terminal=True)
    assert shown.count(b"\n") == 22 and json.loads(shown) == value


def test_what_could_move_the_cursor_is_escaped_on_a_terminal(output: Callable[..., bytes]) -> None:
    evil = "\x1b[2J\x9b31m\u202e\x07"
    for function, arguments in ((show.one, (evil,)), (show.names, ([evil],)), (show.rows, ([(evil, {evil: evil})],))):
        shown = output(function, *arguments, False, terminal=True).decode()
        assert not set(shown) & set(evil[:1] + "\x9b\u202e\x07")


def test_rows_in_a_pipe_are_lines_of_key_tab_value(output: Callable[..., bytes]) -> None:
    rows = [("a", "hello"), ("b", {"x": "1\t2"}), ("c\nd", "e\tf\n"), ("", b"\x00")]
    assert output(show.rows, rows, False).split(b"\n") == [
        b"a\thello", b'b\t{"x":"1\\t2"}', b'"c\\nd"\t"e\\tf\\n"', b'\t"AA=="', b"",
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
    )
)
def test_a_row_is_always_one_line_with_one_tab(rows: list[tuple[str, str]]) -> None:
    lines = [show.bare_field(key) + b"\t" + show.bare_field(value) for key, value in rows]
    assert all(line.count(b"\t") == 1 and b"\n" not in line and b"\r" not in line for line in lines)


def test_json_is_a_line_for_each_row(output: Callable[..., bytes]) -> None:
    rows = [("a\n", "x"), ("b", None)]
    for terminal in (False, True):
        shown = output(show.rows, rows, True, terminal=terminal)
        assert [json.loads(line) for line in shown.splitlines()] == [
            {"key": "a\n", "value": "x"},
            {"key": "b", "value": None},
        ]
    assert output(show.names, ["a", "ü"], True) == '"a"\n"ü"\n'.encode()
    assert json.loads(output(show.mapping, {"n": 1}, True)) == {"n": 1}


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_table_keeps_every_character_however_narrow_the_terminal(output: Callable[..., bytes], columns: int) -> None:
    shown = output(
        show.rows, [("key" * 10, "value" * 30), ("[bold]k[/]", "v")], False, terminal=True, columns=columns
    ).decode()
    assert max(map(len, shown.splitlines())) <= columns
    assert shown.count("k") >= 11 and shown.count("v") >= 31 and ("[bold]" in shown.replace("\n", "") or columns == 20)


def test_a_table_of_many_rows_is_shown_in_pages(output: Callable[..., bytes]) -> None:
    shown = output(show.rows, ((f"key{n:05}", n) for n in range(2500)), False, terminal=True).decode()
    assert all(f"key{n:05}" in shown for n in (0, 999, 1000, 2499))


def test_json_on_a_terminal_says_the_same_and_cannot_move_its_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red with JSON as a pipe gets it: a key with U+009B, which is ESC [ in one character, reached the terminal."""
    hostile = {"\x9b31m\x7f\u202e": ["\x1b]0;x\x07", "\u2028"]}
    monkeypatch.setattr(show, "on_terminal", lambda: True)
    line = show.encode_json(hostile).decode()
    assert line.isprintable() and json.loads(line) == hostile
    monkeypatch.setattr(show, "on_terminal", lambda: False)
    assert "\x9b31m\x7f\u202e" in show.encode_json(hostile).decode(), "in a pipe as it is"
