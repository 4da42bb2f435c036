"""What a server tells of the members of its etcd, and `kvzmq doctor` of them: on a cluster whose nodes are killed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from support.etcd_cluster import EtcdCluster
from support.servers import ServerProcess, wait_until

import kvzmq
from kvzmq.cli import main
from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.client import EtcdClient

QUOTA = 8 << 20
"""So little that a server asks all members each second, instead of each ten."""


def findings(server: ServerProcess) -> set[tuple[str, str]]:
    """Return what the doctor says of etcd: name and text of each finding."""
    result = CliRunner().invoke(main, ["-c", server.url, "doctor", "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    found = json.loads(result.stdout)["findings"]
    return {(one["name"], one["text"]) for one in found if one["name"].startswith("etcd")}


def wait_for(server: ServerProcess, *names: str, of: str = "") -> None:
    """Wait until the doctor finds these, without any: nothing. A busy member may not answer for a moment.

    Args:
        of: what one of the texts says
    """

    def has_come() -> bool:
        found = findings(server)
        return set(names) <= {name for name, _ in found} and bool(names or not found) and of in str(found)

    wait_until(has_come, what=f"a doctor that finds {names or 'nothing'}")


def wait_for_stats(server: ServerProcess, is_so: Callable[[dict[str, Any]], bool]) -> None:
    with kvzmq.connect(server.url, timeout=60.0) as table:
        wait_until(lambda: is_so(table.stats()), what="figures of etcd's members")


def test_doctor_tells_of_members_that_are_down_of_a_missing_leader_and_of_alarms(tmp_path: Path) -> None:
    """Seen red with members that are asked only while etcd answers, and with members that are asked whether they know a
    leader before they tell anything.
    """
    with (
        EtcdCluster(tmp_path / "etcd") as etcd,
        ServerProcess(tmp_path / "data", "--log", etcd.url("t"), "--etcd-quota", str(QUOTA)) as server,
        contextlib.closing(EtcdClient(etcd.addresses)) as client,
    ):
        version = client.status(etcd.addresses[0]).version

        def is_well(told: dict[str, Any]) -> bool:
            members = told.get("etcd_members", {})
            return (
                (told.get("etcd_members_total"), told.get("etcd_members_alive")) == (3, 3)
                and told["etcd_has_leader"]
                and not told["etcd_corrupt"]
                and set(members) == set(etcd.addresses)
                and sum(one["leads"] for one in members.values()) == 1
                and {one["version"] for one in members.values()} == {version}
            )

        wait_for_stats(server, is_well)
        wait_for(server)

        follower = next(node for node in etcd.nodes if not node.is_leader)
        follower.kill()
        wait_for(server, "etcd_member_down", of=f"member {follower.address} has not answered")
        wait_for_stats(server, lambda told: told["etcd_members_alive"] == 2)
        with kvzmq.connect(server.url, timeout=60.0) as table:
            table.insert("a", 1)  # two of three are enough

        leader = etcd.leader()
        leader.kill()
        wait_for(server, "etcd_no_leader", "etcd_silent")  # the upkeep gets no answer either
        wait_for_stats(server, lambda told: not told["etcd_has_leader"] and told["etcd_members_alive"] == 1)

        for node in (follower, leader):
            node.start()
        etcd.wait_until_healthy()
        wait_for(server)

        request = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=4711, alarm=pb.CORRUPT)
        (corrupt,) = client._alarm(request, None)
        wait_for(server, "etcd_corrupt")
        client.disarm(corrupt)
        wait_for(server)
