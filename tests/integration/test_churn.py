"""Hundreds of clients come and go in every way while steady ones must notice nothing."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import churner, servers
from support.servers import ServerProcess, wait_until
from support.wire import WireClient

pytestmark = pytest.mark.unmeasured  # the crowd would be a small one

CHURNERS = 8
DURATION_S = 8.0
DURATION_FULL_S = 30.0
DURATION_S_MAX = 600.0
CONNECTS_MIN = 500
"""It goes on until there were so many, however busy the machine is, but not for ever."""

CROWD_MIN = 200
"""And until so many were connected at once."""

RSS_GROWTH_BYTES_MAX = 64 << 20
"""What the server may have grown by: 32 MiB of history that watches go back in, the rest rows, results, buffers."""

GIVE_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "16384"}
"""Has glibc give back what is freed, so that the figure shows what the server holds. By itself glibc keeps what
the largest crowd took, for the next one: 300 MB after 30 s of the worst of these clients, of which malloc_trim
gave back all but 30.
"""

LATENCY_S_MAX = 60.0
"""The worst a steady client may see: on a busy machine one that stands still is told from a slow one by no less."""


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class Steady(threading.Thread):
    """A client that minds its own business and checks every answer."""

    def __init__(self, number: int, server: ServerProcess) -> None:
        super().__init__(name=f"steady client {number}", daemon=True)
        self.number = number
        self.server = server
        self.requests = 0
        self.worst_s = 0.0
        self.failure: BaseException | None = None
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            if self.number % 2:
                self.by_line()
            else:
                self.by_zmq()
        except BaseException as error:
            self.failure = error

    def timed(self, call: Callable[..., Any], *arguments: object, **fields: object) -> Any:
        began_s = time.perf_counter()
        answer = call(*arguments, **fields)
        self.worst_s = max(self.worst_s, time.perf_counter() - began_s)
        self.requests += 1
        return answer

    def by_zmq(self) -> None:
        with WireClient(self.server.url) as client:
            client.open()
            turn, revision = 0, 0
            while not self.stopping.is_set():
                key, turn = f"steady/{self.number}/{turn % 20}", turn + 1
                now, answer = self.timed(client.call, "insert", key, {"turn": turn})
                assert answer == (0, None) and now > revision
                revision, answer = self.timed(client.call, "lookup", key)
                assert answer == (0, {"turn": turn}) and revision >= now
                time.sleep(0.002)

    def by_line(self) -> None:
        with (
            socket.create_connection(("127.0.0.1", self.server.port), timeout=LATENCY_S_MAX) as sock,
            sock.makefile("rb") as replies,
        ):

            def call(**request: object) -> object:
                sock.sendall(json.dumps(request).encode() + b"\n")
                return json.loads(replies.readline())

            turn = 0
            while not self.stopping.is_set():
                key, turn = f"steady/{self.number}/{turn % 20}", turn + 1
                insert = self.timed(call, method="insert", key=key, value=[turn])
                assert insert == {"status": "OK", "result": None}
                lookup = self.timed(call, method="lookup", key=key)
                assert lookup == {"status": "OK", "result": [turn]}
                time.sleep(0.002)


class Churn:
    """The processes that come and go, and their counters."""

    def __init__(self, server: ServerProcess, counters: Path, dice: random.Random) -> None:
        self.server = server
        self.counters = counters
        self.dice = dice
        self.processes: list[subprocess.Popen[bytes]] = []
        self.slots = 0
        self.killed = 0
        self.stopped = 0
        counters.write_bytes(bytes(16 * 100_000))

    def add(self) -> None:
        arguments = [self.server.url, self.server.port, self.dice.randrange(1 << 30), self.counters, self.slots]
        self.slots += 1
        command = [sys.executable, "-m", churner.__name__, *map(str, arguments)]
        self.processes.append(
            subprocess.Popen(
                command, cwd=servers.TESTS, stderr=subprocess.DEVNULL, preexec_fn=servers.end_with_the_tests
            )
        )

    def disturb(self) -> None:
        """Kill one with all its clients, or stop one for a while, and start another."""
        victim = self.dice.randrange(len(self.processes))
        process = self.processes[victim]
        assert process.poll() is None, "a churner ended by itself"
        if self.dice.random() < 0.5:
            process.send_signal(signal.SIGSTOP)
            self.stopped += 1
            if self.dice.random() < 0.5 and len(self.processes) < 2 * CHURNERS:
                self.add()  # the stopped one stays, with its connections
            else:
                threading.Timer(1.0, process.send_signal, (signal.SIGCONT,)).start()
            return
        process.kill()
        process.wait()
        self.killed += 1
        del self.processes[victim]
        self.add()

    def end(self) -> tuple[int, int]:
        """Kill all; return how many connects and requests there were."""
        for process in self.processes:
            process.kill()
            process.wait()
        return self.counts()

    def counts(self) -> tuple[int, int]:
        """Return how many connects and requests there were."""
        numbers = struct.iter_unpack("<qq", self.counters.read_bytes()[: 16 * self.slots])
        connects, requests = map(sum, zip(*numbers))
        return connects, requests


def test_clients_that_come_and_go_in_every_way_are_not_noticed(
    tmp_path: Path, full: bool, count: Callable[[str, int], None]
) -> None:
    """Red when a reply to a peer that had gone raised; the bounds by themselves are proven by the unit tests."""
    with ServerProcess(tmp_path / "data", bridge=True, environment=GIVE_BACK) as server:
        with WireClient(server.url) as client:
            client.open()
            client.call("insert", churner.PAGE, "x" * 50_000)
            client.call("lookup", churner.PAGE)  # so that pyzmq has what it needs to follow large replies
            for number in range(200):
                client.call("insert", f"churn/{number}", {"n": 7, "pad": "x" * 2000})
            client.call("query", "n", 8)
            client.call("keys", "churn/")
        steady = [Steady(number, server) for number in range(4)]
        for thread in steady:
            thread.start()
        wait_until(lambda: all(thread.requests > 50 for thread in steady), what="the steady clients' start")
        rss_before, fds_before = resident_bytes(server.pid), descriptors(server.pid)
        churn = Churn(server, tmp_path / "counters", random.Random(5))
        for _ in range(CHURNERS):
            churn.add()
        fds_most = rss_most = 0
        began_s = time.monotonic()
        duration_s = DURATION_FULL_S if full else DURATION_S
        while (passed_s := time.monotonic() - began_s) < duration_s or (
            passed_s < DURATION_S_MAX and (churn.counts()[0] <= CONNECTS_MIN or fds_most - fds_before <= CROWD_MIN)
        ):
            time.sleep(0.25)
            churn.disturb()
            fds_most, rss_most = max(fds_most, descriptors(server.pid)), max(rss_most, resident_bytes(server.pid))
            assert server.running, server.stderr
            assert not any(thread.failure for thread in steady)
        connects, requests = churn.end()
        wait_until(
            lambda: descriptors(server.pid) <= fds_before,
            what=f"the descriptors' return from {fds_most} to {fds_before}",
        )
        for thread in steady:
            thread.stopping.set()
            thread.join(LATENCY_S_MAX)
            assert thread.failure is None and not thread.is_alive()
        with contextlib.suppress(AssertionError):  # said below, with the figures
            wait_until(lambda: resident_bytes(server.pid) - rss_before < RSS_GROWTH_BYTES_MAX)
        rss_after = resident_bytes(server.pid)
        with WireClient(server.url) as client:
            _, (_, stats) = client.call("stats")
        assert server.terminate() == 0
        assert "Traceback" not in server.stderr
    worst_s = max(thread.worst_s for thread in steady)
    count("connects", connects)
    count("requests of those who come and go", requests)
    count("processes killed with all their clients", churn.killed)
    count("processes stopped with all their clients", churn.stopped)
    count("most descriptors at once", fds_most)
    count("requests of steady clients", sum(thread.requests for thread in steady))
    count("worst latency of a steady client, us", int(worst_s * 1e6))
    count("RSS before, most, after, KiB", rss_before >> 10)
    count("", rss_most >> 10)
    count("", rss_after >> 10)
    count("replies dropped, the peer had disconnected", stats["router_replies_dropped_disconnected"])
    count("replies dropped, the peer did not read", stats["router_replies_dropped_backpressure"])
    assert connects > CONNECTS_MIN and fds_most - fds_before > CROWD_MIN
    assert worst_s < LATENCY_S_MAX
    assert rss_after - rss_before < RSS_GROWTH_BYTES_MAX
