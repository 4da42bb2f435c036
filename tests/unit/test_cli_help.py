"""What the command line says of itself, and what it makes of wrong usage."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from kvzmq.cli import command_names, main

NAMES = list(command_names())


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
