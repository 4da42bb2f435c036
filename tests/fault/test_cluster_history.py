"""What becomes of a table in etcd over a longer time: quotas, snapshots put back, watches through everything."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.etcd_cluster import EtcdCluster
from support.fleet import SETTLE_S, Fleet
from support.servers import DidNotStart, ServerProcess, wait_until

import kvzmq
from kvzmq.store.etcd.client import EtcdClient, EtcdNoSpace
from kvzmq.store.etcd.local_copy import index_key

Count = Callable[[str, int], None]


def test_a_quota_that_is_used_up_refuses_changes_and_recovers_by_itself(tmp_path: Path, count: Count) -> None:
    """Someone else fills etcd; the changes that are refused were not made, those acknowledged stay. What they have
    deleted is given back by the servers.
    """
    quota = 16 << 20
    with EtcdCluster(tmp_path / "etcd", "--quota-backend-bytes", str(quota)) as etcd:
        options = ("--etcd-quota", str(quota), "--compact-after", "200", "--etcd-margin", "0")
        with Fleet(tmp_path, etcd, "t", 2, *options) as fleet, kvzmq.connect(fleet.urls[0], timeout=SETTLE_S) as table:
            for _ in range(50):
                before = table.increment("n")
            fill(etcd)
            refused = unknown = 0
            with kvzmq.connect(fleet.urls[1], timeout=2.0) as hasty:
                while not refused:
                    try:
                        before = hasty.increment("n")
                    except kvzmq.OutcomeUnknown:
                        unknown += 1
                    except kvzmq.Timeout:
                        continue  # a busy machine, where nothing was sent in so short a time
                    except kvzmq.WriteRejected as error:
                        refused += 1
                        assert "quota" in str(error)
                assert before <= hasty.lookup("n", timeout=SETTLE_S) <= before + unknown, "reads go on"
            before = table.lookup("n")
            assert table.stats()["etcd_quota_bytes"] == quota
            etcd.ctl("del", "--prefix", "other")
            began_s = time.monotonic()
            table.insert("again", True, timeout=2 * SETTLE_S)
            took_s = time.monotonic() - began_s
            assert fleet.rows() == {"n": before, "again": True}
            assert table.stats()["storage_trouble"] is None
    count(f"changes refused while etcd's quota was used up; possible again {took_s:.0f} s after there was room", 1)


def test_live_rows_are_rewritten_for_several_times_the_quota(tmp_path: Path, full: bool, count: Count) -> None:
    """At two servers, as fast as they can, which is faster than their log can be shortened. Changes are refused for a
    while, again and again, never for good, and none that was acknowledged is lost. Seen red with a log that takes the
    room of the next checkpoint.
    """
    quota, length = 16 << 20, 20_000
    rows, changes = 20, (8 if full else 3) * quota // length
    longest_s = [0.0, 0.0]
    with (
        EtcdCluster(tmp_path / "etcd", "--quota-backend-bytes", str(quota)) as etcd,
        Fleet(tmp_path, etcd, "t", 2, "--etcd-quota", str(quota)) as fleet,
    ):

        def rewrite(server: int) -> None:
            with kvzmq.connect(fleet.urls[server], timeout=4 * SETTLE_S) as table:
                for number in range(changes // 2):
                    began_s = time.monotonic()
                    table.insert(f"{server}/{number % rows}", f"{number:08}" + length * "x")
                    longest_s[server] = max(longest_s[server], time.monotonic() - began_s)

        with ThreadPoolExecutor() as pool:
            for written in [pool.submit(rewrite, server) for server in (0, 1)]:
                written.result()
        found = {key: value[:8] for key, value in fleet.rows().items()}
        last = {number % rows: f"{number:08}" for number in range(changes // 2)}
        assert found == {f"{server}/{row}": number for server in (0, 1) for row, number in last.items()}
    count(f"rewritten {changes * length >> 20} MiB at a quota of {quota >> 20}; longest wait {max(longest_s):.1f} s", 1)


def fill(etcd: EtcdCluster) -> None:
    """Use up the quota with keys that no server can free."""
    client = EtcdClient(etcd.addresses)
    with contextlib.closing(client), pytest.raises(EtcdNoSpace):
        for number in range(1000):
            client.put(b"other%03d" % number, bytes(50_000))


def test_a_table_that_etcd_was_put_back_to_is_refused_until_somebody_says_so(tmp_path: Path) -> None:
    """By every server, also by one that has never served it, and with an index of etcd's log behind the one that was
    noted. Seen red without comparing that index, and with the index alone.
    """
    snapshot = tmp_path / "snapshot"
    with EtcdCluster(tmp_path / "etcd") as etcd, Fleet(tmp_path, etcd, "t", 2) as fleet:
        first, second = fleet.servers
        with kvzmq.connect(first.url, timeout=SETTLE_S) as table:
            table.insert("kept", 1)
            epoch = table.stats()["epoch"]
            etcd.ctl("snapshot", "save", str(snapshot), nodes=etcd.nodes[:1])
            table.insert("lost", 2)
            for server in (first, second):
                seen = server.data / "etcd" / "seen.json"
                wait_until(lambda seen=seen: notes(seen, 2), what="the note of what was served")  # type: ignore[misc]
        noted = int(etcd.ctl("get", "--print-value-only", index_key("t")))
        put_back(etcd, snapshot)
        with contextlib.closing(EtcdClient(etcd.addresses)) as client:
            while client.status(etcd.addresses[0]).raftIndex <= noted:
                client.put(b"other", b"")  # somebody else goes on first
        for server in (first, second):
            stops(server)
            with pytest.raises(DidNotStart) as refused:
                server.start()
            assert refused.value.exit_code == 3
            assert "gone back in time" in refused.value.stderr and "--new-epoch" in refused.value.stderr
        with ServerProcess(tmp_path / "ignorant", "--log", fleet.log, start=False) as ignorant:
            with pytest.raises(DidNotStart, match="gone back in time"):
                ignorant.start()
            first.options.append("--new-epoch")
            first.start()
            second.start()  # it was told through etcd
            ignorant.start()
            with kvzmq.connect(second.url, timeout=SETTLE_S) as table:
                assert table.stats()["epoch"] != epoch
                table.insert("after", 3)
            assert fleet.rows() == {"kept": 1, "after": 3}


def notes(seen: Path, revision: int) -> bool:
    return seen.exists() and b'"revision":%d' % revision in seen.read_bytes()


def put_back(etcd: EtcdCluster, snapshot: Path) -> None:
    """Put every node back to a snapshot, as etcd's documentation says."""
    etcd.kill()
    for node in etcd.nodes:
        shutil.rmtree(node.data)
        option = dict(zip(node.options, node.options[1:]))
        subprocess.run(
            [
                "etcdctl", "snapshot", "restore", str(snapshot), "--name", node.name, "--data-dir", str(node.data),
                "--initial-cluster", option["--initial-cluster"], "--initial-advertise-peer-urls",
                option["--initial-advertise-peer-urls"], "--initial-cluster-token", option["--initial-cluster-token"],
            ],
            check=True, capture_output=True, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    etcd.start()


def stops(server: ServerProcess) -> None:
    """A server that runs notices by itself when it asks etcd; then end it in any case."""
    with (
        kvzmq.connect(server.url, timeout=5.0) as table,
        pytest.raises((kvzmq.Timeout, kvzmq.errors.Unavailable, kvzmq.OutcomeUnknown)),
    ):
        table.lookup("kept")
    assert server.wait_for_exit() == 5, server.stderr
    assert "put back" in server.stderr or "another etcd cluster" in server.stderr


def test_a_watch_across_servers_equals_the_table_through_kills(tmp_path: Path, full: bool, count: Count) -> None:
    """A client of three servers watches and copies, while another one writes through them, and servers, nodes and
    connections are killed. Nothing is missed or seen twice.
    """
    rounds = 20 if full else 4
    chance = random.Random(8)
    stop = threading.Event()
    written: dict[str, Any] = {}
    options = ("--compact-after", "300", "--etcd-margin", "10")
    with EtcdCluster(tmp_path / "etcd") as etcd, Fleet(tmp_path, etcd, "t", 3, *options) as fleet:
        urls = ",".join(fleet.urls)

        def write() -> None:
            number = 0
            with kvzmq.connect(urls, timeout=SETTLE_S) as table:
                while not stop.is_set():
                    number += 1
                    try:
                        if number % 3:
                            table.insert(f"k{number % 40}", number)
                        else:
                            table.remove_many([f"k{number % 40}", f"k{number % 7}"])
                    except kvzmq.WriteRejected:
                        continue

        writer = threading.Thread(target=write)
        with kvzmq.connect(urls, timeout=SETTLE_S) as table, table.watch() as watch:
            copied: dict[str, Any] = dict(table)
            revisions: list[int] = []
            writer.start()
            try:
                for number in range(rounds):
                    if number % 4 == 3:
                        leader = etcd.leader()
                        leader.kill()
                        drain(watch, copied, revisions, 0.5)
                        leader.start()
                        etcd.wait_until_healthy()
                    else:
                        victim = chance.choice(fleet.servers)
                        victim.kill()
                        drain(watch, copied, revisions, 0.3)
                        victim.start()
                    drain(watch, copied, revisions, 0.5)
                wait_until(
                    lambda: (drain(watch, copied, revisions, 0.1), len(revisions) > 20 * rounds)[1],  # type: ignore[func-returns-value]
                    what="changes enough",
                )
            finally:
                stop.set()
                writer.join(2 * SETTLE_S)
            assert not writer.is_alive()
            written = fleet.rows()
            watch.progress(SETTLE_S)
            drain(watch, copied, revisions, 0.5)
        assert copied == written
    assert revisions == sorted(set(revisions)), "a change was seen twice, or out of order"
    count(f"changes followed across servers through {rounds} kills, none missed or repeated", len(revisions))
    assert len(revisions) > 20 * rounds


def drain(watch: Any, copied: dict[str, Any], revisions: list[int], seconds: float) -> None:
    """Copy what the watch tells within so long."""
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            event = watch.get(left_s)
        except kvzmq.Timeout:
            return
        revisions.append(event.revision)
        if event.removed:
            copied.pop(event.key, None)
        else:
            copied[event.key] = event.value
