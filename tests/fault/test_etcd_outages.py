"""The log on etcd while etcd itself fails: nodes killed and stopped, connections cut, no room, no right to be there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from support.etcd_cluster import ROOT_PASSWORD, EtcdCluster
from support.etcd_log import EtcdTable
from support.proxy import Proxy
from support.stepped import Stepped

from kvzmq import errors
from kvzmq.store.etcd.client import EtcdClient, EtcdNotAllowed
from kvzmq.store.etcd.etcd_log import EtcdLog
from kvzmq.store.etcd.url import Security, read_security

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def table(cluster: EtcdCluster, etcd_name: str) -> Iterator[EtcdTable]:
    table = EtcdTable(cluster.addresses, etcd_name)
    yield table
    cluster.start()
    table.close()


class Appender:
    """Appends numbered groups, whatever happens, and keeps what the log has said of them."""

    def __init__(self, log: EtcdLog) -> None:
        self.log = log
        self.applied: list[bytes] = []
        """Every group, own and others', in the order of the log."""
        self.rejected: set[bytes] = set()
        self.longest_s = 0.0
        """The longest that one call has blocked."""
        self._unknown: bytes | None = None

    def append(self, group: bytes) -> bool:
        """Append a group, or ask what became of an earlier one; True when that is known."""
        began_s = time.monotonic()
        try:
            others = self.log.append(group) if self._unknown is None else self.log.resolve()
        except errors.AppendUnknown:
            self._unknown = group
            self.applied += self.log.receive()
            return False
        except errors.WriteRejected:
            self.rejected.add(group)
        else:
            self.applied += [*others, group]
        finally:
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)
        self._unknown = None
        return True

    def read(self) -> None:
        """Apply what others have appended, after waiting until etcd tells."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.applied += self.log.barrier()
                return
            except errors.LogUnreachable:
                self.applied += self.log.receive()
                assert time.monotonic() < until_s, "etcd never told"


def append_until_known(appender: Appender, group: bytes) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not appender.append(group):
        assert time.monotonic() < until_s, "the log never said what became of it"
        time.sleep(0.005)


def assert_all_agree(table: EtcdTable, appenders: list[Appender]) -> list[bytes]:
    """Check that every log has the same groups, and that nothing rejected is among them; return the groups."""
    found = list(table.open().recover())
    groups = [group for group in found if isinstance(group, bytes)]
    assert len(set(groups)) == len(groups) == len(found), "nothing is in the log twice"
    for appender in appenders:
        appender.read()
        assert appender.applied == groups
        assert not appender.rejected & set(groups)
    return groups


def test_a_leader_that_is_killed_loses_nothing_and_stops_nobody_for_long(
    cluster: EtcdCluster, table: EtcdTable, full: bool, count: Callable[[str, int], None]
) -> None:
    """Guarantees 1, 5 and 11, two servers appending in turn while the leader goes, again and again."""
    appenders = [Appender(table.follow()) for _ in range(2)]
    number, kills = 0, 20 if full else 3
    for _ in range(kills):
        leader = cluster.leader()
        for turn in range(20):
            if turn == 7:
                leader.kill()
            for appender in appenders:
                number += 1
                append_until_known(appender, b"%d" % number)
        leader.start()
        cluster.wait_until_healthy()
    groups = assert_all_agree(table, appenders)
    assert len(groups) + sum(len(appender.rejected) for appender in appenders) == number
    assert max(appender.longest_s for appender in appenders) < 2 * EtcdLog.block_s_max + PATIENCE_S / 4
    count("appends around killed leaders of etcd", number)


def test_connections_that_are_cut_anywhere_leave_a_log_that_says_the_truth(
    cluster: EtcdCluster, etcd_name: str, full: bool
) -> None:
    """Guarantees 5 and 11: the bytes that come back end after any number of them. Turned red by sending without the
    comparison: a group was in the log twice."""
    random = Random(1)
    proxies = [Proxy(node.client_port) for node in cluster.nodes]
    table = EtcdTable([f"127.0.0.1:{proxy.port}" for proxy in proxies], etcd_name)
    try:
        appender = Appender(table.follow())
        for number in range(400 if full else 60):
            if number % 3 == 0:
                random.choice(proxies).cut_after(random.randrange(1, 1000))
            append_until_known(appender, b"%d" % number)
        assert sum(proxy.cuts for proxy in proxies) > 10
        groups = assert_all_agree(table, [appender])
        assert len(groups) + len(appender.rejected) == number + 1
    finally:
        table.close()
        for proxy in proxies:
            proxy.__exit__(None, None, None)


def test_while_no_node_answers_a_server_answers_what_it_can(cluster: EtcdCluster, table: EtcdTable) -> None:
    """Guarantee 11: nothing hangs. What was asked meanwhile and needs the log is refused, or known afterwards."""
    with Stepped(log=table.open()) as served:
        peer, second, third = served.zmq(), served.zmq(), served.zmq()
        assert served.call(peer, "increment", "n") == (0, 1)
        for each in (second, third):
            served.call(each, "ping")
        for node in cluster.nodes:
            node.pause()
        try:
            assert served.call(second, "lookup", "n")[0] == errors.Unavailable.code
            peer.send(["increment", "n"])
            served.until(lambda: served.store.trouble is not None)
            for _ in range(5):
                began_s = time.monotonic()
                assert served.call(second, "ping") == (0, "pong")
                assert served.call(second, "stats")[1]["storage_trouble"]
                assert time.monotonic() - began_s < PATIENCE_S / 4
            code, message = served.call(second, "insert", "b", 1)
            assert code == errors.WriteRejected.code and "not applied" in message
            third.send(["lookup", "n"], seen=0)
            assert served.replies(third)[0][2] == [[0, 1]], "what the server has"
        finally:
            for node in cluster.nodes:
                node.resume()
        (reply,) = served.replies(peer)
        (result,) = reply[2]
        applied = result == [0, 2]
        assert applied or result[0] == errors.WriteRejected.code
        cluster.wait_until_healthy()
        served.now_s += 10
        # Or a moment later: a node that was stopped may be slow, and the server refuses what it cannot vouch for.
        served.until(lambda: served.call(second, "lookup", "n") == (0, 1 + applied))


def test_without_room_changes_are_refused_and_reads_are_served(tmp_path: Path, etcd_name: str) -> None:
    """Guarantee 11: each is looked up, and fenced, which takes no room."""
    with EtcdCluster(tmp_path / "etcd", "--quota-backend-bytes", str(16 << 20)) as cluster:
        table = EtcdTable(cluster.addresses, etcd_name)
        appender, reader = Appender(table.follow()), Appender(table.follow())
        number = 0
        while len(appender.rejected) < 5:
            append_until_known(appender, b"%06d" % number + bytes(200_000))
            number += 1
            assert number < 200
        append_until_known(appender, b"small")
        assert b"small" in appender.rejected
        groups = assert_all_agree(table, [appender, reader])
        assert len(groups) + 6 == number + 1
        table.close()


def test_a_cluster_that_asks_who_one_is_is_used_with_certificate_and_password(tmp_path: Path, etcd_name: str) -> None:
    with EtcdCluster(tmp_path / "etcd", tls=True, auth=True) as cluster:
        assert cluster.tls is not None
        ca, certificate, key, *_ = cluster.tls
        addresses = cluster.addresses

        def client(password: str = ROOT_PASSWORD) -> EtcdClient:
            return EtcdClient(addresses, read_security(ca, certificate, key, "root", password))

        log, other = EtcdLog(client(), etcd_name), EtcdLog(client(), etcd_name)
        assert list(log.recover()) == list(other.recover()) == []
        appender, reader = Appender(log), Appender(other)
        append_until_known(appender, b"one")
        cluster.restart()  # which forgets the tokens
        append_until_known(appender, b"two")
        reader.read()
        assert reader.applied == appender.applied and b"one" in reader.applied
        wrong = client("hunter2")
        with pytest.raises(EtcdNotAllowed) as refused:
            wrong.range(b"a")
        assert "hunter2" not in str(refused.value) + repr(wrong)
        for security in (Security(), read_security(ca=ca)):
            stranger = EtcdClient(addresses, security, timeout_s=2.0)
            with pytest.raises(errors.KvzmqError):
                stranger.range(b"a")
            stranger.close()
        for end in (log, other, wrong):
            end.close()
