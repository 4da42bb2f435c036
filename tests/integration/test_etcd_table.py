"""A table on a real etcd cluster, served by real servers: everything a table does, at any of them, and back again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import command
from support.etcd_cluster import EtcdCluster
from support.servers import ServerProcess, take_ctrl_c, wait_until

import kvzmq
from kvzmq.server.hearing import ASK_S

TIMEOUT_S = 60.0


@pytest.fixture
def start(etcd_cluster: EtcdCluster, etcd_name: str, tmp_path: Path) -> Iterator[Callable[[], ServerProcess]]:
    """Start one more server of the test's table."""
    servers: list[ServerProcess] = []

    def start() -> ServerProcess:
        servers.append(ServerProcess(tmp_path / f"server{len(servers)}", "--log", etcd_cluster.url(etcd_name)))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            sys.stderr.write(f"---- standard error of {server.data}\n{server.stderr}")  # shown if the test fails
            server.close()


@pytest.fixture
def servers(start: Callable[[], ServerProcess]) -> list[ServerProcess]:
    return [start(), start()]


def client(server: ServerProcess, **options: Any) -> kvzmq.Client:
    return kvzmq.connect(server.url, TIMEOUT_S, **options)


def test_what_one_server_acknowledges_the_other_reads_in_every_way(servers: list[ServerProcess]) -> None:
    with client(servers[0]) as here, client(servers[1]) as there:
        here.insert("a", {"n": 1})
        assert there.lookup("a") == {"n": 1} and there.query("n", 1) == [("a", {"n": 1})] and list(there) == ["a"]
        assert there.increment("n") == 1 and here.increment("n") == 2
        with here.transaction({"n": 2}) as t:
            t.insert("b", b"bytes")
            t.remove("a")
        assert dict(there) == {"n": 2, "b": b"bytes"}
        assert here.compare_and_set("n", 2, kvzmq.ABSENT) and "n" not in there
        stats = there.stats()
        assert stats["log_shared"] and stats["barrier_trouble"] is None and stats["lineage"] == here.stats()["lineage"]


def test_a_row_expires_at_every_server_by_one_logged_removal(servers: list[ServerProcess]) -> None:
    with client(servers[0]) as here, client(servers[1]) as there, there.watch() as watch:
        here.insert("brief", 1, ttl_s=0.5)
        assert watch.get(TIMEOUT_S).key == "brief" and watch.get(TIMEOUT_S).removed
        assert "brief" not in here and "brief" not in there
        assert here.stats()["revision"] == there.stats()["revision"] == 2


@pytest.mark.parametrize("reads", ["session", "local"])
def test_session_and_local_reads_ask_etcd_nothing(servers: list[ServerProcess], reads: Any) -> None:
    with client(servers[0], reads=reads) as table:
        table.insert("a", 1)
        before, began_s = table.stats()["barriers"], time.monotonic()
        for _ in range(100):
            assert table.lookup("a") == 1
        timed = 2 + (time.monotonic() - began_s) // (ASK_S / 4)
        assert table.stats()["barriers"] <= before + timed, "of the timer alone"


def test_a_session_reads_its_own_writes_wherever_it_reads(servers: list[ServerProcess]) -> None:
    with client(servers[0], reads="session") as here, client(servers[1], reads="session") as there:
        for number in range(200):
            here.insert("a", number)
            there._connection.note_seen(here.revision)  # as one client that has moved on would know
            assert there.lookup("a") == number


def test_a_retry_at_another_server_gets_the_first_result(servers: list[ServerProcess]) -> None:
    """Guarantee 5: one of two servers is killed at any moment, and every increment counts once."""
    with kvzmq.connect(",".join(server.url for server in servers), TIMEOUT_S) as table:
        for number in range(1, 301):
            if number % 100 == 0:
                victim = servers[number // 100 % 2]
                victim.kill()
                assert table.increment("n") == number
                victim.start()
            else:
                assert table.increment("n") == number


def test_a_watch_goes_on_at_another_server_without_a_gap(
    servers: list[ServerProcess], start: Callable[[], ServerProcess]
) -> None:
    url = ",".join(server.url for server in servers)
    with kvzmq.connect(url, TIMEOUT_S) as table, table.watch() as watch:
        joined = start()
        seen: list[int] = []
        for turn, victim in enumerate(servers):
            with client(joined) as writer:
                for number in range(20):
                    writer.insert("k", 100 * turn + number)
            seen += [watch.get(TIMEOUT_S).value for _ in range(10)]
            victim.kill()
            victim.start()
            seen += [watch.get(TIMEOUT_S).value for _ in range(10)]
        assert seen == [100 * turn + number for turn in range(2) for number in range(20)]


def test_a_table_moves_from_a_directory_into_etcd_and_back(servers: list[ServerProcess], tmp_path: Path) -> None:
    rows = {f"k{number}": {"n": number} for number in range(500)} | {"bytes": b"\0\xff"}
    with ServerProcess(tmp_path / "home") as home:
        with client(home) as table:
            table.insert_many(rows)
            table.insert("brief", 1, ttl_s=3600)
        assert command("copy", home.url, servers[0].url).exit_code == 0
        with client(servers[1]) as there:
            assert dict(there) == rows | {"brief": 1}
            left_s = there.ttl("brief")
            assert left_s is not None and 3500 < left_s <= 3600
            there.remove("k0")
            there.insert("new", 1)
        result = command("copy", servers[1].url, home.url, "--replace")
        assert result.exit_code == 0, result.output
        with client(home) as table:
            assert dict(table) == {key: value for key, value in rows.items() if key != "k0"} | {"brief": 1, "new": 1}


def test_a_backup_of_a_table_in_etcd_is_served_from_a_directory(servers: list[ServerProcess], tmp_path: Path) -> None:
    with client(servers[0]) as here:
        here.insert_many({f"k{number}": number for number in range(100)})
        lineage = here.stats()["lineage"]
    backup, data = str(tmp_path / "backup.kvzmq"), tmp_path / "restored"
    result = command("-c", servers[1].url, "--timeout", "60", "backup", backup)
    assert result.exit_code == 0, result.output
    assert command("restore", backup, "--data", str(data)).exit_code == 0
    with ServerProcess(data) as restored, client(restored) as table:
        assert dict(table) == {f"k{number}": number for number in range(100)}
        assert table.stats()["lineage"] == lineage


def test_ping_tells_of_a_table_in_etcd(servers: list[ServerProcess]) -> None:
    result = command("-c", servers[0].url, "ping", "--explain", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["answers"]
    wait_until(lambda: command("-c", servers[1].url, "stats", "--json").exit_code == 0)


@pytest.mark.unmeasured
def test_the_demo_loses_nothing_with_a_server_and_etcd_s_leader_killed() -> None:
    demo = Path(__file__).resolve().parents[2] / "clients" / "demo_cluster.py"
    done = subprocess.run(
        [sys.executable, str(demo), "--seconds", "1"],
        capture_output=True,
        text=True,
        timeout=900,
        preexec_fn=take_ctrl_c,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing lost, nothing counted twice" in done.stdout
