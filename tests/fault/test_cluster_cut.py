"""A server, a node of etcd, or both, behind a cable of their own that is pulled and plugged in again. Needs root."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cables import GROUP, cable
from support.etcd_cluster import EtcdCluster
from support.fleet import SETTLE_S
from support.servers import PATIENCE_S, ServerProcess, wait_until
from support.workload import Workload, read_rows

import kvzmq

Count = Callable[[str, int], None]

ANSWER_S_MAX = 4.0
"""How long a server that is cut off from etcd may take to say so."""


@pytest.mark.xdist_group(GROUP)
@pytest.mark.parametrize("what", ["server", "node", "both"])
def test_what_is_cut_off_refuses_or_waits_and_is_equal_again_when_healed(
    what: str, tmp_path: Path, full: bool, count: Count
) -> None:
    """The server that is cut off answers pings, stats and reads of what it has; it neither changes anything nor gives
    a linearizable read. The others go on. Healed, it has what they have done, without a restart.

    Seen red with: a server that takes an earlier answer of etcd's for the present.
    """
    cuts = 10 if full else 1
    work = Workload(clients=2, depth=2, seed=4)
    with cable() as line:
        node_there = what != "server"
        hosts = (line.here, line.here, line.there if node_there else line.here)
        wrappers = ((), (), line.run if node_there else ())
        with EtcdCluster(tmp_path / "etcd", hosts=hosts, wrappers=wrappers) as etcd:
            log = ("--log", etcd.url("t"), "--compact-after", "500")
            cut = ServerProcess(
                tmp_path / "cut", *log, binds=[f"ipc://{tmp_path}/socket"], wrapper=line.run if what != "node" else ()
            )
            with cut, ServerProcess(tmp_path / "here", *log) as here:
                for _ in range(cuts):
                    work.connect(here.url)
                    work.run(0.3)
                    line.plug(False)
                    if what == "node":
                        work.run(0.5)
                    else:
                        check_cut_off(cut.url, here.url)
                    work.run(1.0)
                    work.settle(SETTLE_S)
                    line.plug(True)
                    wait_until(
                        lambda: is_equal(cut.url, here.url), SETTLE_S, "the same table at the server that was cut off"
                    )
                    assert work.judge(read_rows(here.url)) == 0
                    work.hang_up()
                assert cut.starts == 1 and cut.running, cut.stderr
        count(f"cuts and heals of {what}, {work.done} requests acknowledged meanwhile, 0 lost", cuts)


def check_cut_off(cut: str, here: str) -> None:
    with kvzmq.connect(here, timeout=SETTLE_S) as table:
        table.insert("k", "new")
    with kvzmq.connect(cut, timeout=SETTLE_S) as table:
        began_s = time.monotonic()
        table.ping()
        assert table.stats()["revision"] >= 0
        assert time.monotonic() - began_s < PATIENCE_S / 2
    calls: tuple[Callable[[kvzmq.Client], object], ...] = (
        lambda table: table.insert("k", "lost"),
        lambda table: table.lookup("k"),
    )
    for call in calls:
        began_s = time.monotonic()
        with (
            kvzmq.connect(cut, timeout=ANSWER_S_MAX) as table,
            pytest.raises((kvzmq.WriteRejected, kvzmq.OutcomeUnknown, kvzmq.errors.Unavailable, kvzmq.Timeout)),
        ):
            call(table)
        assert time.monotonic() - began_s < ANSWER_S_MAX + PATIENCE_S / 2
    with kvzmq.connect(here, timeout=SETTLE_S) as table:
        assert table.lookup("k") == "new"
        table.remove("k")


def is_equal(one: str, other: str) -> bool:
    try:
        return read_rows(one) == read_rows(other)
    except AssertionError:  # it still says that it is cut off
        return False
