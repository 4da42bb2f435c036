"""A server that is killed, again and again, while clients write.

What `kill -9` cannot show: the page cache outlives the process, so a server that never synced
would pass everything here. That acknowledged changes are on the disk is the business of
`test_process_power_loss.py`; here it is the order of things: logged before executed, executed
before answered, whole requests, retries recognised, and no state in which a restart goes wrong.
"""

from __future__ import annotations

import json
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.servers import PATIENCE_S, ServerProcess, wait_until
from support.workload import Workload, read_rows

Count = Callable[[str, int], None]


def test_kill_9_under_load_loses_nothing_and_repeats_nothing(tmp_path: Path, full: bool, count: Count) -> None:
    """Guarantees 1, 2, 5. After each restart every client's rows are the acknowledged ones, plus some
    of its unanswered requests in order, each whole; then these are sent again under their numbers and
    get the results of exactly one execution. One cycle in five is also killed while it recovers, one
    in five commits each request alone.

    Seen red with: replies sent before the log is written; retries not recognised; kept results not in
    the checkpoint.
    """
    cycles = 1000 if full else 40
    chance = random.Random(1)
    load = Workload(clients=4, depth=3, seed=1)
    executed_unheard = 0
    compacting = ["--compact-after", "150"]
    sealed = tmp_path / "data" / "table.txn.sealed"
    with ServerProcess(tmp_path / "data", *compacting) as server:
        for cycle in range(cycles):
            load.connect(server.url)
            load.run(chance.uniform(0.005, 0.12))
            # Or longer, where a busy machine has not yet answered what was sent again.
            wait_until(lambda cycle=cycle: (load.run(0.002), load.repeated >= cycle)[1], what="replies")  # type: ignore[misc]
            if cycle % 10 == 9:  # who is killed before any compaction is done has a log that only grows
                wait_until(lambda: (load.run(0.02), not sealed.exists())[1], what="the end of a compaction")
            server.kill()
            load.hang_up()
            if chance.random() < 0.2:
                server.launch()
                time.sleep(chance.uniform(0.05, 0.25))  # not a wait: where the next kill falls
                server.kill()
            server.options = [*compacting, *(["--no-group-commit"] if chance.random() < 0.2 else [])]
            server.start()
            executed_unheard += load.judge(read_rows(server.url))
        load.connect(server.url)
        load.settle()
        assert load.judge(read_rows(server.url)) == 0
        load.close()
        assert "damage" not in server.stderr
    count("cycles of kill -9 under load", cycles)
    count("requests acknowledged, 0 lost, 0 wrong", load.done)
    count("requests executed whose reply the kill took, each of them once", executed_unheard)
    count("requests sent again", load.repeated)
    assert executed_unheard and load.repeated > cycles


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_is_quick_and_clean(number: signal.Signals, tmp_path: Path, full: bool, count: Count) -> None:
    """SIGTERM and Ctrl-C, also while a compaction runs: exit 0, no warning, nothing lost, no torn tail."""
    cycles = 200 if full else 10
    chance = random.Random(2)
    load = Workload(clients=4, depth=3, seed=3)
    slowest_s = 0.0
    with ServerProcess(tmp_path / "data", "--compact-after", "100", "--log-level", "warning") as server:
        for _ in range(cycles):
            load.connect(server.url)
            load.run(chance.uniform(0.005, 0.15))
            began_s = time.monotonic()
            server.signal(number)
            wait_until(lambda: (load.run(0.01), not server.running)[1], what="the end of the server")
            assert server.wait_for_exit() == 0, server.stderr
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            load.hang_up()
            server.start()
            load.judge(read_rows(server.url))
        assert server.stderr == ""
        assert not list((tmp_path / "data").glob("table.txn.torn*"))
    load.close()
    count(f"stops by {number.name} under load, 0 lost; the slowest took {slowest_s * 1000:.0f} ms", cycles)
    assert slowest_s < PATIENCE_S / 2


def test_a_retry_over_the_bridge_takes_effect_once_across_a_kill(tmp_path: Path, full: bool, count: Count) -> None:
    """Guarantee 5 for clients of the course's dialect that send session and seq: every line is sent twice,
    with a kill between, and counts once.

    Seen red with: retries not recognised.
    """
    cycles = 100 if full else 8
    chance = random.Random(6)
    session = chance.randbytes(16).hex()
    unheard = 0

    def ask(line: dict[str, object], patience_s: float = PATIENCE_S) -> dict[str, Any] | None:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as sock:
            sock.sendall(json.dumps(line).encode() + b"\n")
            sock.settimeout(patience_s)
            try:
                with sock.makefile("rb") as replies:
                    reply: dict[str, Any] = json.loads(replies.readline())
                    return reply
            except TimeoutError:
                return None

    with ServerProcess(tmp_path / "data", "--compact-after", "5", bridge=True) as server:
        assert (ask({"method": "open", "session": session, "seq": 1}) or {}).get("status") == "OK"
        for number in range(1, cycles + 1):
            line = {"method": "increment", "key": "n", "session": session, "seq": number + 1}
            unheard += ask(line, chance.choice([0.0005, 0.002, PATIENCE_S])) is None
            server.restart()
            assert ask(line) == ask(line) == {"status": "OK", "result": number}
    count(f"retries over the bridge across kills, {unheard} without a first reply, each counted once", cycles)
