"""`kvzmq doctor`: each finding, and what is no finding."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from kvzmq import __version__
from kvzmq.cli.commands.doctor import _journal_of, look_at_files
from kvzmq.observing import doctor
from kvzmq.observing.doctor import Evidence, diagnose
from kvzmq.protocol import msgpack, operations
from kvzmq.protocol.messages import Request
from kvzmq.store.file.file_log import NAME, FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.store import Store

NOW_S = 1_800_000_000.0
GIB = 1 << 30


def client(**changes: Any) -> dict[str, Any]:
    return {"name": "zmq:0011aabb", "address": "10.0.0.7:4711", "unread_bytes": 0, "replies_dropped": 0} | changes


def healthy(**changes: Any) -> Evidence:
    """A server without trouble, but for the changes."""
    stats: dict[str, Any] = {
        "version": __version__, "keys": 1000, "row_bytes": 5_000_000, "clients": 3, "storage_trouble": None,
        "compaction_trouble": None, "log_bytes": GIB, "checkpoint_bytes": GIB, "disk_bytes": 100 * GIB,
        "disk_free_bytes": 50 * GIB, "resident_bytes": 2 * GIB, "memory_limit_bytes": 4 * GIB,
        "memory_available_bytes": 8 * GIB, "descriptors": 40, "descriptors_max": 1024, "clock_s": NOW_S + 0.3,
        "table_time_s": NOW_S,
        "disk": {"sync_recent": {"count": 500, "p99_s": 0.002}, "sync_first": {"count": 200, "p99_s": 0.001}},
    }  # fmt: skip
    about = {name: value for name, value in changes.items() if name in Evidence.__struct_fields__}
    stats |= {name: value for name, value in changes.items() if name not in about}
    evidence = Evidence(url="tcp://h:1", stats=stats, clients=[client(unread_bytes=1000)], asked_s=NOW_S)
    for name, value in about.items():
        setattr(evidence, name, value)
    return evidence


def members(**changes: dict[str, Any]) -> dict[str, Any]:
    """Three members of etcd without trouble, but for the changes."""
    one = {"silent_s": 0.0, "version": "3.4.23", "has_leader": True, "behind": 0, "file_bytes": GIB // 2}
    return {f"{name}:2379": one | {"in_use_bytes": GIB // 2} | changes.get(name, {}) for name in "abc"}


def syncs(recent_s: float, first_s: float | None, count: int = 500) -> dict[str, Any]:
    first = None if first_s is None else {"count": 200, "p99_s": first_s}
    return {"sync_recent": {"count": count, "p99_s": recent_s}, "sync_first": first}


def test_a_server_without_trouble_has_no_finding() -> None:
    assert diagnose(healthy()) == []
    assert diagnose(healthy(data="/var/lib/kvzmq", kind=("ext4", "rw,relatime"), has_journal=True)) == []
    assert diagnose(Evidence(url="tcp://h:1", stats={"version": __version__, "keys": 1}, asked_s=NOW_S)) == []


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"silence": "connection refused", "stats": None}, "silent", ["tcp://h:1 does not answer: connection refused"]),
        (
            {"refusal": "bob may not stats: that needs the right admin", "stats": None},
            "not_allowed",
            ["tcp://h:1 was not looked at: bob may not stats"],
        ),
        ({"storage_trouble": "not applied: No space left"}, "cannot_write", ["changes are refused", "No space left"]),
        ({"data": "/d", "damage": ["table.log: offset 9: rubbish"]}, "damaged", ["table.log: offset 9"]),
        ({"compaction_trouble": "killed by SIGKILL"}, "compaction_fails", ["1.0 GiB", "killed by SIGKILL"]),
        ({"disk": syncs(0.03, 0.002)}, "disk_slow", ["has become slow", "0.03 s", "0.002 s"]),
        ({"disk": syncs(0.08, 0.05)}, "disk_slow", ["disk is slow", "0.08 s"]),
        ({"disk": syncs(0.08, None)}, "disk_slow", ["disk is slow"]),
        ({"disk_free_bytes": 5 * GIB}, "disk_filling", ["5.0 GiB of 100.0 GiB are left"]),
        ({"etcd_in_use_bytes": 2 * GIB, "etcd_quota_bytes": 2 * GIB}, "etcd_filling", ["2.0 GiB of etcd"]),
        ({"etcd_no_space": True, "etcd_quota_bytes": 2 * GIB}, "etcd_full", ["2.0 GiB is used up"]),
        ({"etcd_trouble": "deadline exceeded"}, "etcd_silent", ["no answer", "deadline exceeded"]),
        (
            {"storage_trouble": "not applied: no answer", "log_shared": True},
            "cannot_write",
            ["changes are refused", "no answer"],
        ),
        ({"etcd_room_bytes": 0, "etcd_reserved_bytes": GIB}, "etcd_no_room", ["next checkpoint, 1.0 GiB"]),
        (
            {"etcd_members": members(b={"silent_s": 70.0})},
            "etcd_member_down",
            ["member b:2379 has not answered for 1 min", "2 of 3 do", "needs 2"],
        ),
        (
            {"etcd_members": members(a={"has_leader": False}, b={"has_leader": False}, c={"has_leader": False})},
            "etcd_no_leader",
            ["no member of etcd that answers knows a leader"],
        ),
        ({"etcd_members": members(c={"has_leader": False})}, "etcd_no_leader", ["member c:2379 knows no leader"]),
        ({"etcd_members": members(), "etcd_corrupt": True}, "etcd_corrupt", ["alarm CORRUPT"]),
        ({"etcd_members": members(a={"behind": 5000})}, "etcd_member_behind", ["a:2379 is 5,000 entries behind"]),
        (
            {"etcd_members": members(a={"file_bytes": 2 * GIB}), "etcd_quota_bytes": 2 * GIB},
            "etcd_fragmented",
            ["member a:2379 is 2.0 GiB long", "512.0 MiB of it are in use"],
        ),
        ({"etcd_members": members(a={"version": "3.5.9"})}, "etcd_versions", ["3.4.23, 3.5.9"]),
        ({"disk_free_bytes": 15 * GIB, "checkpoint_bytes": 10 * GIB}, "disk_filling", ["22.0 GiB more"]),
        (
            {"clients": [client(unread_bytes=5 << 20)]},
            "client_does_not_read",
            ["zmq:0011aabb at 10.0.0.7:4711", "5.0 MiB"],
        ),
        (
            {"clients": [client(unread_bytes=None, address=None, replies_dropped=7)]},
            "client_does_not_read",
            ["7 replies dropped"],
        ),
        ({"resident_bytes": 3.5 * GIB}, "memory", ["3.5 GiB of the 4.0 GiB it may", "1,000 rows"]),
        ({"memory_available_bytes": GIB}, "memory", ["1.0 GiB of memory left", "compaction needs"]),
        ({"descriptors": 900}, "descriptors", ["900 of 1,024 descriptors", "3 connections"]),
        ({"clock_s": NOW_S + 60}, "clock", ["1 min ahead of this machine's"]),
        ({"clock_s": NOW_S - 60, "table_time_s": NOW_S - 60}, "clock", ["1 min behind this machine's"]),
        ({"table_time_s": NOW_S + 3600}, "clock", ["turned back", "no row expires"]),
        ({"data": "/d", "kind": ("tmpfs", "rw")}, "file_system", ["on tmpfs", "loses the table"]),
        ({"data": "/d", "kind": ("nfs4", "rw")}, "file_system", ["on nfs4"]),
        ({"data": "/d", "kind": ("ext2", "rw")}, "file_system", ["ext2 without a journal"]),
        ({"data": "/d", "kind": ("ext4", "rw"), "has_journal": False}, "file_system", ["ext4 without a journal"]),
        ({"data": "/d", "kind": ("ext4", "rw,nobarrier")}, "file_system", ["without barriers"]),
        ({"data": "/d", "mode": 0o755}, "permissions", ["mode 755"]),
        ({"version": "0.1.9"}, "old_version", ["kvzmq 0.1.9"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_sentence_with_a_command(
    changes: dict[str, Any], name: str, words: list[str]
) -> None:
    (finding,) = diagnose(healthy(**changes))
    assert finding.name == name and finding.command
    assert all(word in finding.text for word in words), finding.text


@pytest.mark.parametrize(
    "changes",
    [
        {"disk": syncs(0.019, 0.0001)},  # slower than ever, and nobody would notice
        {"disk": syncs(0.04, 0.01)},
        {"disk": syncs(9.0, 0.001, count=10)},  # too few to say
        {"disk": syncs(0.0, None, count=0)},
        {"clients": [client(unread_bytes=1 << 20), client(unread_bytes=None)]},
        {"memory_limit_bytes": None},
        {"version": "99.0.0"},
        {"etcd_members": members(), "etcd_quota_bytes": 2 * GIB, "etcd_room_bytes": 1},
        {"etcd_members": members(b={"silent_s": 4.0}, c={"behind": 999})},  # it defragments, or was asked later
        {"etcd_members": members(a={"file_bytes": GIB}), "etcd_quota_bytes": 2 * GIB},  # free pages are used again
        {"etcd_members": {"a:2379": {"silent_s": 1.0}}},  # it has never answered, and was asked just now
        {"table_time_s": NOW_S + 4},
    ],
)
def test_what_is_not_wrong_is_not_found(changes: dict[str, Any]) -> None:
    assert diagnose(healthy(**changes)) == []


def test_every_check_has_a_finding_in_these_tests() -> None:
    marks = test_what_is_wrong_is_said_in_a_sentence_with_a_command.pytestmark
    changes = [case[0] for case in marks[0].args[1]]
    for check in doctor.CHECKS:
        assert any(list(check(healthy(**case))) for case in changes), check.__name__


def test_the_journal_is_looked_for_by_the_name_of_the_device(tmp_path: Path) -> None:
    device = Path("/").stat().st_dev
    assert _journal_of(device, tmp_path) is False
    assert _journal_of(device, tmp_path / "absent") is None
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    (tmp_path / f"{name}-8").mkdir()
    assert _journal_of(device, tmp_path) is True


def test_files_that_are_damaged_are_found(tmp_path: Path) -> None:
    copy = tmp_path / "table"
    store = Store(FileLog(DiskDirectory(copy)))
    store.recover()
    for number in range(10):
        request = msgpack.decode_request(
            msgpack.encode_request(None, 1, [operations.Insert(f"k{number}", Raw(b"\x01"))])
        )
        assert isinstance(request, Request)
        group = store.begin([request], 1)
        group.execute(request)
        group.sync()
    store.close()
    evidence = Evidence()
    look_at_files(evidence, copy)
    assert evidence.damage == [] and evidence.mode == 0o700 and evidence.kind[0] != "unknown"
    log = bytearray((copy / NAME).read_bytes())
    log[log.index(b"k3")] ^= 1
    (copy / NAME).write_bytes(log)
    look_at_files(evidence, copy)
    assert evidence.damage and NAME in evidence.damage[0]
