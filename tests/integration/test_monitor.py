"""Monitors and the slow log of a real server: both clients, the command line, restarts, rights."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import command
from support.servers import KVZMQ, PATIENCE_S, ServerProcess, line_of, take_ctrl_c, wait_until
from support.terminals import Terminal

import kvzmq


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("monitor") / "data"
    with ServerProcess(directory, "--slow-log-ms", "0.001", bridge=True) as running:
        yield running


@pytest.fixture
def table(server: ServerProcess) -> Iterator[kvzmq.Client]:
    with kvzmq.connect(server.url) as client:
        client.ping()
        yield client


def process(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*KVZMQ, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=take_ctrl_c
    )


@contextlib.contextmanager
def inserting(table: kvzmq.Client) -> Iterator[None]:
    """Insert now and then: of what a busy server answers, a monitor may miss something."""
    ended = threading.Event()

    def insert() -> None:
        while not ended.wait(0.05):
            table.insert("a", 1)

    thread = threading.Thread(target=insert)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(PATIENCE_S)


# ---- the clients


def test_both_clients_offer_the_same(server: ServerProcess, table: kvzmq.Client) -> None:
    with table.monitor(op="insert", prefix="both/") as requests:
        table.insert("both/a", 1)
        table.insert("other", 1)
        table.lookup("both/a")
        with table.pipeline() as batch:
            batch.insert("both/b", 1)
            batch.insert("both/c", 1)
        first, second = requests.get(PATIENCE_S), next(requests)
        assert [op.key for op in first.operations] == ["both/a"] and second.operation_count == 2
        assert (requests.connections, requests.dropped) == (1, 0)
        with pytest.raises(kvzmq.Timeout, match="no request within"):
            requests.get(0.05)
    with pytest.raises(ValueError, match="the monitor is closed"):
        requests.get(0)
    assert list(requests) == []

    async def use() -> list[Any]:
        async with kvzmq.connect_async(server.url) as other:
            async with other.monitor(op="insert", prefix="both/") as told:
                await other.insert("both/a", 1)
                await other.insert("other", 1)
                await other.insert("both/b", 1)
                found = [await told.get(PATIENCE_S), await told.get(PATIENCE_S)]
                with pytest.raises(kvzmq.Timeout):
                    await told.get(0.05)
            return [*found, await other.slow_requests(2)]

    one, two, slow = asyncio.run(use())
    assert [one.operations[0].key, two.operations[0].key] == ["both/a", "both/b"]
    assert len(slow) == 2 and slow[0].took_s >= slow[1].took_s
    assert table.slow_requests(1)[0].took_s >= slow[0].took_s


def test_a_namespace_monitors_its_own_keys(table: kvzmq.Client) -> None:
    with table.namespace("space/").monitor() as requests:
        table.insert("outside", 1)
        table.insert("space/inside", 1)
        assert requests.get(PATIENCE_S).operations[0].key == "space/inside"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"op": "nonsense"}, kvzmq.InvalidRequest), ({"sample": 0}, kvzmq.InvalidRequest),
        ({"slower_than_s": -1.0}, kvzmq.InvalidRequest), ({"slower_than_s": "1"}, TypeError),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(
    table: kvzmq.Client, arguments: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        table.monitor(**arguments)


def test_a_monitor_goes_on_after_a_restart_and_says_so(tmp_path: Path) -> None:
    """Seen red with a new connection that does not ask again."""
    with ServerProcess(tmp_path / "data") as server, kvzmq.connect(server.url) as table:
        table.insert("a", 1)
        with table.monitor(op="insert") as requests:
            table.insert("before", 1)
            assert requests.get(PATIENCE_S).operations[0].key == "before"
            server.kill()
            server.start()

            def has_come_back() -> bool:
                with contextlib.suppress(kvzmq.Timeout):
                    requests.get(0.05)
                return requests.connections == 2

            wait_until(has_come_back)
            table.insert("after", 1)
            assert requests.get(PATIENCE_S).operations[0].key == "after"
            assert requests.connections == 2


def test_a_monitor_of_another_table_ends_with_a_clear_word(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server, kvzmq.connect(server.url) as table:
        table.insert("a", 1)
        with table.monitor() as requests:
            server.kill()
            for path in sorted((tmp_path / "data").iterdir()):
                path.unlink()
            server.start()
            with pytest.raises(kvzmq.TableChanged, match="requests to it are not those that were monitored"):
                while True:
                    requests.get(PATIENCE_S)


def test_a_stopped_monitor_disturbs_nobody_and_loses_what_it_missed(server: ServerProcess, table: kvzmq.Client) -> None:
    """A process that is stopped reads nothing and gives no heartbeat: 50,000 requests go by."""
    follower = monitoring(server, table, "--op", "increment", "--json")
    assert follower.stdout is not None
    table.increment("n")
    assert json.loads(line_of(follower))["operations"] == [{"name": "increment", "key": "n"}]
    os.kill(follower.pid, signal.SIGSTOP)
    before = table.stats()["resident_bytes"]
    for _ in range(10):
        with table.pipeline() as batch:
            for _ in range(5000):
                batch.increment("n")
    assert table.lookup("n") == 50_001
    assert table.stats()["resident_bytes"] - before < 32 << 20
    os.kill(follower.pid, signal.SIGCONT)
    follower.send_signal(signal.SIGINT)
    assert follower.wait(PATIENCE_S) == 130
    follower.stdout.close()
    wait_until(lambda: table.stats()["monitors"] == 0)


# ---- the command line


def monitoring(server: ServerProcess, table: kvzmq.Client, *options: str) -> subprocess.Popen[bytes]:
    """Start `kvzmq monitor`; when this returns the server has begun it."""
    wait_until(lambda: table.stats()["monitors"] == 0)  # those of earlier tests are noticed to have gone
    follower = process("-c", server.url, "monitor", *options)
    wait_until(lambda: table.stats()["monitors"] == 1)
    return follower


def test_monitor_prints_lines_with_tabs_and_stops_after_so_many(server: ServerProcess, table: kvzmq.Client) -> None:
    follower = monitoring(server, table, "--prefix", "cli/", "--count", "3")
    table.insert("cli/a", 1)
    with pytest.raises(KeyError):
        table.lookup("cli/ghost")
    table.insert_many({"cli/b\t": 1, "cli/c": 2})
    out, err = follower.communicate(timeout=PATIENCE_S)
    assert (follower.returncode, err) == (0, b"")
    rows = [line.split("\t") for line in out.decode().splitlines()]
    assert [row[3:6] for row in rows] == [
        ["insert", "cli/a", "OK"], ["lookup", "cli/ghost", "NoSuchKey"], ["insert_many", '"cli/b\\t"', "OK"],
    ]  # fmt: skip
    for row in rows:
        assert len(row) == 13 and row[0].endswith("Z") and row[2].startswith("zmq:")
        assert int(row[1]) > 0 and int(row[6]) > 0 and all(float(seconds) >= 0 for seconds in row[9:])


def test_monitor_prints_json_with_every_field(server: ServerProcess, table: kvzmq.Client) -> None:
    follower = monitoring(server, table, "--op", "insert", "--json", "-n", "1")
    table.insert("json", 1)
    out, _ = follower.communicate(timeout=PATIENCE_S)
    found = json.loads(out)
    assert found.keys() == {*kvzmq.MonitoredRequest.__struct_fields__, "error", "took_s"}
    assert found["operations"] == [{"name": "insert", "key": "json"}] and found["error"] == ""


def test_monitor_writes_at_once_and_ends_with_ctrl_c_without_a_word(server: ServerProcess, table: kvzmq.Client) -> None:
    follower = monitoring(server, table, "--op", "insert", "--sample", "2")
    with inserting(table):
        assert b"\tinsert\ta\tOK\t" in line_of(follower)
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=PATIENCE_S)
    assert (follower.returncode, err) == (130, b"")
    wait_until(lambda: table.stats()["monitors"] == 0)


def test_monitor_ends_when_its_reader_has_gone(server: ServerProcess, table: kvzmq.Client) -> None:
    follower = monitoring(server, table, "--op", "insert")
    assert follower.stdout is not None and follower.stderr is not None
    with inserting(table):
        line_of(follower)
        follower.stdout.close()
        assert follower.wait(PATIENCE_S) == 141
    assert follower.stderr.read() == b""
    follower.stderr.close()


def test_monitor_of_an_unknown_operation_is_wrong_usage(server: ServerProcess) -> None:
    result = command("-c", server.url, "monitor", "--op", "nonsense")
    assert result.exit_code == 2 and "no operation 'nonsense'" in result.stderr


def test_monitor_and_slowlog_on_a_terminal_are_tables(
    server: ServerProcess, table: kvzmq.Client, tmp_path: Path
) -> None:
    terminal = Terminal("-c", server.url, "monitor", "--op", "insert", home=tmp_path, columns=140)
    try:
        terminal.wait_for(r"received.*took.*queued.*executed.*synced.*sent.*client.*operation.*key.*answer")
        table.insert("on a terminal\x1b[31m", 1)
        shown = terminal.wait_for(r"insert +on a terminal[^\n]* OK")
        assert "\x1b[31m" not in shown and "\\u001b" in shown
        terminal.type("\x03")
        terminal.wait_for(r"\^C")
    finally:
        terminal.close()
    terminal = Terminal("-c", server.url, "slowlog", "--limit", "3", home=tmp_path, columns=200)
    try:
        terminal.wait_for(r"received.*took.*reply(.|\n)* (us|ms|s) (.|\n)*3 slow requests")
    finally:
        terminal.close()


def test_slowlog_prints_the_slowest_first(server: ServerProcess, table: kvzmq.Client) -> None:
    table.insert("a", 1)
    found = [json.loads(line) for line in command("-c", server.url, "slowlog", "--json").stdout.splitlines()]
    times = [one["took_s"] for one in found]
    assert len(found) <= 20 and times == sorted(times, reverse=True)
    plain = command("-c", server.url, "slowlog", "--limit", 1).stdout.splitlines()
    assert len(plain) == 1 and len(plain[0].split("\t")) == 13


def test_a_server_that_is_told_so_keeps_no_slow_log(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--slow-log-ms", "0") as server:
        assert command("-c", server.url, "insert", "a", "1").exit_code == 0
        assert command("-c", server.url, "slowlog").stdout == ""
