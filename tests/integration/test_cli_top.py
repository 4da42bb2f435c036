"""`kvzmq top` on a terminal with a screen, and once for scripts."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from support.commands import command
from support.screens import ScreenProcess
from support.servers import KVZMQ, PATIENCE_S, ServerProcess, wait_until

import kvzmq
from kvzmq import errors
from kvzmq.cli.top.gathering import Gathered
from kvzmq.client.asyncio.client import AsyncClient

FOOTER = r"^ q quit  h help"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("table") / "data", bridge=True) as running:
        yield running


@pytest.fixture(scope="module")
def load(server: ServerProcess) -> Iterator[None]:
    """Somebody who writes all the time, a little."""
    ended = threading.Event()

    def write() -> None:
        with kvzmq.connect(server.url) as table:
            for number in itertools.count():
                table.insert(f"robots/{number % 100}", number)
                if ended.wait(0.005):
                    return

    writer = threading.Thread(target=write)
    writer.start()
    yield
    ended.set()
    writer.join(PATIENCE_S)


def top(server: ServerProcess, *options: str, columns: int = 80, lines: int = 24, **environment: str) -> ScreenProcess:
    return ScreenProcess(
        [*KVZMQ, "-c", server.url, "top", "-i", "0.2", *options], columns, lines, environment=environment
    )


def number_after(name: str, rows: list[str]) -> float:
    """Return the first figure of a row, 0 if there is none: half of a picture may be another one's."""
    found = next((match for row in rows if (match := re.search(rf"^ {name} +([0-9.,]+)", row))), None)
    return float(found[1].replace(",", "")) if found is not None else 0.0


# ---- what is on the screen


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 60)])
def test_a_picture_has_all_its_parts(server: ServerProcess, load: None, columns: int, lines: int) -> None:
    with top(server, columns=columns, lines=lines) as screen:
        screen.wait_for(r"^ insert +[1-9]")
        screen.wait_for(r"[▁▂▃▄▅▆▇█]{3}")
        two = r"^ 2 clients +requests/s"  # the server has noticed that those of earlier tests are gone
        rows = screen.wait_until(
            lambda rows: (
                re.search(FOOTER, rows[-1])
                and number_after("insert", rows) > 0
                and any(re.search(two, row) for row in rows)
            ),
            "the end of a picture of a time with inserts",
        )
        assert server.url in rows[0] and len(rows) == lines and re.search(FOOTER, rows[-1])
        for part in ("requests", "changes/sync", "cpu", "step +receive", "operation +per s", r"2 clients +requests/s"):
            assert any(re.search(rf"^ {part}", row) for row in rows), part
        for part in ("latency p50", "latency p99", "sync p99", "logged"):
            assert any(re.search(rf" {part} ", row) for row in rows), part
        assert any(re.search(r"^ zmq:[0-9a-f]{8} .* 127\.0\.0\.1:\d+", row) for row in rows)
        assert any(re.search(r"\d rows, memory [0-9.]+ MiB, log .*, checkpoint", row) for row in rows)
        # One every 5 ms, as far as the machine lets it; those of two, if it did not let the first come in time.
        assert number_after("insert", rows) <= 400


def test_it_follows_the_terminals_size(server: ServerProcess, load: None) -> None:
    with top(server) as screen:
        screen.wait_for("insert")
        for columns, lines in ((120, 40), (80, 24), (200, 60)):
            screen.resize(columns, lines)
            rows = screen.wait_until(
                lambda rows: re.search(FOOTER, rows[-1]) and re.search(r"\d\d:\d\d:\d\d$", rows[0])
            )
            assert len(rows) == lines and sum(bool(re.search(FOOTER, row)) for row in rows) == 1
        screen.resize(50, 10)
        screen.wait_for("too small")
        screen.resize(80, 24)
        screen.wait_for("insert")


def test_keys_sort_filter_pause_and_explain(server: ServerProcess, load: None) -> None:
    with top(server) as screen:
        screen.wait_for("by requests/s")
        screen.press("s")
        screen.wait_for("by received/s")
        screen.press("o")
        screen.wait_for("by p99")
        screen.press("/inse")
        screen.wait_for("show only: inse_")
        screen.press("rt\r")
        screen.wait_for("only insert")
        screen.wait_until(
            lambda rows: (
                any(row.startswith(" insert") for row in rows) and not any(row.startswith(" stats") for row in rows)
            )
        )
        screen.press("\x1b")
        screen.wait_for("^ stats")
        screen.press("h")
        screen.wait_for("quit, as does Ctrl-C")
        screen.press("?+")
        screen.wait_for("every 0.25 s")


def test_a_paused_picture_stays_and_goes_on(server: ServerProcess, load: None) -> None:
    """Seen red with the figures drawn as they come."""
    with top(server) as screen:
        screen.wait_for(r"^ insert +[1-9]")

        def two_seconds_later() -> list[str]:
            clocks = set()

            def are_enough(rows: list[str]) -> bool:
                clocks.add(rows[0][-8:])  # it goes on, so there were further pictures
                return len(clocks) >= 3

            return list(screen.wait_until(are_enough))

        screen.press("p")
        screen.wait_for("PAUSED")
        paused = two_seconds_later()  # the picture whose first line said so is complete by then
        screen.press("s")
        screen.wait_for("by received/s")
        assert two_seconds_later()[1:8] == paused[1:8]
        screen.press("p")
        screen.wait_until(lambda rows: rows[1:8] != paused[1:8])


def test_without_characters_for_bars_it_draws_others(server: ServerProcess, load: None) -> None:
    with top(server, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii") as screen:
        screen.wait_for(r"^ insert .*[-_=+*#@.]{3}")
        assert screen.raw.isascii()


def test_no_colours_where_none_are_wanted(server: ServerProcess) -> None:
    with top(server, NO_COLOR="1") as screen:
        screen.wait_for("operation")
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", screen.raw)


def test_a_sample_shows_the_hottest_prefixes_and_ends_with_its_key(server: ServerProcess, load: None) -> None:
    """Seen red with a monitor that was left open."""
    # No sample ends by itself meanwhile, as it is to be thinner.
    lasting = "from kvzmq.cli.top import gathering; gathering.SAMPLE_CHOSEN_S = 3600.0; "
    command = [*KVZMQ[:-1], lasting + KVZMQ[-1], "-c", server.url, "top", "-i", "0.2"]
    with kvzmq.connect(server.url) as table, ScreenProcess(command) as screen:
        rows = screen.wait_for("^ insert")
        assert not any("prefix" in row for row in rows[:-1])
        wait_until(lambda: table.stats()["monitors"] == 0, what="the end of the samples of earlier tests")
        screen.press("m")
        screen.wait_for(r"^ robots/ +\d+%")
        wait_until(lambda: table.stats()["monitors"] == 1, what="the sample")
        screen.press("m")
        screen.wait_until(lambda rows: not any("hottest" in row for row in rows))
        wait_until(lambda: table.stats()["monitors"] == 0, what="the end of the sample")


def test_an_older_server_says_why_there_is_no_sample() -> None:
    async def ask() -> Gathered:
        gathered = Gathered("tcp://127.0.0.1:1")
        await gathered.sample(cast(AsyncClient, Older()), lambda: True)
        return gathered

    class Older:
        def monitor(self, **_: object) -> object:
            raise errors.InvalidMethod("there is no operation 'monitor'")

    assert "there is no operation" in asyncio.run(ask()).sampling_trouble


# ---- servers come and go


def test_a_server_that_dies_and_comes_back_is_told_of(tmp_path: Path) -> None:
    """Seen red with the error of the call let through."""
    with ServerProcess(tmp_path / "data") as own, top(own) as screen:
        screen.wait_for("operation")
        own.kill()
        screen.wait_for(r"no answer for \d+ s, still asking: connection refused")
        rows = screen.wait_for(r"no answer for ([2-9]|\d\d+) s")
        assert any("operation" in row for row in rows), "the last figures stay"
        screen.press("h")
        screen.wait_for("quit, as does Ctrl-C")
        screen.press("h")
        own.start()
        rows = screen.wait_until(lambda rows: not any("no answer" in row for row in rows))
        screen.wait_for(r"^ stats +[1-9]")
        screen.press("q")
        assert screen.wait_for_exit() == 0 and screen.is_given_back


def test_it_begins_before_the_server_does(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as own:
        own.kill()
        with top(own) as screen:
            screen.wait_for("connection refused")
            own.start()
            screen.wait_for("operation")


def test_what_is_wrong_is_said_in_words(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "data", preexec=few_descriptors) as own,
        top(own) as screen,
    ):
        clients = [kvzmq.connect(own.url) for _ in range(40)]
        for client in clients:
            client.ping()
        rows = screen.wait_for(r"! \d+ of \d+ descriptors are open")
        assert any("mend: raise LimitNOFILE" in row for row in rows)
        for client in clients:
            client.close()
        screen.wait_until(lambda rows: not any("descriptors" in row for row in rows))


def few_descriptors() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))


# ---- the terminal is given back


def test_a_key_or_ctrl_c_ends_it(server: ServerProcess) -> None:
    for key, code in (("q", 0), ("\x04", 0), ("\x03", 130)):
        with top(server) as screen:
            screen.wait_for("operation")
            screen.press(key)
            assert screen.wait_for_exit() == code and screen.is_given_back, repr(key)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_is_the_exit_status(server: ServerProcess, number: int) -> None:
    """Seen red without the handler: the terminal stayed on the alternate screen, without echo."""
    with top(server) as screen:
        screen.wait_for("operation")
        screen.signal(number)
        assert screen.wait_for_exit() == -number and screen.is_given_back


def test_a_bug_leaves_the_terminal_as_it_was(server: ServerProcess) -> None:
    broken = (
        "from kvzmq.cli.top import watching\n"
        "def fail(*_): raise ZeroDivisionError('planted')\n"
        "watching.picture = fail\n"
        "from kvzmq.cli import main; main(prog_name='kvzmq')"
    )
    with ScreenProcess([sys.executable, "-c", broken, "-c", server.url, "top"]) as screen:
        assert screen.wait_for_exit() == 1 and screen.is_given_back
        assert b"planted" in screen.raw[screen.raw.rfind(b"\x1b[?1049l") :]


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it(server: ServerProcess) -> None:
    with ScreenProcess(["bash", "--norc", "--noprofile", "-i"], environment={"PS1": "ready> "}) as shell:
        shell.wait_for("ready>$")
        shell.press(f"{sys.executable} -m kvzmq -c {server.url} top\n")
        shell.wait_for("operation")
        for _ in range(2):
            shell.press("\x1a")
            shell.wait_for("Stopped")
            assert shell.shows_what_was_before
            # The shell sets the terminal for its own line, so look at what a program of it finds.
            shell.press("stty -a | tr ';' '\\n'\n")
            shell.wait_for(r"(^|\s)icanon")
            shell.wait_for(r"(^|\s)echo(\s|$)")
            shell.press("clear; fg\n")
            shell.wait_for("operation")
        shell.press("q")
        shell.wait_for("ready>$")


# ---- without a terminal


def test_once_prints_the_figures_as_text(server: ServerProcess, load: None) -> None:

    def shows_inserts() -> bool:
        """Unless the machine was too busy for one."""
        result = command("-c", server.url, "top", "--once", "-i", "0.3")
        assert result.exit_code == 0 and result.stderr == "" and "\x1b" not in result.stdout
        assert server.url in result.stdout
        return re.search(r"^ insert +[1-9]", result.stdout, re.MULTILINE) is not None

    wait_until(shows_inserts)


def test_once_as_json_says_what_stats_says(server: ServerProcess, load: None) -> None:
    found: dict[str, Any] = {}
    before: dict[str, Any] = {}

    def has_inserts() -> bool:
        """Unless the machine was too busy for one."""
        before.update(table.stats())
        result = command("-c", server.url, "top", "--once", "--json", "-i", "0.5")
        assert result.exit_code == 0
        found.update(json.loads(result.stdout))
        return "insert" in before["by_operation"] and "insert" in found["rates"]["operations"]

    with kvzmq.connect(server.url) as table:
        wait_until(has_inserts)
        after = table.stats()
    assert set(found) == {"url", "server", "rates", "alarms"}
    assert before["revision"] < found["server"]["revision"] <= after["revision"]
    inserted = after["by_operation"]["insert"]["count"] - before["by_operation"]["insert"]["count"]
    rates = found["rates"]
    assert rates["span_s"] > 0.45 and rates["operations"]["insert"]["per_s"] * rates["span_s"] <= inserted + 1
    assert rates["changes_per_s"] > 0 and rates["sync"]["count"] > 0
    assert sum(rates["step_shares"].values()) == pytest.approx(1.0)
    assert {one["client"]["transport"] for one in rates["clients"]} == {"router"}


def test_once_with_a_sample_says_the_prefixes(server: ServerProcess, load: None) -> None:

    def has_the_prefix() -> bool:
        """Unless the machine was too busy for a request."""
        result = command("-c", server.url, "top", "--once", "--json", "--sample", "-i", "1")
        found = json.loads(result.stdout)["prefixes"]
        return bool(found) and found["robots/"] > 0.9

    wait_until(has_the_prefix)


def test_without_a_terminal_it_says_what_to_do(server: ServerProcess) -> None:
    for arguments, said in (((), "top --once"), (("--json",), "top --once --json")):
        result = command("-c", server.url, "top", *arguments)
        assert result.exit_code == 2 and said in result.stderr and result.stdout == ""
    with top(server, TERM="dumb") as screen:
        screen.wait_for("top --once")
        assert screen.wait_for_exit() == 2


def test_once_of_a_server_that_is_away_fails_and_says_why(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as away:
        away.kill()
        result = command("-c", away.url, "--timeout", "3", "top", "--once")
    assert result.exit_code == 4 and "connection refused" in result.stderr
