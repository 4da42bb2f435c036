"""Processes that stand still, clocks that jump, and what a restart trusts of the page cache."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import linearizability
from support.servers import PATIENCE_S, ServerProcess, wait_until
from support.strace import read_calls, watch
from support.wire import WireClient
from support.workload import OK, Workload, read_rows

import kvzmq

Count = Callable[[str, int], None]

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


# ---- stopped processes


def test_a_stopped_server_loses_nothing_and_repeats_nothing(tmp_path: Path, full: bool, count: Count) -> None:
    """SIGSTOP and SIGCONT under load, in any state, for moments and for longer than ZeroMQ's heartbeat
    would bear if it were the server's: every request is answered once, rightly, in the end."""
    rounds = 500 if full else 40
    chance = random.Random(4)
    load = Workload(clients=3, depth=3, seed=30)
    with ServerProcess(tmp_path / "data", "--compact-after", "200") as server:
        load.connect(server.url)
        for number in range(rounds):
            load.run(chance.uniform(0, 0.03))
            server.signal(signal.SIGSTOP)
            load.run(chance.uniform(0, 0.03))
            if number % 10 == 9:
                load.connect(server.url)  # clients that lose patience and ask again, on new connections
            server.signal(signal.SIGCONT)
        load.settle()
        assert load.judge(read_rows(server.url)) == 0
    load.close()
    count("times a server was stopped, 0 lost, 0 wrong", rounds)


def test_a_client_that_outlives_a_stop_gets_its_answer(tmp_path: Path) -> None:
    """A write sent to a stopped server: OutcomeUnknown after the deadline, and its effect once, not twice."""
    with ServerProcess(tmp_path / "data") as server, kvzmq.connect(server.url) as table:
        assert table.increment("n") == 1
        server.signal(signal.SIGSTOP)
        with pytest.raises(kvzmq.OutcomeUnknown):
            table.increment("n", timeout=1.0)
        with pytest.raises(kvzmq.Timeout):
            table.lookup("n", timeout=1.0)
        server.signal(signal.SIGCONT)
        wait_until(lambda: table.lookup("n") == 2, what="the effect of the write")
        assert table.increment("n") == 3


def test_a_stopped_client_holds_nobody_up(tmp_path: Path, count: Count) -> None:
    """A client process stopped in the middle of its requests; the others' answers come as before."""
    with ServerProcess(tmp_path / "data") as server:
        command = [
            sys.executable,
            linearizability.__file__,
            "record",
            server.url,
            "3",
            str(tmp_path / "out"),
            "1",
            str(PATIENCE_S),
        ]
        with subprocess.Popen(command) as client:
            wait_until(lambda: read_rows(server.url), what="the client's first write")
            slowest_s = 0.0
            with WireClient(server.url, session=None) as wire:
                for _ in range(10):
                    client.send_signal(signal.SIGSTOP)
                    for number in range(20):
                        began_s = time.monotonic()
                        assert wire.call("insert", "other", number)[1] == (OK, None)
                        slowest_s = max(slowest_s, time.monotonic() - began_s)
                    client.send_signal(signal.SIGCONT)
            assert client.wait(2 * PATIENCE_S) == 0
        assert all(op.known for op in linearizability.load([tmp_path / "out"])), "the stopped client lost an answer"
        assert slowest_s < PATIENCE_S / 2, "as long as a call may take"
    count("slowest answer beside a stopped client, ms", int(slowest_s * 1000))


# ---- clocks


def faked(offset_file: Path) -> dict[str, str]:
    """Return the environment that gives a process the wall clock `offset_file` says, and the true monotonic one."""
    assert Path(FAKETIME).exists(), "libfaketime is missing: apt-get install faketime"
    return {
        "LD_PRELOAD": FAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(offset_file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def test_a_clock_that_jumps_never_runs_the_table_back(tmp_path: Path) -> None:
    """An hour forward: rows that were to live less have expired, others have not. An hour back: nothing
    comes back, nothing waits for an hour it has already had; time stands still until the clock has
    caught up. The same after a restart in the past.

    Seen red with: `advance` taking any time; the time not kept in the log.
    """
    offset = tmp_path / "offset"
    offset.write_text("+0")
    data = tmp_path / "data"
    with ServerProcess(data, environment=faked(offset)) as server, WireClient(server.url) as wire:
        began_s = time.monotonic()

        def ttl(key: str) -> Any:
            return wire.call("ttl", key)[1]

        def passed_s() -> float:
            """Return how long it is since the first row, on the true clock, and a second."""
            return time.monotonic() - began_s + 1

        for key, ttl_s in (("minutes", 600.0), ("hours", 7200.0)):
            assert wire.call("insert", key, 1, ttl_s)[1] == (OK, None)
        assert wire.call("insert", "always", 1)[1] == (OK, None)
        assert ttl("hours")[0] == OK and 7200 - passed_s() < ttl("hours")[1] <= 7200

        offset.write_text("+3600")
        wait_until(lambda: wire.call("size")[1] == (OK, 2), what="the expiry of the row with 10 minutes to live")
        assert 3600 - passed_s() < ttl("hours")[1] <= 3600
        revision, _ = wire.call("size")

        offset.write_text("+0")
        assert wire.call("insert", "new", 1, 1800.0)[1] == (OK, None)
        assert wire.call("size") == (revision + 1, (OK, 3))
        assert 3600 - passed_s() < ttl("hours")[1] <= 3600, "the clock ran back, and the row got its hour again"
        assert 1799 < ttl("new")[1] <= 1800

        server.restart()
        assert wire.call("size")[1] == (OK, 3)
        assert 3600 - passed_s() < ttl("hours")[1] <= 3600, "the restart forgot what time it had been"

        offset.write_text("-3600")
        assert wire.call("insert", "newer", 1)[1] == (OK, None)
        assert wire.call("size")[1] == (OK, 4)

        offset.write_text("+5500")  # 3600 + 1800 have passed
        wait_until(lambda: wire.call("size")[1] == (OK, 3), what="the expiry of the row with 30 minutes to live")
        server.restart()
        assert set(read_rows(server.url)) == {"hours", "always", "newer"}


def test_deadlines_of_clients_do_not_care_for_the_wall_clock(tmp_path: Path) -> None:
    """A server whose clock jumps every few milliseconds answers as ever."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    load = Workload(clients=2, depth=2, seed=40)
    with ServerProcess(tmp_path / "data", "--compact-after", "100", environment=faked(offset)) as server:
        load.connect(server.url)
        for number in range(60):
            offset.write_text(("+3600", "-3600", "+0")[number % 3])
            wait_until(lambda: load.run(0.01), what="a reply")
        load.settle()
        server.restart()
        assert load.judge(read_rows(server.url)) == 0
    load.close()


# ---- the page cache


def test_what_only_the_page_cache_held_is_written_and_synced_again(tmp_path: Path) -> None:
    """The last group of an unclean stop may be in the page cache alone, and a failed sync may have
    marked its pages as clean: so it is written again, and synced, before the server listens.

    Seen red with: recovery that does not write the tail, or does not sync it, or not the directory.
    """
    data, calls = tmp_path / "data", tmp_path / "calls"
    with ServerProcess(data) as server, WireClient(server.url) as wire:
        for number in range(5):
            assert wire.call("insert", f"k{number}", number)[1] == (OK, None)
        server.kill()
        tail = len((data / "table.txn").read_bytes().rstrip(b"\0"))  # without the blocks written ahead
        server.wrapper = watch(data, calls)
        server.start()
        made = read_calls(calls)
        offsets = [call.arguments for call in made if call.name == "pwrite64"]
        assert len(offsets) == 2, (made, "the last group, then the epoch of this start")
        length, offset = (int(part) for part in offsets[0].split(", ")[-2:])
        assert offset + length == tail, "not the last group"
        names = [call.name for call in made]
        assert "fdatasync" in names[names.index("pwrite64") :], "the tail was not synced after it was written"
        assert "fsync" in names, "the directory was not synced"
        assert read_rows(server.url) == {f"k{number}": number for number in range(5)}
