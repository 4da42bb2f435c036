"""Writes with a time to live, removal by prefix, and the commands' other names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from support.commands import command
from support.servers import ServerProcess
from support.terminals import Terminal

import kvzmq
from kvzmq.cli import ALIASES
from kvzmq.cli.arguments import duration_s


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("table") / "data") as running:
        yield running


@pytest.fixture
def table(server: ServerProcess) -> Iterator[kvzmq.Client]:
    with kvzmq.connect(server.url) as client:
        client.clear()
        yield client


@pytest.fixture
def run(server: ServerProcess) -> Any:
    def invoke(*arguments: object, code: int = 0, stdin: str | None = None) -> Result:
        result = command("-c", server.url, *arguments, stdin=stdin)
        assert result.exit_code == code, result.output
        return result

    return invoke


def lives_s(table: kvzmq.Client, key: str) -> float | None:
    return table.ttl(key)


# ---- times to live


@pytest.mark.parametrize(
    "text, seconds",
    [("10s", 10), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("90", 90), ("1.5h", 5400), (".5", 0.5), ("5M", 300),
     ("", None), ("m", None), ("5 m", None), ("5w", None), ("-5", None), ("1h30m", None), ("inf", None)],
)  # fmt: skip
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float | None) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["0", "0m", "soon", "11y", "-5", "4000d"])
def test_what_is_no_time_to_live_is_refused(run: Any, table: kvzmq.Client, text: str) -> None:
    run("insert", "k", 1, f"--ttl={text}", code=2)
    assert "k" not in table


def test_every_write_of_a_value_takes_a_time_to_live(run: Any, table: kvzmq.Client) -> None:
    run("insert", "a", 1, "--ttl", "5m")
    assert run("setdefault", "b", 2, "--ttl", "5m").stdout == "2\n"
    assert run("incr", "c", 3, "--ttl", "5m").stdout == "3\n"
    run("cas", "d", 4, "--absent", "--ttl", "5m")
    run("ttl", "a", "10m")
    assert dict(table.items()) == {"a": 1, "b": 2, "c": 3, "d": 4}
    left = {key: lives_s(table, key) for key in "abcd"}
    assert all(life is not None and (300 if key == "a" else 0) < life <= 600 for key, life in left.items()), left


def test_incr_sets_the_time_to_live_anew_and_keeps_it_without(run: Any, table: kvzmq.Client) -> None:
    run("incr", "n", "--ttl", "1h")
    assert run("incr", "n", "--ttl", "5m").stdout == "2\n"
    life = lives_s(table, "n")
    assert life is not None and life <= 300
    run("incr", "n")
    assert lives_s(table, "n") is not None
    table.insert("s", "x")
    run("incr", "s", "--ttl", "5m", code=1)
    assert lives_s(table, "s") is None, "nothing of it was applied"


def test_setdefault_leaves_alone_what_is_there(run: Any, table: kvzmq.Client) -> None:
    table.insert("k", "old")
    assert run("setdefault", "k", "new", "--ttl", "5m").stdout == "old\n"
    assert lives_s(table, "k") is None


def test_cas_with_a_time_to_live_changes_only_what_is_expected(run: Any, table: kvzmq.Client) -> None:
    run("cas", "lock", "mine", "--absent", "--ttl", "5m")
    run("cas", "lock", "yours", "--absent", "--ttl", "5m", code=1)
    run("cas", "lock", "yours", "--expected", "other", "--ttl", "5m", code=1)
    assert table["lock"] == "mine"
    run("cas", "lock", "yours", "--expected", "mine", "--ttl", "10m")
    assert table["lock"] == "yours" and (lives_s(table, "lock") or 0) > 300
    run("cas", "lock", "--expected", "yours", "--remove", "--ttl", "5m", code=2)


# ---- remove --prefix


def test_remove_by_prefix_needs_yes_where_nobody_can_be_asked(run: Any, table: kvzmq.Client) -> None:
    table.insert_many({f"old/{n:05}": n for n in range(2500)} | {"new": 1})
    assert "--yes" in run("remove", "--prefix", "old/", code=2).stderr
    assert table.size() == 2501
    result = run("remove", "--prefix", "old/", "--yes", "--json")
    assert json.loads(result.stdout)["removed"] == 2500
    assert dict(table.items()) == {"new": 1}
    result = run("remove", "--prefix", "old/", "--yes")
    assert (result.stdout, result.stderr) == ("", "0 rows removed\n")
    run("remove", code=2)
    run("remove", "new", "--prefix", "n", code=2)
    run("remove", "--prefix", "", "--yes")
    assert table.size() == 0


def test_remove_by_prefix_asks_on_a_terminal(server: ServerProcess, table: kvzmq.Client, tmp_path: Path) -> None:
    table.insert_many({"a/1": 1, "a/2": 2, "b": 3})
    for answer, code, left in (("n", 1, 3), ("y", 0, 1)):
        terminal = Terminal("-c", server.url, "remove", "--prefix", "a/", home=tmp_path)
        try:
            terminal.wait_for(r"Remove 2 rows whose key begins with 'a/' from tcp://\S+? \[y/N\]: ")
            terminal.type(answer + "\n")
            assert terminal.wait_for_exit() == code, terminal.seen
            assert ("2 rows removed" in terminal.seen) == (answer == "y")
        finally:
            terminal.close()
        assert table.size() == left


# ---- other names


def test_the_other_names_are_the_same_commands(run: Any, table: kvzmq.Client) -> None:
    run("set", "k", "1")
    assert run("increment", "k").stdout == run("get", "k").stdout == "2\n"
    run("compare-and-set", "k", "3", "--expected", "2")
    run("del", "k")
    assert run("shell", stdin="SET k 5\nincrement k\nget k\ndel k\nsize\n").stdout == "6\n6\n0\n"
    assert "Usage: main insert " in run("set", "--help").stdout


def test_the_other_names_read_the_same_environment(server: ServerProcess, table: kvzmq.Client) -> None:
    result = command("-c", server.url, "set", "k", "1", KVZMQ_INSERT_TTL="5m")
    assert result.exit_code == 0 and lives_s(table, "k") is not None


def test_help_names_them(run: Any) -> None:
    for shown in (run("--help").stdout, run("shell", stdin="help\n").stdout):
        assert all(f"{alias} = {name}" in " ".join(shown.split()) for alias, name in ALIASES.items())
