"""Several servers on one log in a real etcd cluster, killed again and again while clients write.

What one machine cannot show: its nodes share a disk and a clock, and `kill -9` leaves the page cache. That etcd syncs
before it answers is etcd's promise.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import linearizability
from support.etcd_cluster import EtcdCluster
from support.fleet import SETTLE_S, Fleet, spread
from support.linearizability import check, load
from support.servers import wait_until
from support.wire import WireClient
from support.workload import Workload

import kvzmq

Count = Callable[[str, int], None]

COMPACTING = ("--compact-after", "300", "--etcd-margin", "5")


def test_kill_9_of_servers_and_of_the_leader_loses_nothing_and_repeats_nothing(
    tmp_path: Path, full: bool, count: Count
) -> None:
    """Four clients on three servers. In each round a server or etcd's leader is killed under load; the clients of a
    killed server send what has no reply again, at another one. Then every server has what was acknowledged, each
    request whole and once.
    """
    rounds = 30 if full else 4
    chance = random.Random(1)
    work = Workload(clients=4, depth=3, seed=1)
    kills = {"server": 0, "leader": 0}
    with EtcdCluster(tmp_path / "etcd") as etcd, Fleet(tmp_path, etcd, "t", 3, *COMPACTING) as fleet:
        for number in range(rounds):
            spread(work, fleet.urls)
            work.run(chance.uniform(0.1, 0.6))
            # Or longer, where the machine is busy.
            wait_until(lambda number=number: (work.run(0.02), work.done > 50 * (number + 1))[1], what="replies")  # type: ignore[misc]
            what = "leader" if number % 2 else "server"
            kills[what] += 1
            if what == "server":
                victim = chance.choice(fleet.servers)
                victim.kill()
                work.hang_up()
                spread(work, fleet.urls)
                work.run(chance.uniform(0.05, 0.3))
                victim.start()
            else:
                leader = etcd.leader()
                leader.kill()
                work.run(chance.uniform(0.1, 0.4))
                etcd.leader()
                work.run(0.2)
                leader.start()
                etcd.wait_until_healthy()
            fleet.judge(work)
        work.close()
    count("rounds of kill -9 of a server or of etcd's leader under load", rounds)
    count("requests acknowledged on three servers, 0 lost, 0 wrong", work.done)
    count("requests refused, and not executed", work.refused)
    count("requests sent again, most at another server", work.repeated)
    assert work.done > 50 * rounds and work.repeated


def test_every_node_and_every_server_killed_at_once_come_back_with_everything(tmp_path: Path, count: Count) -> None:
    work = Workload(clients=3, depth=3, seed=2)
    with EtcdCluster(tmp_path / "etcd") as etcd, Fleet(tmp_path, etcd, "t", 2, *COMPACTING) as fleet:
        for kill_servers in (True, False):
            spread(work, fleet.urls)
            work.run(0.7)
            etcd.kill()
            if kill_servers:
                for server in fleet.servers:
                    server.kill()
                work.hang_up()
            etcd.start()
            for server in fleet.servers:
                if not server.running:
                    server.start()
            if kill_servers:
                spread(work, fleet.urls)
            fleet.judge(work)
        work.close()
    count("requests acknowledged through two deaths of the whole cluster, 0 lost", work.done)


def test_what_clients_of_three_servers_see_is_linearizable_through_kills(
    tmp_path: Path, full: bool, count: Count
) -> None:
    """Each client at a server of its own, on five keys; servers are killed or stopped, and etcd's leader is killed.

    Seen red with: a server that takes an earlier answer of etcd's for the present.
    """
    seconds = 120 if full else 15
    chance = random.Random(3)
    with EtcdCluster(tmp_path / "etcd") as etcd, Fleet(tmp_path, etcd, "t", 3, *COMPACTING) as fleet:
        files = [tmp_path / f"client-{number}" for number in range(3)]
        recorders = [
            subprocess.Popen(
                [sys.executable, linearizability.__file__, "record", server.url, str(seconds), str(file), str(number),
                 "1.0" if number % 2 else "5", "0" if number % 2 else "60"]
            )
            for number, (server, file) in enumerate(zip(fleet.servers, files))
        ]  # fmt: skip
        faults = 0
        try:
            end_s = time.monotonic() + seconds - 4
            while time.monotonic() < end_s:
                time.sleep(chance.uniform(0.3, 1.0))  # not a wait: where the fault falls
                server, kind = chance.choice(fleet.servers), chance.random()
                if kind < 0.5:
                    server.restart()
                elif kind < 0.8:
                    server.signal(signal.SIGSTOP)
                    time.sleep(chance.uniform(0.1, 1.0))
                    server.signal(signal.SIGCONT)
                else:
                    leader = etcd.leader()
                    leader.kill()
                    etcd.leader()
                    leader.start()
                    etcd.wait_until_healthy()
                faults += 1
            for recorder in recorders:
                assert recorder.wait(2 * SETTLE_S) == 0
        finally:
            for recorder in recorders:
                recorder.kill()
                recorder.wait()
        fleet.rows()
    history = load(files)
    known = check(history)
    count(
        f"operations of clients at three servers linearizable, {len(history) - known} of unknown outcome, through "
        f"{faults} kills and stops", known,
    )  # fmt: skip
    assert faults and known > 100


def test_a_server_that_was_stopped_answers_no_lookup_from_its_past(
    etcd_cluster: EtcdCluster, etcd_name: str, tmp_path: Path, full: bool, count: Count
) -> None:
    """The lookup is sent while the server is stopped, after a change at another one was acknowledged.

    Seen red with: an answer of etcd's from before the stop.
    """
    rounds = 200 if full else 20
    with (
        Fleet(tmp_path, etcd_cluster, etcd_name, 2) as fleet,
        WireClient(fleet.servers[0].url, session=None) as writer,
        WireClient(fleet.servers[1].url, session=None) as reader,
    ):
        for number in range(rounds):
            sent = reader.send(["lookup", "k"])  # what is asked just before may be what it wakes up in
            fleet.servers[1].signal(signal.SIGSTOP)
            assert writer.call("insert", "k", number, timeout_s=SETTLE_S)[1] == (0, None)
            after = reader.send(["lookup", "k"])
            fleet.servers[1].signal(signal.SIGCONT)
            replies = {reply.seq: reply for reply in (reader.receive(SETTLE_S), reader.receive(SETTLE_S))}
            assert replies[after].results == [[0, number]], f"a stale read: {replies[after]}, round {number}"
            assert sent in replies
    count("lookups at a server that was stopped while another one changed the row, 0 stale", rounds)


def test_two_servers_that_change_the_same_keys_lose_and_repeat_nothing(
    etcd_cluster: EtcdCluster, etcd_name: str, tmp_path: Path, count: Count
) -> None:
    """Increments are exact, and of compare-and-set with one expected value one succeeds."""
    increments = 150
    wins: list[int] = []
    with Fleet(tmp_path, etcd_cluster, etcd_name, 2) as fleet:

        def work(url: str, number: int) -> None:
            with kvzmq.connect(url, timeout=SETTLE_S) as table:
                for turn in range(increments):
                    table.increment("n")
                    if table.compare_and_set(f"turn{turn}", kvzmq.ABSENT, number):
                        wins.append(turn)

        threads = [
            threading.Thread(target=work, args=(url, number)) for number, url in enumerate(fleet.urls + fleet.urls)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * SETTLE_S)
            assert not thread.is_alive()
        rows = fleet.rows()
    assert rows["n"] == increments * len(threads)
    assert sorted(wins) == list(range(increments))
    count("increments of one key through two servers, exact", rows["n"])


@pytest.mark.parametrize("margin_s", ["0", "30"])
def test_a_server_that_was_down_or_stopped_while_the_log_was_trimmed_comes_back_equal(
    margin_s: str, etcd_cluster: EtcdCluster, etcd_name: str, tmp_path: Path
) -> None:
    """One that was down starts from the checkpoint. One that was stopped goes on: with the groups it missed, if these
    are still there, else from the checkpoint, by itself.
    """
    options = ("--compact-after", "100", "--etcd-margin", margin_s)
    with Fleet(tmp_path, etcd_cluster, etcd_name, 3, *options) as fleet:
        first, down, stopped = fleet.servers
        down.kill()
        stopped.signal(signal.SIGSTOP)
        with kvzmq.connect(first.url, timeout=SETTLE_S) as table:
            for number in range(250):
                table.insert(f"k{number % 20}", number)
            wait_until(lambda: table.stats()["checkpoint_group"], what="a checkpoint")
            if margin_s == "0":
                wait_until(lambda: table.stats()["trimmed_position"], what="a trimmed log")
        stopped.signal(signal.SIGCONT)
        if margin_s == "0":
            etcd_cluster.ctl("compact", _revision(etcd_cluster))
            for node in etcd_cluster.nodes:
                node.kill()  # the watch has to begin again
            etcd_cluster.start()
        down.start()
        assert len(fleet.rows()) == 20
        assert "checkpoint of 0 bytes" not in down.stderr.splitlines()[-2]
        assert stopped.starts == 1 and stopped.running, stopped.stderr


def _revision(etcd: EtcdCluster) -> str:
    status = json.loads(etcd.ctl("endpoint", "status", "--write-out", "json"))
    return str(status[0]["Status"]["header"]["revision"])
