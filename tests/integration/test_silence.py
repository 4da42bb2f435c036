"""Peers that fall silent without a word: a stopped process, a vanished machine. Both sides notice within a promise."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cables
from support.servers import PATIENCE_S, ServerProcess, wait_until

import kvzmq
from kvzmq.protocol.limits import HEARTBEAT_S, SILENCE_S_MAX

pytestmark = pytest.mark.usefixtures("transport")

NOTICED_S = SILENCE_S_MAX + HEARTBEAT_S + PATIENCE_S
"""The promise, the longest time since the last sign before it, and what a busy machine may take. How long the promise
is exactly, tests with clocks of their own say; here that it is kept without a word from the other side.
"""

WATCHER = """
import sys, time, kvzmq
with kvzmq.connect(sys.argv[1], timeout=120) as table, table.watch("seen/") as watch:
    print("watching", flush=True)
    while True:
        try:
            print("event", watch.get(0.5).value, flush=True)
        except kvzmq.Timeout:
            print("connected" if watch._channel.connected else "lost", flush=True)
"""


class Lines:
    """What a process prints, with the time at which it came."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.seen: list[tuple[float, str]] = []
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.seen.append((time.monotonic(), line.strip()))

    def has(self, line: str, after_s: float = 0.0) -> bool:
        return any(came_s >= after_s and text == line for came_s, text in self.seen)


@contextlib.contextmanager
def watcher(url: str, *wrapper: str) -> Iterator[tuple[subprocess.Popen[str], Lines]]:
    process = subprocess.Popen([*wrapper, sys.executable, "-c", WATCHER, url], stdout=subprocess.PIPE, text=True)
    try:
        lines = Lines(process)
        wait_until(lambda: lines.has("watching"), what="the watch")
        yield process, lines
    finally:
        process.kill()
        process.wait()


def watches(url: str) -> int:
    with kvzmq.connect(url) as table:
        found: int = table.stats()["watches"]
        return found


def test_a_stopped_watcher_loses_its_watch_and_goes_on_when_it_is_continued(tmp_path: Path) -> None:
    """Seen red without the promise of heartbeats: the watch of a stopped process stayed for ever."""
    with ServerProcess(tmp_path / "data") as server, watcher(server.url) as (process, lines):
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda: watches(server.url) == 0, NOTICED_S, "the end of the watch")
        with kvzmq.connect(server.url) as table:
            table.insert("seen/1", 1)
        os.kill(process.pid, signal.SIGCONT)
        wait_until(lambda: lines.has("event 1"), what="the change made meanwhile")


def test_a_stopped_server_is_noticed_by_an_idle_watcher(tmp_path: Path) -> None:
    """Seen red without heartbeats: the watcher took the silence for a table in which nothing changes."""
    with ServerProcess(tmp_path / "data") as server, watcher(server.url) as (_, lines):
        os.kill(server.pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        try:
            wait_until(lambda: lines.has("lost", stopped_s), NOTICED_S, "the watcher's notice")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        with kvzmq.connect(server.url) as table:
            table.insert("seen/1", 1)
        wait_until(lambda: lines.has("event 1"), what="the change made after it")


@pytest.mark.xdist_group(cables.GROUP)
def test_a_machine_that_vanished_is_noticed_on_both_sides_and_found_again(tmp_path: Path) -> None:
    """No packet tells: the cable is unplugged. Both sides notice in time, and go on when it is back."""
    with (
        cables.cable() as line,
        ServerProcess(tmp_path / "data", "--insecure", binds=[f"tcp://{line.here}:0", "tcp://127.0.0.1:0"]) as server,
    ):
        there, here = server.urls
        with watcher(there, *line.run) as (_, lines):
            wait_until(lambda: watches(here) == 1, what="the watch")
            line.plug(False)
            cut_s = time.monotonic()
            wait_until(lambda: lines.has("lost", cut_s), NOTICED_S, "the watcher's notice")
            wait_until(lambda: watches(here) == 0, NOTICED_S, "the server's notice")
            with kvzmq.connect(here) as table:
                table.insert("seen/1", 1)
            line.plug(True)
            wait_until(lambda: lines.has("event 1"), what="the change made meanwhile")


def test_a_busy_watcher_whose_server_is_killed_reconnects(tmp_path: Path) -> None:
    """Seen red with libzmq's own heartbeats: the program was aborted, three times out of three."""
    program = """
import os, signal, sys, time, kvzmq
url, pid = sys.argv[1], int(sys.argv[2])
with kvzmq.connect(url, timeout=120) as table:
    watch = table.watch()
    for part in range(60):
        table.insert_many({f"k{number}": part for number in range(1000)})
    os.kill(pid, signal.SIGKILL)
    time.sleep(9)  # busy; longer than libzmq's heartbeats took
    try:
        while True:
            watch.get(5)
    except (kvzmq.Timeout, kvzmq.RevisionGone) as error:
        print(type(error).__name__, table.size())
"""
    with ServerProcess(tmp_path / "data") as server:
        child = subprocess.Popen(
            [sys.executable, "-c", program, server.url, str(server.pid)], stdout=subprocess.PIPE, text=True
        )
        try:
            server.wait_for_exit()
            server.start()
            said, _ = child.communicate(timeout=2 * PATIENCE_S)
        finally:
            child.kill()
            child.wait()
        assert child.returncode == 0, child.returncode
        assert said.split()[1:] == ["1000"]
