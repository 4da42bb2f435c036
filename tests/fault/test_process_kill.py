"""A server that is killed, again and again, while clients write.

What `kill -9` cannot show: the page cache outlives the process, so a server that never synced
would pass everything here. That acknowledged changes are on the disk is the business of
`test_process_power_loss.py`; here it is the order of things: logged before executed, executed
before answered, whole requests, retries recognised, and no state in which a restart goes wrong.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from servers import ServerProcess
from workload import Workload, read_rows

Count = Callable[[str, int], None]


def test_kill_9_under_load_loses_nothing_and_repeats_nothing(tmp_path: Path, full: bool, count: Count) -> None:
    """Guarantees 1, 2, 5. After each restart every client's rows are the acknowledged ones, plus some
    of its unanswered requests in order, each whole; then these are sent again under their numbers and
    get the results of exactly one execution. One cycle in five is also killed while it recovers.

    Seen red with: replies sent before the log is written; retries not recognised; kept results not in
    the checkpoint.
    """
    cycles = 1000 if full else 40
    chance = random.Random(1)
    load = Workload(clients=4, depth=3, seed=1)
    executed_unheard = 0
    with ServerProcess(tmp_path / "data", "--compact-after", "150") as server:
        for _ in range(cycles):
            load.connect(server.url)
            load.run(chance.uniform(0.005, 0.12))
            server.kill()
            load.drain()
            if chance.random() < 0.2:
                server.launch()
                time.sleep(chance.uniform(0.05, 0.25))  # not a wait: where the next kill falls
                server.kill()
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
