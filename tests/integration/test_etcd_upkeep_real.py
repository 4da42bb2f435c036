"""Checkpoints, trimming and the quota, on a real etcd: what the tests with keys in memory take for granted."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.etcd_cluster import EtcdCluster
from support.servers import PATIENCE_S

from kvzmq import errors
from kvzmq.store.etcd import checkpoints, layout, space
from kvzmq.store.etcd.checkpoints import CHUNK_BYTES, Content, LockLost, lock, read_head, trim, upload
from kvzmq.store.etcd.client import EtcdClient, EtcdError, EtcdNoSpace
from kvzmq.store.etcd.cluster import Cluster
from kvzmq.store.etcd.local_copy import LocalCopy
from kvzmq.store.etcd.space import Room
from kvzmq.store.etcd.upkeep import Settings
from kvzmq.store.etcd.upkeep_process import Worker
from kvzmq.store.etcd.url import Security
from kvzmq.store.file import checkpoint
from kvzmq.store.file.files import DiskDirectory


@contextlib.contextmanager
def reached(etcd: EtcdCluster) -> Iterator[Cluster]:
    client = EtcdClient(etcd.addresses)
    try:
        yield Cluster(client)
    finally:
        client.close()


@pytest.fixture
def cluster(etcd_cluster: EtcdCluster) -> Iterator[Cluster]:
    with reached(etcd_cluster) as cluster:
        yield cluster


def write(cluster: Cluster, path: Path, name: str, group: int, sections: list[bytes]) -> checkpoints.Head:
    path.mkdir(exist_ok=True)
    with contextlib.closing(DiskDirectory(path, lock=False)) as directory:
        checkpoint.write(directory, group, sections)
        with lock(cluster, name) as held, contextlib.closing(directory.open(checkpoint.NAME)) as file:
            return upload(held, cluster, name, file, Content(group, group, 0, 0), pace=lambda seconds: None)


def test_checkpoints_replace_each_other_and_are_fetched_whole(
    cluster: Cluster, etcd_cluster: EtcdCluster, etcd_name: str, tmp_path: Path
) -> None:
    copy = LocalCopy(tmp_path)
    assert copy.fetch(cluster, etcd_name) is None
    sections = [random.Random(number).randbytes(CHUNK_BYTES) for number in range(3)]
    for group in (1, 2):
        head = write(cluster, tmp_path / "other", etcd_name, group, sections[:-group])
        assert copy.fetch(cluster, etcd_name) == head
        found = copy.read(head)
        assert (found.group, list(found.sections)) == (group, sections[:-group])
        left = etcd_cluster.ctl("get", "--prefix", "--keys-only", f"{etcd_name}/").split()
        assert len(left) == 1 + head.chunks, "nothing is left of the one before, nor of the lock"
    copy.close()


def test_a_writer_whose_lock_was_taken_over_changes_nothing(cluster: Cluster, etcd_name: str) -> None:
    with lock(cluster, etcd_name) as held:
        with lock(cluster, etcd_name, stale_s=0.05) as other:
            with pytest.raises(LockLost):
                held.transact(put=[(f"{etcd_name}/x", b"1")])
            other.transact(put=[(f"{etcd_name}/x", b"2")])
        _, found = cluster.get(f"{etcd_name}/x")
        assert found[f"{etcd_name}/x"].value == b"2"
    assert checkpoints.lock_key(etcd_name) not in cluster.get(checkpoints.lock_key(etcd_name))[1]


def test_groups_are_trimmed_put_until_then(cluster: Cluster, etcd_name: str, tmp_path: Path) -> None:
    chance = random.Random(2)
    numbers: list[int] = []
    for seq in range(150):
        key = f"{checkpoints.log_prefix(etcd_name)}{chance.choice('abc')}/{seq:016x}"
        number = cluster.transact([], put=[(key, b"group")])
        assert number is not None
        numbers.append(number)
    write(cluster, tmp_path / "other", etcd_name, numbers[99], [b"table"])
    with lock(cluster, etcd_name) as held:
        assert trim(held, cluster, etcd_name, numbers[99]) == 100
    cluster.compact(numbers[99])
    cluster.compact(numbers[98])
    left = cluster.list(checkpoints.log_prefix(etcd_name), "", 1000)
    assert sorted(found.put_at for found in left) == numbers[100:]


def test_room_is_made_before_the_quota_is_used_up(tmp_path: Path) -> None:
    """By groups that the checkpoint holds, and half-written checkpoints; no alarm is raised. Seen red without
    compaction, and without defragmentation. Who had to wait for the lock does not compact a log that goes on again.
    """
    quota_bytes, name, piece = 32 << 20, "t", bytes(500_000)
    with (
        EtcdCluster(tmp_path / "etcd", "--quota-backend-bytes", str(quota_bytes)) as etcd,
        reached(etcd) as cluster,
    ):
        groups = [(f"{checkpoints.log_prefix(name)}a/{seq:016x}", piece) for seq in range(16)]
        garbage = [(checkpoints.chunk_key(name, "half", number), piece) for number in range(16)]
        position = [cluster.transact([], put=[each]) for each in (*groups, *garbage)][15]
        assert position is not None
        settings = Settings(list(etcd.addresses), name, str(tmp_path), quota_bytes=quota_bytes)
        with contextlib.closing(Worker(settings)) as worker:
            write(cluster, tmp_path / "other", name, position, [b"table"])
            all_of_it, most_of_it = (
                Room(quota_bytes, quota_bytes),
                Room(quota_bytes - 2_000_000, quota_bytes - 2_000_000),
            )
            with lock(cluster, name) as held:
                before = space.make_room(held, cluster, cluster, name, Room(1, 1), quota_bytes)
                assert before.free_bytes < quota_bytes - 16 * len(piece), "it is enough: nothing is done"
                etcd.wait_until(  # a member that lags may not have begun to compact when it is looked at
                    lambda: space.make_room(held, cluster, cluster, name, all_of_it, quota_bytes).does_for(most_of_it),
                    60,
                    "all members to be defragmented",
                )
            assert not any(cluster.status(address).no_space for address in etcd.addresses)
            assert not cluster.list(checkpoints.log_prefix(name), "", 1)
            cluster.transact([], put=[(layout.Keys(name).tail.decode(), b"")])
            with pytest.raises(LockLost, match="another server has made room"):
                worker.shorten(str(position), "1", str(quota_bytes), str(quota_bytes))


def test_a_user_who_may_not_defragment_is_told_to_become_one_who_may(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path / "etcd", auth=True) as etcd:
        etcd.ctl("role", "add", "table")
        etcd.ctl("role", "grant-permission", "table", "--prefix=true", "readwrite", "t/")
        etcd.ctl("user", "add", "server:secret")
        etcd.ctl("user", "grant-role", "server", "table")
        client = EtcdClient(etcd.addresses, Security(user="server", password="secret"))
        with contextlib.closing(client), lock(Cluster(client), "t") as held:
            cluster, quota_bytes = Cluster(client), 1 << 20
            for _ in range(20):
                cluster.transact([], put=[("t/old", bytes(500_000))])

            def is_told() -> bool:  # a member may not have begun to compact when it is looked at
                try:
                    space.make_room(held, cluster, cluster, "t", Room(quota_bytes, quota_bytes), quota_bytes)
                except errors.WriteRejected as error:
                    return "the role root" in str(error)
                return False

            etcd.wait_until(is_told, 60, "who may not defragment to be told")


def test_a_quota_that_is_used_up_is_recovered(tmp_path: Path) -> None:
    """By old versions of keys, and by a half-written checkpoint; not if what is left fills it.

    Seen red without compaction, without defragmentation, and without disarming.
    """
    quota_bytes = 16 << 20
    name = "t"
    with (
        EtcdCluster(tmp_path / "etcd", "--quota-backend-bytes", str(quota_bytes)) as etcd,
        reached(etcd) as cluster,
    ):

        def fill(key: str, keys: int, piece: bytes = bytes(1_000_000)) -> None:
            with pytest.raises(EtcdNoSpace):
                for number in range(1000):
                    cluster.transact([], put=[(f"{key}{number % keys:08}", piece)])
            with pytest.raises(EtcdNoSpace):
                cluster.transact([], put=[("a", b"1")])

        write(cluster, tmp_path / "other", name, 1, [b"table"])
        fill(f"{name}/log/a/", 2)
        found = space.recover(cluster, cluster, name, quota_bytes)
        assert found.disarmed and found.after_bytes < 4_000_000 < found.before_bytes
        assert "possible again" in str(found)
        cluster.transact([], put=[("a", b"1")])
        fill(checkpoints.chunk_key(name, "half", 0)[:-8], 100)
        found = space.recover(cluster, cluster, name, quota_bytes)
        assert found.disarmed and found.after_bytes < 5_000_000
        head = read_head(cluster, name)
        assert (
            head is not None
            and checkpoints.chunk_key(name, head.id, 0) in cluster.get(checkpoints.chunk_key(name, head.id, 0))[1]
        ), "the whole one is still there"
        fill("old", 2)
        down = next(node for node in etcd.nodes if not node.is_leader)
        down.kill()
        assert space.recover(cluster, cluster, name, quota_bytes).disarmed, "although a member is down"
        down.start()  # and raises the alarm again, as its file is what it was

        def is_freed() -> bool:
            with contextlib.suppress(EtcdError):  # it is not there yet
                return (
                    space.recover(cluster, cluster, name, quota_bytes).disarmed
                    and cluster.status(down.address).file_bytes < quota_bytes / 2
                )
            return False

        etcd.wait_until(is_freed, PATIENCE_S, "the member that was down to be defragmented as well")
        etcd.wait_until_healthy()
        for turn in range(10):  # until it is full of what is kept: how much was free when it was full is etcd's affair
            fill(f"{name}/log/b{turn}/", 1000, bytes(50_000))
            found = space.recover(cluster, cluster, name, quota_bytes)
            if not found.disarmed:
                break
        assert not found.disarmed and "larger --quota-backend-bytes" in str(found)
        assert cluster.status(etcd.nodes[0].address).no_space
