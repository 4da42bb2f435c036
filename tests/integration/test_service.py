"""A server as a service manager runs it: ready, alive, reloaded, stopped; its log as JSON; its trace rotated."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from support.servers import PATIENCE_S, ServerProcess, wait_until
from support.wire import NoReply, WireClient

from kvzmq.store.file.file_log import FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.store import Store
from kvzmq.tracing import trace

LOADERS = 8
WINDOW = 4


class Manager:
    """The service manager's end of sd_notify."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))

    def receive(self, timeout_s: float = PATIENCE_S) -> list[str]:
        """Return the lines of the next message.

        Raises:
            TimeoutError: none came in time
        """
        self.socket.settimeout(timeout_s)
        return self.socket.recv(65536).decode().split("\n")

    def until(self, line: str) -> list[str]:
        """Return the first message with that line."""
        deadline_s = time.monotonic() + PATIENCE_S
        while line not in (lines := self.receive()):  # a status comes now and then, whatever happens
            assert time.monotonic() < deadline_s, f"no {line}"
        return lines

    def forget(self) -> None:
        """Drop what has come."""
        with contextlib.suppress(TimeoutError, BlockingIOError):
            while True:
                self.receive(0)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.socket.close()


def logged(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.stderr.splitlines()]


def event(server: ServerProcess, name: str) -> dict[str, Any]:
    """Return the latest line of a log in JSON of that event, waiting for one."""
    wait_until(lambda: any(line["event"] == name for line in logged(server)), what=f"{name} in the log")
    return [line for line in logged(server) if line["event"] == name][-1]


# ---- sd_notify


def test_the_manager_hears_of_ready_reload_and_stop(tmp_path: Path, manager: Manager) -> None:
    """READY comes when a signal would be a clean stop, and not before."""
    with ServerProcess(tmp_path / "data", environment={"NOTIFY_SOCKET": str(manager.path)}) as server:
        ready = manager.receive()
        assert ready == ["READY=1", "STATUS=0 rows at revision 0, 0 connections"]
        server.signal(signal.SIGHUP)
        first = manager.until("RELOADING=1")
        assert first[1].removeprefix("MONOTONIC_USEC=").isdecimal()
        assert manager.receive()[0] == "READY=1"
        assert server.terminate() == 0
        assert "STATUS=stopping" in manager.until("STOPPING=1")


def test_the_watchdog_hears_of_a_loop_that_turns_and_nothing_of_one_that_hangs(
    tmp_path: Path, manager: Manager
) -> None:
    """The loop hangs in a write to a trace that nobody reads. Seen red with: a thread that feeds the watchdog."""
    fifo = tmp_path / "trace"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    with ServerProcess(tmp_path / "data", "--trace", str(fifo), environment=environment) as server:
        for _ in range(3):
            assert "WATCHDOG=1" in manager.receive()
        with WireClient(server.url, session=None) as wire:

            def is_silent() -> bool:
                """Ask until no reply comes, on a busy machine perhaps too soon, and listen for the time of 15 beats."""
                with contextlib.suppress(NoReply):
                    for n in range(10_000):
                        wire.call("insert", "k" * 100, n, timeout_s=1)
                manager.forget()
                try:
                    manager.receive(1.5)
                except TimeoutError:
                    return True
                return False

            wait_until(is_silent, what="silence")

        def beats_again() -> bool:
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 65536)
            with contextlib.suppress(TimeoutError):
                return "WATCHDOG=1" in manager.receive(0.05)
            return False

        wait_until(beats_again, what="a beat")
        assert server.terminate() == 0
    os.close(reader)


# ---- the log as JSON


def test_a_log_in_json_tells_of_start_compaction_refusal_and_stop(tmp_path: Path) -> None:
    data = tmp_path / "data"
    options = ("--log-format", "json", "--compact-after", "20")
    with ServerProcess(data, *options, bridge=True) as server:
        started = event(server, "started")
        assert started["directory"] == str(data) and started["level"] == "info" and started["revision"] == 0
        assert started["endpoints"] == [server.url, f"port {server.port}"] and started["recovery_s"] is None
        assert len(started["lineage"]) == len(started["epoch"]) == 32 and started["version"]
        wait_until(lambda: event(server, "listening")["endpoint"] == f"port {server.port}", what="both endpoints")
        with WireClient(server.url, session=None) as wire:
            for n in range(30):
                wire.call("insert", f"k{n}", n)
            wire.socket.send(b"\xc1")
            wire.receive()
        assert event(server, "requests_refused")["reason"]
        done, begun = event(server, "compaction_done"), event(server, "compaction_begun")
        assert begun["rows"] == done["rows"] >= 18 and begun["log_bytes"] > 0
        assert done["took_s"] > 0 and done["checkpoint_bytes"] > 0
        assert server.terminate() == 0
        stopped = event(server, "stopped")
        assert stopped["why"] == "SIGTERM" and stopped["uptime_s"] > 0 and stopped["requests"] >= 30
        server.start()
        again = event(server, "started")
        assert again["lineage"] == started["lineage"] and again["epoch"] != started["epoch"]
        assert (again["revision"], again["rows"]) == (30, 30) and again["recovery_s"] >= 0


def test_a_server_that_refuses_to_start_says_so_in_json(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--log-format", "json", "--must-exist", start=False) as server:
        server.launch()
        assert server.wait_for_exit() == 3
        refused = event(server, "refused_to_start")
        assert refused["level"] == "critical" and refused["exit_code"] == 3 and "no table" in refused["message"]


# ---- SIGHUP


def test_sighup_takes_log_settings_and_says_what_needs_a_restart(tmp_path: Path) -> None:
    config = tmp_path / "kvzmq.toml"
    config.write_text('log-level = "info"\n')
    with ServerProcess(tmp_path / "data", "--config", str(config), "--log-format", "text") as server:
        config.write_text('log-level = "debug"\nlog-format = "json"\nproject = "robots"\nrequest-max = "2M"\n')
        server.signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP: settings reloaded: log-level is debug\n" in server.stderr, what="a reload")
        assert "SIGHUP: a restart is needed to change project, request-max\n" in server.stderr
        with WireClient(server.url, session=None) as wire:
            wait_until(lambda: (wire.call("insert", "a", 1), " DEBUG " in server.stderr)[1], what="a line at debug")
        assert server.terminate() == 0


def refused_for(server: ServerProcess, reason: str) -> bool:
    return any(line["event"] == "reload_failed" and reason in line["reason"] for line in logged(server))


def test_a_broken_file_leaves_the_settings_as_they_were(tmp_path: Path) -> None:
    """Seen red with: a broken file taken for an unchanged one."""
    config = tmp_path / "kvzmq.toml"
    config.write_text('log-level = "info"\nlog-format = "json"\n')
    with ServerProcess(tmp_path / "data", "--config", str(config)) as server:
        for broken, reason in (
            ('log-level = "error"\nlog-fromat = "text"\n', "did you mean 'log-format'?"),
            ('log-level = "error"\nlog-format = \n', "not TOML"),
        ):
            config.write_text(broken)
            server.signal(signal.SIGHUP)
            wait_until(functools.partial(refused_for, server, reason), what="the refusal")
            failed = event(server, "reload_failed")
            assert str(config) in failed["reason"] and failed["level"] == "error"
        config.write_text('log-level = "info"\nlog-format = "json"\n')
        server.signal(signal.SIGHUP)
        assert event(server, "reloaded")["message"] == "SIGHUP: nothing to reload has changed"
        config.write_text('log-format = "text"\n')
        server.signal(signal.SIGHUP)
        wait_until(lambda: "settings reloaded: log-format is text" in server.stderr, what="the new format")
        assert server.terminate() == 0 and " INFO stopped by SIGTERM" in server.stderr


def test_a_sighup_that_was_ignored_stays_so(tmp_path: Path) -> None:
    """As nohup does."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with ServerProcess(tmp_path / "data", preexec=ignore) as server:
        server.signal(signal.SIGHUP)
        assert server.terminate() == 0 and "SIGHUP" not in server.stderr


def catches(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal, proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def test_a_sighup_before_the_server_serves_is_taken_when_it_does(tmp_path: Path) -> None:
    """Held in the opening of a trace, as in a long recovery. Seen red with: the signal's default, which ends it."""
    fifo = tmp_path / "trace"
    os.mkfifo(fifo)
    with ServerProcess(tmp_path / "data", "--trace", str(fifo), start=False) as server:
        server.launch()
        wait_until(lambda: catches(server.pid, signal.SIGHUP) or not server.running, what="a handler of SIGHUP")
        server.signal(signal.SIGHUP)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        server.wait_until_listening()
        wait_until(lambda: "SIGHUP: trace reloaded" in server.stderr, what="the reload")
        os.close(reader)
        assert server.terminate() == 0


def test_a_trace_into_a_pipe_that_nobody_reads_does_not_hold_a_reload_up(tmp_path: Path) -> None:
    """Seen red with: a file opened as usual."""
    fifo = tmp_path / "trace"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with ServerProcess(tmp_path / "data", "--trace", str(fifo)) as server:
        os.close(reader)
        server.signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP: trace not reloaded" in server.stderr, what="the refusal")
        with WireClient(server.url, session=None) as wire:
            assert wire.call("insert", "a", 1)[1] == (0, None)
        assert server.terminate() == 0


def test_a_trace_that_is_rotated_loses_no_line(tmp_path: Path) -> None:
    """As logrotate does: rename, SIGHUP. Seen red with: not reopened, and reopened from the beginning."""
    path, rotated = tmp_path / "trace", tmp_path / "trace.1"
    with ServerProcess(tmp_path / "data", "--trace", str(path)) as server:
        with WireClient(server.url, session=None) as wire:
            for n in range(10):
                wire.call("insert", f"a{n}", n)
            path.rename(rotated)
            wire.call("insert", "before", 1)
            server.signal(signal.SIGHUP)
            wait_until(lambda: f"SIGHUP: trace reloaded: goes on in {path}" in server.stderr, what="a reload")
            for n in range(10):
                wire.call("insert", f"b{n}", n)
            server.signal(signal.SIGHUP)  # without a rotation nothing is cut off
            wait_until(lambda: server.stderr.count("trace reloaded") == 2, what="a reload")
            path.rename(tmp_path / "trace.2")
            path.mkdir()
            server.signal(signal.SIGHUP)
            wait_until(lambda: "SIGHUP: trace not reloaded, what it was stays: " in server.stderr, what="a refusal")
            wire.call("insert", "last", 1)
        assert server.terminate() == 0
    keys = [
        [line.key for text in file.read_text().splitlines() if (line := trace.parse(text)) is not None]
        for file in (rotated, tmp_path / "trace.2")
    ]
    assert keys[0] == [*(f'"a{n}"' for n in range(10)), '"before"']
    assert keys[1] == [*(f'"b{n}"' for n in range(10)), '"last"']


# ---- SIGTERM


class Loader(threading.Thread):
    """Inserts numbers under a key of its own, a window of them at a time, and notes the last that was acknowledged."""

    def __init__(self, url: str, key: str, first: int) -> None:
        super().__init__(daemon=True)
        self.key = key
        self.acknowledged = first - 1
        self._first = first
        self._url = url
        self.ending = threading.Event()
        self.working = threading.Event()

    def run(self) -> None:
        with WireClient(self._url, session=None) as wire, wire.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED) as end:
            number = self._first
            while True:
                has_ended = self.ending.is_set() and end.poll(0)  # then what it has sent is there to be read
                while number - self.acknowledged <= WINDOW and not self.ending.is_set():
                    wire.socket.send(msgspec.msgpack.encode([None, number, [["insert", self.key, number]]]))
                    number += 1
                try:
                    reply = wire.receive(0.5)
                except NoReply:
                    if has_ended:
                        wire.socket.disable_monitor()
                        return
                    continue
                assert reply.seq == self.acknowledged + 1 and reply.results == [[0, None]], reply
                self.acknowledged = reply.seq
                self.working.set()


def time_of_anything_s(path: Path) -> float:
    """Return what a process that does nothing and a small write to the disk take on this machine now."""
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    with path.open("wb") as file:
        file.write(bytes(4096))
        os.fsync(file.fileno())
    return time.monotonic() - began_s


def test_sigterm_stops_within_a_second_under_load_and_delivers_the_last_replies(tmp_path: Path, count: Any) -> None:
    """What the table holds is what was acknowledged, to the last request of each of eight clients.

    The machine may be busy, so the median counts, and where anything takes long a stop may. Seen red with: a last
    step that does not flush the transports.
    """
    took_s, anything_s = [], []
    first = 1
    with ServerProcess(tmp_path / "data", "--log-level", "warning") as server:
        for _ in range(5):
            loaders = [Loader(server.url, f"k{number}", first) for number in range(LOADERS)]
            for loader in loaders:
                loader.start()
            assert all(loader.working.wait(PATIENCE_S) for loader in loaders)
            anything_s.append(time_of_anything_s(tmp_path / "file"))
            began_s = time.monotonic()
            assert server.terminate() == 0, server.stderr
            took_s.append(time.monotonic() - began_s)
            for loader in loaders:
                loader.ending.set()
            for loader in loaders:
                loader.join(PATIENCE_S)
                assert not loader.is_alive()
            store = Store(FileLog(DiskDirectory(tmp_path / "data")))
            store.recover()
            found = {key: msgspec.msgpack.decode(value) for key, value in store.table.rows.items()}
            store.close()
            assert found == {loader.key: loader.acknowledged for loader in loaders}
            first = max(loader.acknowledged for loader in loaders) + WINDOW + 1
            server.start()
    count(f"stops under load of {LOADERS} clients; the slowest took {max(took_s) * 1000:.0f} ms", len(took_s))
    assert statistics.median(took_s) < max(1.0, 10 * statistics.median(anything_s)), (took_s, anything_s)
