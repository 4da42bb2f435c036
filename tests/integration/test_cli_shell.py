"""`kvzmq shell`, from a pipe and on a terminal."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.commands import command
from support.servers import ServerProcess
from support.terminals import Terminal

import kvzmq
from kvzmq.cli import main


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("table") / "data") as running:
        yield running


@pytest.fixture
def table(server: ServerProcess) -> Iterator[kvzmq.Client]:
    with kvzmq.connect(server.url) as client:
        client.remove_many(list(client.keys("")))
        yield client


def piped(server: ServerProcess, text: str) -> Any:
    return command("-c", server.url, "shell", stdin=text)


# ---- from a pipe


def test_commands_from_a_pipe_are_executed_in_order(server: ServerProcess, table: kvzmq.Client) -> None:
    result = piped(server, 'insert zebra {"weight": 100, "name": "fred"}\nlookup zebra\n\n# a comment\nsize\n')
    assert (result.exit_code, result.stdout, result.stderr) == (0, '{"weight":100,"name":"fred"}\n1\n', "")


def test_json_may_go_on_over_several_lines(server: ServerProcess, table: kvzmq.Client) -> None:
    assert piped(server, 'insert a {\n  "x": [1,\n\n  2]\n} --ttl 100\nlookup a\n').stdout == '{"x":[1,2]}\n'
    assert table.ttl("a") is not None
    result = piped(server, 'lookup a\ninsert b {"x": [\n')
    assert result.exit_code == 2 and "not closed" in result.stderr and "b" not in table


def test_keys_may_be_quoted_and_values_keep_their_type(server: ServerProcess, table: kvzmq.Client) -> None:
    piped(server, 'insert "a key" "5"\ninsert b \'{"x": 1}\'\ninsert c 5\ninsert d -\nincr c -7\ninsert e it\'s\n')
    assert dict(table.items("")) == {"a key": "5", "b": {"x": 1}, "c": -2, "d": "-", "e": "it's"}
    assert piped(server, 'cas "a key" "6" --expected "5"\nquery x "1"\n').exit_code == 0
    assert table.lookup("a key") == "6"


def test_an_error_does_not_end_it_and_the_first_one_is_the_exit_code(
    server: ServerProcess, table: kvzmq.Client
) -> None:
    result = piped(server, "lookup ghost\nnonsense\ninsert\nlookup 'a\nsize\n")
    assert result.exit_code == 1 and result.stdout == "0\n"
    for complaint in ("no key 'ghost'", "no command 'nonsense'", "Missing argument 'KEY'", "quote is not closed"):
        assert complaint in result.stderr


def test_exit_leaves_at_once(server: ServerProcess, table: kvzmq.Client) -> None:
    for word in ("exit", "quit"):
        assert piped(server, f"size\n{word}\nsize\n").stdout == "0\n"


def test_help_lists_the_commands_and_explains_one(server: ServerProcess) -> None:
    shown = piped(server, "help\nhelp cas\nhelp exit\n").stdout
    for name in ("insert", "lookup", "watch", "connect", "exit"):
        assert re.search(rf"^ *{name} ", shown, re.MULTILINE)
    assert "--expected VALUE" in shown and "Ctrl-D" in shown


def test_connect_goes_on_with_another_server(server: ServerProcess, table: kvzmq.Client, tmp_path: Path) -> None:
    table.insert("here", 1)
    with ServerProcess(tmp_path / "data") as other:
        result = piped(server, f"connect nonsense\nsize\nconnect {other.url}\nsize\nlookup here -c {server.url}\n")
    assert result.stdout == "1\n0 rows, revision 0\n0\n1\n" and "'nonsense' is not a server's URL" in result.stderr


def test_a_server_that_is_away_is_reported_and_the_shell_goes_on(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as away:
        away.kill()
        result = command("-c", away.url, "--timeout", "2", "shell", stdin="size\nhelp size\n")
    assert result.exit_code == 4 and "connection refused" in result.stderr and "Usage:" in result.stdout


# ---- on a terminal


PATIENT = (
    "from kvzmq.cli import editing; from kvzmq.cli.commands import shell; "
    "editing._COMPLETION_S = shell._GREETING_S = 60.0; "
)
"""Has a person's shell wait for a busy machine: it gives up a greeting and a completion after a second."""


def shell(url: str, home: Path, columns: int = 80) -> Terminal:
    return Terminal("-c", url, "shell", home=home, columns=columns, prelude=PATIENT)


@pytest.fixture
def terminal(server: ServerProcess, table: kvzmq.Client, tmp_path: Path) -> Iterator[Terminal]:
    running = shell(server.url, tmp_path)
    running.wait_for(r"Ctrl-D to leave.*\d+ rows, revision \d+.*> ".replace(".*", r"(?s:.*)"))
    yield running
    running.close()


def test_the_prompt_names_the_server_and_values_are_typed(terminal: Terminal, server: ServerProcess) -> None:
    terminal.type("insert a hello\n")
    terminal.wait_for(r"OK \(revision \d+\)")
    terminal.type("lookup a\n")
    terminal.wait_for(f'"hello"\r\n{server.url}> ')


def test_tab_completes_commands_options_and_keys(terminal: Terminal, table: kvzmq.Client) -> None:
    table.insert_many({"robots/one": 1, "robots/two words": 2})
    terminal.type("loo\trobots/o\t\n")
    terminal.wait_for(r"lookup robots/one ?\r\n(?s:.*)1\r\n")
    terminal.type('lookup "robots/t\t\n')
    terminal.wait_for(r"2\r\n(?s:.*)> ")
    terminal.type("watch --from\t\x15size\n")
    terminal.wait_for("--from-revision ")
    terminal.wait_for("2\r\n")


def test_an_open_bracket_asks_for_more_and_ctrl_c_forgets_it(terminal: Terminal, table: kvzmq.Client) -> None:
    terminal.type('insert a {"x":\n')
    terminal.wait_for(r"\r\n *\.\.\. ")
    terminal.type("1}\n")
    terminal.wait_for("OK")
    assert table.lookup("a") == {"x": 1}
    terminal.type('insert b {"x":\n')
    terminal.wait_for(r"\.\.\. ")
    terminal.interrupt("> ")
    terminal.type("size\n")
    terminal.wait_for(r"size\r\n(?s:.*)1\r\n")


def test_ctrl_c_ends_a_watch_and_not_the_shell(terminal: Terminal, table: kvzmq.Client) -> None:
    since = table.revision
    terminal.type(f"watch --from-revision {since}\n")
    table.insert("seen", 1)
    terminal.wait_for(r"set\s+seen\s+1")
    terminal.type("\x03")
    terminal.wait_for("> ")
    terminal.type("size\n")
    terminal.wait_for("1\r\n")


def test_ctrl_d_leaves_and_the_history_is_kept(terminal: Terminal, server: ServerProcess, tmp_path: Path) -> None:
    terminal.type('insert a {"x":\n')
    terminal.wait_for(r"\.\.\. ")
    terminal.type("1}\n")
    terminal.wait_for("OK(?s:.*)> ")
    terminal.type("\x04")
    assert terminal.wait_for_exit() == 0
    history = tmp_path / "kvzmq" / "history"
    assert history.read_text() == 'insert a {"x": 1}\n'
    assert history.stat().st_mode & 0o077 == 0
    again = shell(server.url, tmp_path)
    try:
        again.wait_for("rows(?s:.*)> ")
        again.type("\x1b[A\n")  # the arrow up
        again.wait_for(r'insert a \{"x": 1\}\r\n(?s:.*)OK')
    finally:
        again.close()


def test_it_opens_without_a_server_and_says_so(tmp_path: Path) -> None:
    alone = Terminal("-c", "tcp://127.0.0.1:1", "--timeout", "2", "shell", home=tmp_path)
    try:
        alone.wait_for("connection refused(?s:.*)> ")
        alone.type("loo\tx\n")
        alone.wait_for("lookup x(?s:.*)cannot reach(?s:.*)> ")
    finally:
        alone.close()


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_items_on_a_terminal_are_a_table_that_fits(
    server: ServerProcess, table: kvzmq.Client, tmp_path: Path, columns: int
) -> None:
    table.insert_many({"zebra": {"weight": 100, "name": "fred"}, "\x1b[2J": "evil"})
    narrow = shell(server.url, tmp_path, columns)
    try:
        narrow.wait_for("rows(?s:.*)> ")
        narrow.type("items\n")
        shown = narrow.wait_for("2 rows")
    finally:
        narrow.close()
    lines = re.sub("\x1b\\[[0-9;]*m", "", shown.split("items\r\n")[1]).splitlines()
    assert max(map(len, lines)) <= columns and "\x1b[2J" not in shown and "\\u001b[" in shown


def test_sigterm_ends_it(terminal: Terminal) -> None:
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.wait_for_exit() == -signal.SIGTERM


def test_a_pipe_leaves_no_history(server: ServerProcess, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["-c", server.url, "shell"], input="size\n", env={"KVZMQ_HISTORY": str(tmp_path / "h")}
    )
    assert result.exit_code == 0 and not (tmp_path / "h").exists()
