"""Options from a file: precedence, what is wrong in one, and the settings that are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from kvzmq.cli import config, main
from kvzmq.cli.config import ConfigurableCommand, read_again


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kvzmq.toml"


def printed(*arguments: object, environment: dict[str, str] | None = None) -> Result:
    words = ["server", *map(str, arguments), "--print-config"]
    return CliRunner().invoke(main, words, env=environment, prog_name="kvzmq")


def lines(result: Result) -> dict[str, str]:
    """Return what was printed, by key: the rest of the line."""
    assert result.exit_code == 0, result.output
    return dict(line.removeprefix("# ").split(" = ", 1) for line in result.stdout.splitlines() if " = " in line)


# ---- precedence


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(path: Path) -> None:
    """Seen red with: the file's values put into the environment."""
    path.write_text('data = "file"\nproject = "file"\nowner = "file"\n')
    environment = {"KVZMQ_DATA": "environment", "KVZMQ_PROJECT": "environment"}
    found = lines(printed("--config", path, "--data", "typed", environment=environment))
    assert found["data"] == '"typed"  # option --data'
    assert found["project"] == '"environment"  # environment KVZMQ_PROJECT'
    assert found["owner"] == f'"file"  # file {path}'
    assert found["request-max"] == '"1M"  # default'


def test_the_environment_may_name_the_file(path: Path) -> None:
    path.write_text('log-level = "error"\n')
    assert lines(printed(environment={"KVZMQ_CONFIG": str(path)}))["log-level"] == f'"error"  # file {path}'


def test_a_server_takes_what_the_file_says(path: Path) -> None:
    """Through the options' own types, as if it had been typed."""
    path.write_text(
        'tcp = 5571\ncompact-after = 1000\nbind = ["tcp://127.0.0.1:1", "ipc:///x"]\ngroup-commit = false\n'
    )
    command = main.get_command(click.Context(main), "server")
    assert command is not None
    with command.make_context("server", ["--config", str(path)]) as ctx:
        assert ctx.params["tcp"] == ("127.0.0.1", 5571)
        assert ctx.params["compact_after"] == ("records", 1000)
        assert ctx.params["binds"] == ("tcp://127.0.0.1:1", "ipc:///x")
        assert ctx.params["group_commit"] is False


# ---- every option


SERVER = main.get_command(click.Context(main), "server")
assert SERVER is not None
OPTIONS = [param for param in SERVER.params if isinstance(param, click.Option)]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.name))
def test_every_option_of_the_server_is_a_variable_and_a_key(option: click.Option) -> None:
    """Options that are added later, too; --print-config alone is neither."""
    key = max(option.opts, key=len).removeprefix("--")
    if key == "print-config":
        return
    variable = key.upper().replace("-", "_")
    assert option.envvar in (f"KVZMQ_{variable}", f"KVZMQ_SERVER_{variable}")
    assert (key in lines(printed())) == (key != "config")


@click.command(cls=ConfigurableCommand, headings={"Log": ("log",)})
@click.option("--token-file", type=click.Path(path_type=Path), envvar="KVZMQ_TOKEN_FILE", help="A secret.")
@click.option("--insecure", is_flag=True, envvar="KVZMQ_INSECURE")
@click.option("--wait", "wait_s", type=float, default=2.5, envvar="KVZMQ_WAIT")
@click.option("--log", type=click.Choice(["a", "b"]), default="a", envvar="KVZMQ_LOG")
@click.option("--peer", "peers", multiple=True, envvar="KVZMQ_PEER")
def another(**options: Any) -> None:
    """Do nothing."""
    click.echo(repr(sorted(options.items())))


def test_an_option_that_is_added_is_a_key_without_further_ado(path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("do not print this")
    path.write_text(f'token-file = "{secret}"\ninsecure = true\nwait = 1\npeer = "one"\n')
    done = CliRunner().invoke(another, ["--config", str(path)])
    assert done.exit_code == 0, done.output
    assert done.stdout == repr(
        [("insecure", True), ("log", "a"), ("peers", ("one",)), ("token_file", secret), ("wait_s", 1.0)]
    ) + "\n"  # fmt: skip
    shown = CliRunner().invoke(another, ["--config", str(path), "--print-config"]).stdout
    assert f'token-file = "{secret}"' in shown and "do not print this" not in shown


def test_options_without_a_heading_stand_last_in_the_help() -> None:
    shown = CliRunner().invoke(another, ["--help"]).stdout
    assert shown.index("Log:") < shown.index("--log ") < shown.index("Options:") < shown.index("--token-file")
    for flag in ("--config", "--print-config", "--insecure", "--help"):
        assert sum(flag in line.split() for line in shown.splitlines()) == 1


# ---- what is printed can be read


def test_what_is_printed_is_a_file_that_says_the_same(path: Path) -> None:
    """Seen red with: values printed as the options' types have made them."""
    typed = ["--data", 'a "b" \\ \u00fc\x7f\n', "--bind", "tcp://127.0.0.1:0", "--bind", "ipc:///x y", "--tcp", "9",
             "--compact-after", "64M", "--no-group-commit", "--must-exist"]  # fmt: skip
    first = printed(*typed, environment={"KVZMQ_LOG_FORMAT": "json"})
    path.write_text(first.stdout)
    again = printed("--config", path)

    def values(result: Result) -> dict[str, str]:
        return {key: rest.rpartition("  # ")[0] for key, rest in lines(result).items()}

    assert values(again) == values(first)
    assert values(again)["tcp"] == '"9"' and values(again)["group-commit"] == "false"
    sources = {rest.rpartition("# ")[2] for rest in lines(again).values()}
    assert sources == {f"file {path}", "not set"}


def test_a_list_from_the_environment_is_printed_as_one() -> None:
    found = lines(printed(environment={"KVZMQ_BIND": "tcp://127.0.0.1:1 tcp://127.0.0.1:2"}))
    assert found["bind"] == '["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]  # environment KVZMQ_BIND'


# ---- what is wrong


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('log-levle = "info"', "no option is called 'log-levle'; did you mean 'log-level'?"),
        ("compact_after = 5", "no option is called 'compact_after'; did you mean 'compact-after'?"),
        ("no-group-commit = true", "no option is called 'no-group-commit'; did you mean 'group-commit'?"),
        ("quux = 5", "no option is called 'quux'"),
        ("[server]", "[server] is a table; options stand at the top, without one"),
        ('config = "x"', "config cannot be set in a file"),
        ('log-level = "loud"', "log-level: 'loud' is not one of 'debug', 'info', 'warning', 'error'."),
        ("log-level = 3", "log-level: 3 where a string is wanted"),
        ("data = true", "data: true where a string is wanted"),
        ('data = ["a"]', "data: an array where a string is wanted"),
        ('must-exist = "yes"', 'must-exist: "yes" where true or false is wanted'),
        ("must-exist = 1", "must-exist: 1 where true or false is wanted"),
        ("bind = [[]]", "bind: an array where a string or a number, or an array of them, is wanted"),
        ('bind = ["nowhere"]', "bind: 'nowhere' is not an endpoint: use tcp://HOST:PORT or ipc:///PATH"),
        ("tcp = 70000", "tcp: '70000': there is no port 70000, the highest is 65535"),
        ("compact-after = 2024-01-01", "compact-after: 2024-01-01 where a string or a number is wanted"),
        ("data = ", "not TOML: "),
        ("data = 'a'\ndata = 'b'", "not TOML: "),
        ("a = " + "[" * 100_000, "not TOML: too deep"),
        ("#" * (config.CONFIG_BYTES_MAX + 1), f"longer than {config.CONFIG_BYTES_MAX} bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_file_and_key_and_what_is_right(path: Path, text: str, says: str) -> None:
    path.write_text(text)
    result = printed("--config", path)
    assert result.exit_code == 2 and result.stdout == ""
    assert f"Error: {path}: {says}" in result.stderr and "Traceback" not in result.stderr


def test_a_file_that_cannot_be_read_is_named(path: Path) -> None:
    assert f"Error: {path}: No such file or directory" in printed("--config", path).stderr
    path.write_bytes(b'data = "\xff"')
    assert f"Error: {path}: not UTF-8 at byte 8" in printed("--config", path).stderr
    path.unlink()
    path.mkdir()
    assert f"Error: {path}: Is a directory" in printed("--config", path).stderr


# ---- reading again


def test_reading_again_tells_what_is_not_as_it_was(path: Path) -> None:
    """What the command line says stays, whatever the file says. Seen red with: the command line left out."""
    path.write_text('log = "b"\nwait = 1\ntoken-file = "a"\n')
    with another.make_context("another", ["--config", str(path), "--wait", "7"]) as ctx:
        assert read_again(ctx) == {}
        path.write_text('wait = 3\ninsecure = true\ntoken-file = "a"\n')
        assert read_again(ctx) == {"log": "a", "insecure": True}
        path.write_text("wiat = 3\n")
        with pytest.raises(config.BadConfig, match=r"kvzmq.toml: no option is called 'wiat'; did you mean 'wait'\?"):
            read_again(ctx)


def test_without_a_file_there_is_nothing_to_read_again() -> None:
    with another.make_context("another", ["--wait", "7"]) as ctx:
        assert read_again(ctx) == {}
