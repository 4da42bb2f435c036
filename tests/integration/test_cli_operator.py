"""What an operator sees: the server's log, `ping` when the disk is full, `stats`, the head of `kvzmq log`."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.commands import command
from support.disks import small_disk
from support.servers import PATIENCE_S, DidNotStart, ServerProcess, wait_until
from support.terminals import Terminal
from support.wire import WireClient

import kvzmq
from kvzmq import errors
from kvzmq.protocol.messages import Refusal
from kvzmq.server.journal import EVERY_S, LASTING_S, LOOK_S, Journal
from kvzmq.server.transport import Arrival
from kvzmq.units import count, duration, size


def said(server: ServerProcess) -> list[str]:
    """Return the lines of a server's log without their time: LEVEL text."""
    return [re.sub(r"^\S+ \S+ ", "", line) for line in server.stderr.splitlines()]


# ---- start and stop


def test_the_log_tells_of_start_and_stop(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ServerProcess(data, bridge=True) as server:
        with kvzmq.connect(server.url) as table:
            table.insert_many({"a": 1, "b": 2})
        assert server.terminate() == 0
        begin, *rest = said(server)
        told = (
            rf"INFO kvzmq \S+, process \d+, serves {re.escape(str(data))}: a new table; "
            r"lineage [0-9a-f]{32}, epoch [0-9a-f]{32}"
        )
        assert re.fullmatch(told, begin)
        assert rest[:2] == [f"INFO listening on {server.url}", f"INFO listening on port {server.port}"]
        assert re.fullmatch(r"INFO stopped by SIGTERM after \S+ s and \d+ requests", rest[-1])
        server.start()
        again = next(line for line in said(server)[len(rest) + 1 :] if "serves" in line)
        assert re.search(
            r": 2 rows, revision 2, recovered in \S+ s from \d requests in the log; "
            "lineage",
            again,
        )
        server.signal(signal.SIGINT)
        assert server.wait_for_exit() == 0 and "INFO stopped by Ctrl-C (SIGINT) after" in server.stderr


def test_a_relative_directory_is_told_as_it_is_found_again(tmp_path: Path) -> None:
    with ServerProcess(os.path.relpath(tmp_path / "data")) as server:
        assert f"serves {tmp_path / 'data'}: a new table" in server.stderr


def test_warnings_alone_are_said_when_asked_for(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--log-level", "warning") as server:
        assert server.terminate() == 0 and server.stderr == ""


# ---- what goes wrong, and on


def test_the_log_tells_when_storage_trouble_begins_and_ends_and_ping_says_so(tmp_path: Path) -> None:
    """A full disk left nothing in the log. Seen red with: no look at the store's trouble."""
    with small_disk(tmp_path / "disk", 640) as disk, ServerProcess(disk / "data") as server:
        ballast = disk / "ballast"
        with WireClient(server.url, session=None) as wire:
            assert wire.call("insert", "a", 1)[1] == (0, None)
            assert command("-c", server.url, "ping").exit_code == 0
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
                while True:
                    file.write(bytes(4096))
            wait_until(lambda: wire.call("insert", "fills", "x" * 60_000)[1][0] != 0, what="a full disk")
            for _ in range(20):
                assert wire.call("insert", "b", "x" * 60_000)[1][0] == errors.WriteRejected.code
            wait_until(lambda: "cannot write" in server.stderr, what="the log")
            result = command("-c", server.url, "ping")
            assert result.exit_code == 5 and result.stdout.startswith(server.url)
            assert result.stderr.startswith(
                "kvzmq: it answers, but its last write failed: the log could not be written: No space"
            )
            result = command("-c", server.url, "ping", "--json")
            assert result.exit_code == 5 and "No space left" in json.loads(result.stdout)["storage_trouble"]
            result = command("-c", server.url, "ping", "--explain")
            assert result.exit_code == 5 and "WRONG  but its last write failed: " in result.stdout
            ballast.unlink()
            assert wire.call("insert", "a", 2)[1] == (0, None)
            wait_until(lambda: "can write again" in server.stderr, what="the log")
            assert command("-c", server.url, "ping").exit_code == 0
            assert command("-c", server.url, "ping", "--explain").exit_code == 0
        text = server.stderr
        assert text.count("cannot write: ") == text.count("can write again, after ") == 1, (
            "once, however many were refused"
        )
        assert "ERROR cannot write: the log could not be written: No space left on device. Changes are refused" in text


def test_the_log_tells_of_compactions(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--compact-after", "20") as server:
        with kvzmq.connect(server.url) as table:
            for n in range(30):
                table.insert(f"k{n}", n)
        wait_until(lambda: "compaction done" in server.stderr, what="a compaction")
        begun = re.search(r"INFO compaction begins, (\d+) rows", server.stderr)
        done = re.search(r"INFO compaction done in \S+ s: a checkpoint of \S+ (bytes|KiB), (\d+) rows", server.stderr)
        assert begun and done and begun[1] == done[2] and int(begun[1]) >= 18


def test_the_log_tells_who_is_refused_and_does_not_grow_with_it(tmp_path: Path) -> None:
    """Seen red with: every refusal said."""
    began_s = time.monotonic()
    with ServerProcess(tmp_path / "data", bridge=True) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as peer:
            peer.sendall(b"nonsense\n" * 5000)
            answered = b""
            while answered.count(b"\n") < 5000:
                answered += peer.recv(1 << 16)
            address = "{}:{}".format(*peer.getsockname())
        wait_until(lambda: "refused" in server.stderr, what="the log")
        context: zmq.Context[Any] = zmq.Context.instance()
        with context.socket(zmq.DEALER) as sock:
            sock.linger = 0
            sock.connect(server.url)
            for _ in range(200):
                for _ in range(10):
                    sock.send(b"\xc1")
                for _ in range(10):
                    assert sock.poll(int(PATIENCE_S * 1000))
                    sock.recv()
        assert server.terminate() == 0
        lines = [line for line in said(server) if "refused" in line]
        assert (
            1 <= len(lines) <= 1 + (time.monotonic() - began_s) // EVERY_S
            and lines[0].startswith("WARNING refused ")
            and f"from tcp:{address}: not a line of JSON" in lines[0]
        )


class _Loud:
    """A transport whose counters a test sets."""

    def __init__(self) -> None:
        self.counts = {
            "tcp_connections_dropped_stalled": 0,
            "tcp_connections_accepted": 0,
            "router_replies_dropped_disconnected": 0,
        }

    def stats(self) -> dict[str, int]:
        return dict(self.counts)

    def name(self, peer: object) -> str:
        return f"peer-{peer}"


@pytest.fixture
def journal() -> Any:
    class Setting:
        def __init__(self) -> None:
            self.now_s = 0.0
            self.transport = _Loud()
            self.counts = {"steps": 0}
            self.journal = Journal([self.transport], lambda: dict(self.counts), lambda: self.now_s)  # type: ignore[list-item]

    return Setting()


def test_what_happens_often_is_said_now_and_then_with_its_number(
    journal: Any, caplog: pytest.LogCaptureFixture
) -> None:
    arrival = Arrival(journal.transport, 7, Refusal(None, errors.InvalidRequest.code, "no method 'x'"))
    for second in range(int(2 * EVERY_S)):
        journal.now_s = second + 0.5
        journal.transport.counts["tcp_connections_dropped_stalled"] += 3
        journal.transport.counts["tcp_connections_accepted"] += 1  # no trouble, and so is the next: it is not said
        journal.transport.counts["router_replies_dropped_disconnected"] += 1
        for _ in range(5):
            journal.journal.refused([arrival, arrival])
            assert journal.journal.look() == LOOK_S
    assert [record.getMessage() for record in caplog.records] == [
        "refused 2 requests, the latest from peer-7: no method 'x'",
        "clients in trouble: tcp_connections_dropped_stalled 3 more, 3 in all",
        "refused 600 requests, the latest from peer-7: no method 'x'",
        "clients in trouble: tcp_connections_dropped_stalled 180 more, 183 in all",
    ]


def test_trouble_that_comes_and_goes_with_each_change_is_not_a_line_each(
    journal: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that has room for short changes alone, and changes of both lengths; then one that stays full."""
    began, ended = "cannot write: full. Changes are refused, reads go on; every change tries again", "can write again"
    for tick in range(int(EVERY_S) * 2 * 10):
        journal.now_s = tick / 10
        journal.journal.trouble("not applied: full")
        journal.journal.look()
        journal.journal.trouble(None)
        journal.journal.look()
    said = [record.getMessage().partition(", after")[0] for record in caplog.records]
    assert said == [began, ended] * 2
    journal.journal.trouble("not applied: full")
    while len(caplog.records) == 4:
        journal.now_s += LOOK_S
        journal.journal.look()
    assert journal.now_s < EVERY_S * 2 + LASTING_S + 2 * LOOK_S, "what lasts is told soon"
    journal.journal.trouble(None)
    said = [record.getMessage().partition(", after")[0] for record in caplog.records]
    assert said == [began, ended] * 3


def test_debug_says_what_has_gone_on_since_it_last_looked(journal: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for tick in range(100):
        journal.counts["steps"] += 1
        if tick in (0, 50):
            journal.journal.look()
    assert [record.getMessage() for record in caplog.records] == ["steps +1", "steps +50"]
    journal.journal.look()
    journal.journal.look()
    assert len(caplog.records) == 3, "nothing is said of nothing"


def test_debug_tells_of_connections_and_sessions(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "data", "--log-level", "debug", bridge=True) as server,
        kvzmq.connect(server.url) as table,
    ):
        table.insert("a", 1)
        with socket.create_connection(("127.0.0.1", server.port)):
            wait_until(
                lambda: "tcp_connections_accepted +1" in server.stderr and "sessions +1" in server.stderr,
                what="the log",
            )


# ---- refusing to start


def test_must_exist_refuses_a_directory_without_a_table(tmp_path: Path) -> None:
    """An unmounted disk is not a new table. Seen red with: no such check."""
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        with pytest.raises(DidNotStart) as refused:
            ServerProcess(tmp_path / name, "--must-exist")
        assert refused.value.exit_code == 3 and f"{tmp_path / name} holds no table" in refused.value.stderr
    assert not (tmp_path / "missing").exists() and not list((tmp_path / "empty").iterdir())
    with ServerProcess(tmp_path / "table") as server:
        server.terminate()
        server.options.append("--must-exist")
        server.start()
        assert "0 rows, revision 0, recovered" in server.stderr


def test_what_keeps_a_server_from_starting_is_said_with_its_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options, binds in (([], [f"tcp://127.0.0.1:{port}"]), (["--tcp", f"127.0.0.1:{port}"], [])):
            with pytest.raises(DidNotStart) as refused:
                ServerProcess(tmp_path / "data", *options, binds=binds)
            assert (
                refused.value.exit_code == 3 and str(port) in refused.value.stderr and "in use" in refused.value.stderr
            )


# ---- Ctrl-C


@pytest.mark.parametrize("ignored", [True, False])
def test_a_server_started_with_sigint_ignored_leaves_it_so(tmp_path: Path, ignored: bool) -> None:
    """As a shell starts what goes on in the background of a script: Ctrl-C is for the script."""

    def before_exec() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)

    with ServerProcess(tmp_path / "data", preexec=before_exec) as server, kvzmq.connect(server.url) as table:
        server.signal(signal.SIGINT)
        if ignored:
            table.insert("a", 1)
            assert server.running and server.terminate() == 0
        else:
            assert server.wait_for_exit() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_once_after_it_listens_is_a_clean_stop(tmp_path: Path, number: signal.Signals) -> None:
    """Seen red with: it says that it listens, and takes signals after that."""
    with ServerProcess(tmp_path / "data", start=False) as server:
        for _ in range(10):
            server.start()
            server.signal(number)
            assert server.wait_for_exit() == 0


# ---- what people read, and what machines read


def test_units() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1_300_000, 5 << 30)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "1.2 MiB",
        "5.0 GiB",
    ]
    assert [duration(s) for s in (0, 0.25, 59.9, 60, 200, 3600, 7500, 86_400 * 3)] == [
        "0 s", "0.25 s", "59.9 s", "1 min", "3 min 20 s", "1 h", "2 h 5 min", "3 d",
    ]  # fmt: skip
    assert [count(n, "row") for n in (0, 1, 1234)] == ["0 rows", "1 row", "1,234 rows"]


def on_terminal(home: Path, *arguments: str, columns: int = 160) -> str:
    terminal = Terminal(*arguments, home=home, columns=columns)
    try:
        assert terminal.wait_for_exit() == 0
        return re.sub("\x1b\\[[0-9;]*m", "", terminal.seen)
    finally:
        terminal.close()


def test_stats_have_units_for_people_and_none_for_machines(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        shown = on_terminal(tmp_path, "-c", server.url, "stats")
        assert re.search(r"memory_bytes_max\s+\d+\.\d MiB", shown) and re.search(r"uptime_s\s+[\d.]+ s", shown)
        assert re.search(rf"pid\s+{server.pid}\b", shown)
        piped = dict(line.split("\t") for line in command("-c", server.url, "stats").stdout.splitlines())
        machine = json.loads(command("-c", server.url, "stats", "--json").stdout)
        assert int(piped["memory_bytes_max"]) == machine["memory_bytes_max"] and float(piped["uptime_s"]) > 0


def test_stats_come_in_groups(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        with WireClient(server.url, session=None) as wire:
            wire.call("insert", "zebra", 1)
            wire.call("lookup", "ghost")
        shown = on_terminal(tmp_path, "-c", server.url, "stats")
        headings = ["server", "table", "memory", "requests", "log", "compaction", "clients", "operation", "part"]
        assert all(re.search(rf"^ {name} ", shown, re.MULTILINE) for name in headings) and "other" not in shown
        assert re.search(r"insert\s+1\s", shown) and re.search(r"lookup\s+NoSuchKey\s+1\s", shown)
        piped = dict(line.split("\t") for line in command("-c", server.url, "stats").stdout.splitlines())
        assert piped["by_operation.insert.count"] == "1" and float(piped["disk.sync.max_s"]) > 0
        machine = json.loads(command("-c", server.url, "stats", "--json").stdout)
        assert len(machine["disk"]["sync"]["buckets"]) == len(machine["bounds"]["times_s"]) + 1


def test_clients_are_listed_and_kicked_by_name(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", bridge=True) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as bridge:
            bridge.sendall(b'{"method": "size"}\n')
            assert bridge.recv(1000)
            address = "{}:{}".format(*bridge.getsockname())
            lines = [line.split("\t") for line in command("-c", server.url, "clients").stdout.splitlines()]
            (line,) = [line for line in lines if line[1] == "bridge"]
            assert (line[0], line[2], line[4]) == (f"tcp:{address}", address, "1") and len(lines) == 2

            def shows_both(columns: int, *wanted: str) -> bool:
                """As soon as the server knows that the command before this one has gone."""
                shown = on_terminal(tmp_path, "-c", server.url, "clients", columns=columns)
                return "2 clients" in shown and all(re.search(pattern, shown) for pattern in wanted)

            wait_until(lambda: shows_both(200, rf"{address}\s+bridge"))
            left_out = "left out for want of room: transport"
            wait_until(lambda: shows_both(80, rf"tcp:{address} +{address} ", left_out))
            assert command("-c", server.url, "clients", "kick", f"tcp:{address}").exit_code == 0
            assert bridge.recv(1000) == b""
        gone = command("-c", server.url, "clients", "kick", f"tcp:{address}")
        assert gone.exit_code == 1 and f"no client 'tcp:{address}'" in gone.stderr
        assert command("-c", server.url, "clients", "kick").exit_code == 2
        assert "was kicked by zmq:" in server.stderr


def test_the_log_of_changes_has_a_header_on_a_terminal_and_none_in_a_pipe(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        with WireClient(server.url, session=None) as wire:
            wire.call("insert", "zebra", 1)
        server.terminate()
    head, *_, line = on_terminal(tmp_path, "log", str(tmp_path / "data"), "--values").splitlines()
    assert head.split() == ["time", "(UTC)", "group", "session", "client", "seq", "operation", "keys", "arguments"]
    assert all(
        head.index(name) <= line.index(text) < head.index(name) + 20
        for name, text in (("operation", "insert"), ("keys", "zebra"))
    )
    assert head.index("keys") == line.index("zebra")
    piped = command("log", str(tmp_path / "data")).stdout.splitlines()
    assert not piped[0].startswith("time") and piped[-1].split("\t")[4:] == ["insert", "zebra", "-"]


def test_a_catalog_without_a_project_is_refused_in_words(tmp_path: Path) -> None:
    refused = command("server", "--data", str(tmp_path / "data"), "--catalog", "127.0.0.1:9097")
    assert refused.exit_code == 2 and "--project" in refused.stderr


def test_a_start_that_failed_leaves_no_directory_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(DidNotStart):
        ServerProcess(tmp_path / "data", binds=[f"tcp://127.0.0.1:{taken.getsockname()[1]}"])
    assert not (tmp_path / "data").exists()


def test_a_refusal_that_had_waited_does_not_end_the_server(journal: Any) -> None:
    """Turned red by saying who was refused last where nobody of this step was: IndexError, and no server."""
    arrival = Arrival(journal.transport, 7, Refusal(None, errors.InvalidRequest.code, "no method 'x'"))
    journal.journal.refused([arrival])
    journal.journal.refused([arrival])  # held back
    journal.now_s = 2 * EVERY_S
    journal.journal.refused([])
