"""Power cuts, for real: a server under load on a file system whose state on the disk is kept and recovered.

Only what has left the page cache is in a clone of the disk's image, so this is the test of the
syncs. What was seen with faults planted:

    no fdatasync of the log            red on ext4 and on ext2
    no fdatasync of the checkpoint     red on both
    no fsync of the directory          red on ext2. Not on ext4, whose journal keeps renames in order and goes
                                       to the disk with every sync of the log: that is why ext2 is here
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.disks import CuttableDisk
from support.servers import ServerProcess, wait_until
from support.wire import WireClient
from support.workload import Workload, read_rows, recover_rows

Count = Callable[[str, int], None]


@pytest.mark.parametrize("kind", ["ext4", "ext2"])
def test_power_cuts_lose_nothing_acknowledged(kind: str, tmp_path: Path, full: bool, count: Count) -> None:
    """Guarantees 1, 2, 8. At a random moment, compactions running, the disk's state is kept while the load
    goes on. What it recovers to holds everything acknowledged before that moment, nothing that was
    never sent, and every request whole. Now and then a real server takes up the state.
    """
    rounds = 200 if full else 20
    chance = random.Random(7)
    load = Workload(clients=3, depth=2, seed=20)
    disk = CuttableDisk(kind, tmp_path)
    unheard = compactions = in_compaction = 0
    with disk.mounted() as path, ServerProcess(path / "data", "--compact-after", "120") as server:
        load.connect(server.url)
        load.run(0.05)
        for number in range(rounds):
            load.run(chance.uniform(0.0, 0.1))
            before = load.mark()
            clones: list[Path] = []
            thread = threading.Thread(target=lambda clones=clones: clones.append(disk.cut()))
            thread.start()
            while thread.is_alive():
                load.run(0.001)
            thread.join()
            with disk.after_the_cut(clones[0]) as cut:
                in_compaction += (cut / "data" / "table.txn.sealed").exists()
                if number % 10 == 9:
                    with ServerProcess(cut / "data") as other:
                        unheard += load.judge(read_rows(other.url), before)
                else:
                    unheard += load.judge(recover_rows(cut / "data")[0], before)
        with WireClient(server.url) as wire:

            def has_compacted() -> int:
                load.run(0.01)
                found: int = wire.call("stats")[1][1]["compactions"]
                return found

            wait_until(has_compacted, what="a compaction")
            compactions = has_compacted()
        load.settle()
        assert load.judge(read_rows(server.url)) == 0
    load.close()
    count(f"power cuts on {kind}, 0 lost, 0 wrong", rounds)
    count(f"of them with a sealed log, in {compactions} compactions", in_compaction)
    count("requests acknowledged", load.done)
