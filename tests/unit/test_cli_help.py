"""What the command line says of itself, and what it makes of wrong usage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from support.servers import KVZMQ, PATIENCE_S

import kvzmq
from kvzmq.cli import command_names, main

NAMES = list(command_names())

EVIL = "\x1b[2J\x9b31m\u202e\x07"
"""What clears a terminal, colours it, reverses its text, and rings."""


def test_help_fits_80_columns_and_names_every_command() -> None:
    shown = CliRunner().invoke(main, ["--help"], env={"COLUMNS": "80"}, terminal_width=80).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert all(f"\n  {name} " in shown for name in NAMES)
    assert [heading for heading in ("Server:", "Table:", "Storage:", "Names:", "Tools:") if heading in shown] == [
        "Server:", "Table:", "Storage:", "Names:", "Tools:",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_where_the_table_says_and_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0 and result.stdout.startswith(f"Usage: main {name}")


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_an_environment_variable(name: str) -> None:
    root = click.Context(main, auto_envvar_prefix="KVZMQ")
    command = main.get_command(root, name)
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option) and option.expose_value and option.name != "help":
            assert option.envvar, option.name


def test_an_options_variable_is_named_as_the_option_is() -> None:
    for name, flag, variable in (
        ("log", "--since", "KVZMQ_LOG_SINCE"),
        ("watch", "--from-revision", "KVZMQ_WATCH_FROM_REVISION"),
    ):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert [option.envvar for option in command.params if flag in option.opts] == [variable]


def test_help_loads_no_command() -> None:
    script = "import sys; from kvzmq.cli import main; main(['--help'], standalone_mode=False)"
    loaded = subprocess.run(
        [sys.executable, "-c", script + "; print(sorted(sys.modules), file=sys.stderr)"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stderr  # fmt: skip
    assert not any(
        f"'{name}'" in loaded
        for name in ("zmq", "rich", "msgspec", "kvzmq.cli.commands.read", "kvzmq.client.sync.client")
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["lookup"],
        ["insert", "a"],
        ["insert", "a", "1", "--ttl", "0"],
        ["insert", "a", "1e400"],
        ["insert", "a", "1", "--tll", "5"],
        ["cas", "a", "1"],
        ["cas", "a", "1", "--absent", "--expected", "2"],
        ["cas", "a", "--absent"],
        ["cas", "a", "1", "--remove", "--absent"],
        ["incr", "a", "x"],
        ["incr", "a", "--5"],
        ["ttl", "a", "5", "--forever"],
        ["watch", "a", "--query", "x", "y"],
        ["--timeout", "0", "size"],
        ["-c", "nonsense", "size"],
        ["-c", "http://127.0.0.1:80", "size"],
        ["size", "-c", "tcp://127.0.0.1"],
        ["check", "/no/such/directory"],
        ["check", "/tmp", "--output", "x"],
        ["export", "/no/such/directory"],
        ["import", "/no/such/file"],
        ["log", "/tmp", "--since", "yesterday"],
        ["log", "/tmp", "--operation", "lookup"],
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stdout == "" and "Error: " in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [EVIL], ["size", EVIL], ["size", f"--{EVIL}"], ["insert", "k", "{" + EVIL], ["lookup", "k", "--reads", EVIL],
        ["-c", EVIL, "ping"], ["-c", EVIL, "ping", "--explain"], ["size", "-c", f"tcp://{EVIL}:x"],
        ["-c", f"ipc:///no/{EVIL}", "--no-wait", "ping"], ["-c", f"ipc:///no/{EVIL}", "--timeout", "0.1", "size"],
        ["-c", f"ipc:///no/{EVIL}", "--timeout", "0.1", "ping", "--explain"],
        ["import", f"/no/{EVIL}"], ["trace", f"/no/{EVIL}"], ["check", f"/no/{EVIL}"], ["server", "--bind", EVIL],
    ],
)  # fmt: skip
def test_an_argument_that_is_told_again_cannot_move_the_terminals_cursor(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (2, 3, 4) and not isinstance(result.exception, (OSError, kvzmq.KvzmqError))
    assert "2J" in result.output and result.output.replace("\n", "").isprintable()


def test_the_shell_tells_an_argument_again_without_control_characters() -> None:
    typed = f"{EVIL}\nsize {EVIL}\nconnect {EVIL}\n'\n"
    result = CliRunner().invoke(main, ["-c", "tcp://127.0.0.1:1", "shell"], input=typed)
    assert result.exit_code == 2 and result.stderr.count("2J") >= 3
    assert result.output.replace("\n", "").isprintable()


@pytest.mark.parametrize("arguments", [["restore", "--data", "/no/such"], ["check"], ["dashboard", "--trace"]])
def test_a_pipe_is_not_waited_at_where_a_file_is_wanted(arguments: list[str], tmp_path: Path) -> None:
    """In a process of its own, which is ended if it does wait. Seen red with click's own type of paths."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = subprocess.run(
        [*KVZMQ, *arguments, str(pipe)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 2 and f"'{pipe}' is a pipe or a device: write what comes out" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--timeout", "abc", "size"], "'abc' is not a number of seconds above 0: 5, or 2.5"),
        (["size", "--timeout", "5s"], "'5s' is not a number of seconds above 0: 5, or 2.5"),
        (["--timeout", "nan", "size"], "'nan' is not a number of seconds above 0: 5, or 2.5"),
        (["size", "--timeout", "-1"], "'-1' is not a number of seconds above 0: 5, or 2.5"),
        (["catalog", "--lifetime", ""], "'' is not a number of seconds above 0: 5, or 2.5"),
        (["server", "--etcd-margin", "1e6"], "'1e6' is not a number of seconds from 0 to 86400: 5, or 2.5"),
        (["top", "--interval", "0"], "'0' is not a number of seconds from 0.1 to 3600: 5, or 2.5"),
        (["monitor", "--slower-than", "1ms"], "'1ms' is not a number of milliseconds from 0 on: 5, or 2.5"),
        (["server", "--slow-log-ms", "x"], "'x' is not a number of milliseconds from 0 on: 5, or 2.5"),
    ],
)
def test_what_is_no_time_is_told_the_unit_with_an_example(arguments: list[str], wanted: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and f": {wanted}\n" in result.stderr


def test_a_command_that_is_almost_one_is_suggested() -> None:
    for wrong, right in (("inser", "insert"), ("Lookup", "lookup"), ("incremen", "increment")):
        result = CliRunner().invoke(main, [wrong])
        assert result.exit_code == 2 and f"No such command '{wrong}'. Did you mean '{right}'?" in result.stderr
    assert "Did you mean" not in CliRunner().invoke(main, ["nonsense"]).stderr


def test_without_a_command_the_help_is_shown() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2 and "Table:" in result.stdout


@pytest.mark.parametrize("dialect", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands(dialect: str) -> None:
    words = {"COMP_WORDS": "kvzmq loo", "COMP_CWORD": "loo" if dialect == "fish" else "1"}
    result = CliRunner().invoke(main, [], prog_name="kvzmq", env={"_KVZMQ_COMPLETE": f"{dialect}_complete", **words})
    assert "lookup" in result.stdout and "size" not in result.stdout
    source = CliRunner().invoke(main, [], prog_name="kvzmq", env={"_KVZMQ_COMPLETE": f"{dialect}_source"})
    assert source.exit_code == 0 and "kvzmq" in source.stdout
