"""The log on etcd when answers, requests and watches are lost: on three real nodes, with a client that loses them."""

from __future__ import annotations

import contextlib
import itertools
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from support.etcd_cluster import EtcdCluster
from support.etcd_log import EtcdTable, FaultyClient, FaultyLog, Lost, NoRoom, wait_at_most
from support.servers import free_port
from support.stepped import Stepped
from support.witness import dump_of

from kvzmq import errors
from kvzmq.store.etcd import appends, etcd_log, feed, layout
from kvzmq.store.etcd.appends import AppendState
from kvzmq.store.etcd.client import EtcdClient, delete_op, prefix_end, put_op
from kvzmq.store.etcd.etcd_log import EtcdLog
from kvzmq.store.etcd.layout import Keys
from kvzmq.store.etcd.reader import Tail, read_tail
from kvzmq.store.etcd.reserve import stored_bytes
from kvzmq.store.log import SEMANTICS, Checkpoint

MEMBERS = 3
PATIENCE_S = 60.0


@pytest.fixture
def table(etcd_cluster: EtcdCluster, etcd_name: str) -> Iterator[EtcdTable]:
    table = EtcdTable(etcd_cluster.addresses, etcd_name)
    yield table
    table.close()


def groups_of(table: EtcdTable) -> list[Checkpoint | bytes]:
    """Return what a newcomer recovers."""
    return list(table.open().recover())


def resolved(log: EtcdLog) -> Sequence[bytes]:
    """Ask until the log can say, and return what it says."""
    for _ in range(int(PATIENCE_S / appends.RESOLVE_S_MAX)):
        try:
            return log.resolve()
        except errors.AppendUnknown:
            time.sleep(0.001)
    raise AssertionError("the log never said what became of the group")


def appended(log: EtcdLog, group: bytes) -> Sequence[bytes]:
    """Append, and ask until the log can say if it could not in time."""
    try:
        return log.append(group)
    except errors.AppendUnknown:
        return resolved(log)


def received(log: EtcdLog, count: int) -> list[bytes]:
    """Return the next groups of others, after waiting for them."""
    found: list[bytes] = []
    while len(found) < count:
        assert select.select(log.descriptors(), [], [], PATIENCE_S)[0], f"{len(found)} of {count} groups came"
        found += log.receive()
    return found


def begun_unknown(log: FaultyLog, group: bytes) -> None:
    with pytest.raises(errors.AppendUnknown):
        log.append(group)
    assert log.state in (AppendState.OPEN, AppendState.PIECES)


# ---- one server


def test_a_group_for_which_there_is_no_room_is_refused_and_nothing_is_sent(table: EtcdTable) -> None:
    """Guarantee 17. Groups of others take room as well."""
    log, other = table.follow(), table.follow()
    log.append(b"one")
    sent = len(log.client.transactions)
    log.reserve.renew(log.stored_bytes, stored_bytes(1000, 2), 1 << 30)
    other.append(b"two")
    assert received(log, 1) == [b"two"]
    with pytest.raises(errors.WriteRejected, match=r"^not applied: etcd's quota of 1.0 GiB is used up but for"):
        log.append(bytes(1000))
    assert len(log.client.transactions) == sent and log.state is AppendState.IDLE
    log.reserve.renew(log.stored_bytes, 1 << 29, 1 << 30)
    assert log.append(b"three") == [] and groups_of(table) == [b"one", b"two", b"three"]


def test_an_append_whose_answer_is_lost_is_sent_again_and_in_the_log_once(table: EtcdTable) -> None:
    """Guarantee 5. Turned red by leaving out the comparison: the group was in the log twice."""
    log = table.follow()
    assert log.append(b"one") == []
    log.client.lose_answers(1)
    sent = len(log.client.transactions)
    assert log.append(b"two") == []
    assert len(log.client.transactions) >= sent + 2  # or more, when etcd elects a leader meanwhile
    assert log.append(b"three") == [] and log.group == 3
    assert groups_of(table) == [b"one", b"two", b"three"]


def test_a_group_whose_answers_are_all_lost_is_found_in_the_log(table: EtcdTable) -> None:
    """Guarantee 11."""
    log = table.follow()
    log.append(b"one")
    log.client.lose_answers(MEMBERS)
    begun_unknown(log, b"two")
    with pytest.raises(AssertionError, match="nothing is appended"):
        log.append(b"three")
    assert resolved(log) == [] and log.group == 2
    log.append(b"three")
    assert groups_of(table) == [b"one", b"two", b"three"]


def test_a_group_that_never_got_there_is_refused_and_cannot_get_there_later(table: EtcdTable) -> None:
    """Guarantee 11. Turned red by only looking for the group, without the fence: it appeared afterwards."""
    log = table.follow()
    log.append(b"one")
    log.client.lose_requests(MEMBERS)
    begun_unknown(log, b"two")
    late = log.client.transactions[-1]
    with pytest.raises(errors.WriteRejected, match=r"not applied: .*planted"):
        resolved(log)
    assert not log.client.transact(late).succeeded, "the request, at last"
    log.append(b"three")
    assert not log.client.transact(late).succeeded
    assert groups_of(table) == [b"one", b"three"] and log.group == 2


@pytest.mark.parametrize("keeps", [True, False])
def test_a_fence_whose_answer_is_lost_is_asked_again(table: EtcdTable, keeps: bool) -> None:
    """Guarantee 11, when the second answer is lost as well."""
    log = table.follow()
    log.append(b"one")
    (log.client.lose_answers if keeps else log.client.lose_requests)(MEMBERS)
    begun_unknown(log, b"two")
    log.client.lose_answers(1)
    with pytest.raises(errors.AppendUnknown):
        log.resolve()
    if keeps:
        assert resolved(log) == []
    else:
        with pytest.raises(errors.WriteRejected, match="not applied"):
            resolved(log)
    assert groups_of(table) == [b"one", b"two"][: 1 + keeps]


def test_every_answer_that_is_lost_leaves_a_log_that_says_the_truth(table: EtcdTable) -> None:
    """Guarantee 11: requests and answers lost at every point of registering, appending and fencing."""
    log = table.follow()
    expected = []
    for number, (requests, answers) in enumerate(itertools.product(range(5), range(5))):
        group = b"%d" % number
        log.client.lose_requests(requests)
        log.client.lose_answers(answers)
        try:
            try:
                log.append(group)
            except errors.AppendUnknown:
                resolved(log)
            expected.append(group)
        except errors.WriteRejected:
            pass
        log.client.mend()
        if number % 3 == 0:
            log.close()
            log = table.follow()
            assert log.group == len(expected)
    assert 5 < len(expected) < 25
    assert groups_of(table) == expected


def test_while_etcd_does_not_answer_nothing_blocks_for_long(table: EtcdTable) -> None:
    """Guarantee 11: the server serves in between."""
    log = table.follow()
    log.append(b"one")
    log.client.cut()
    begun_unknown(log, b"two")
    for _ in range(3):
        began_s = time.monotonic()
        with pytest.raises(errors.AppendUnknown):
            log.resolve()
        assert time.monotonic() - began_s < PATIENCE_S / 2
    assert log.receive() == []
    log.client.mend()
    with pytest.raises(errors.WriteRejected):
        resolved(log)
    log.client.cut()
    with pytest.raises(errors.LogUnreachable):
        log.barrier()
    log.client.mend()
    assert log.barrier() == []


def test_where_no_member_listens_a_change_is_certainly_not_applied(etcd_name: str, table: EtcdTable) -> None:
    """Guarantee 11: nothing was sent, which gRPC says in words."""
    nobody = EtcdLog(EtcdClient([f"127.0.0.1:{free_port()}" for _ in range(3)]), etcd_name)
    with pytest.raises(errors.StorageFatal, match="cannot be read from etcd"):
        list(nobody.recover())
    log = table.follow()
    log.append(b"one")
    nobody.close()
    real = log.client
    log.client = log._appends.client = FaultyClient([f"127.0.0.1:{free_port()}"])
    with pytest.raises(errors.WriteRejected, match=r"not applied: .*failed to connect"):
        log.append(b"two")
    with pytest.raises(errors.LogUnreachable, match="failed to connect"):
        log.barrier()
    log.client.close()
    log.client = log._appends.client = real
    log.append(b"three")
    assert groups_of(table) == [b"one", b"three"]


def test_what_one_member_may_have_done_is_not_refused_as_the_next_cannot_be_reached(table: EtcdTable) -> None:
    """Guarantee 11. Turned red by the last attempt's error alone: "not applied" was said of what was applied."""
    table.addresses = [table.addresses[0], f"127.0.0.1:{free_port()}"]
    log = table.follow()
    log.append(b"one")
    log.client.lose_answers(1)
    begun_unknown(log, b"two")
    assert resolved(log) == []
    assert groups_of(table) == [b"one", b"two"]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_change_for_which_etcd_says_it_has_no_room_may_be_in_the_log_all_the_same(
    table: EtcdTable, keeps: bool
) -> None:
    """Guarantee 11: the check that etcd makes as it applies a change does not keep it from being applied."""
    log = table.follow()
    log.append(b"one")
    if keeps:
        log.client.lose_answers(MEMBERS, NoRoom)
    else:
        log.client.lose_requests(MEMBERS)
    begun_unknown(log, b"two")
    if keeps:
        assert resolved(log) == []
    else:
        with pytest.raises(errors.WriteRejected):
            resolved(log)
    assert groups_of(table) == [b"one", b"two"][: 1 + keeps]


# ---- long groups


@pytest.mark.parametrize("length", [layout.INLINE_BYTES_MAX, layout.INLINE_BYTES_MAX + 1, 8 << 20])
def test_a_group_longer_than_a_request_to_etcd_is_appended_in_pieces(table: EtcdTable, length: int) -> None:
    log, other = table.follow(), table.follow()
    group = (b"0123456789" * (length // 10 + 1))[:length]
    appended(log, group)
    assert received(other, 1) == [group]
    assert groups_of(table) == [group]


@pytest.mark.parametrize("answers", [False, True])
def test_a_piece_that_is_lost_is_put_again(table: EtcdTable, answers: bool) -> None:
    log = table.follow()
    log.append(b"one")
    group = bytes(3 << 20)
    (log.client.lose_answers if answers else log.client.lose_requests)(2)
    appended(log, group)
    assert groups_of(table) == [b"one", group]


def test_a_long_group_whose_pieces_cannot_be_put_is_refused_and_leaves_nothing(
    table: EtcdTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guarantee 11. The server serves while they are on their way."""
    log = table.follow()
    log.append(b"one")
    monkeypatch.setattr(appends, "PIECES_S_MAX", 0.0)
    log.client.lose_requests(1)
    with pytest.raises(errors.WriteRejected, match="Write less at a time"):
        log.append(bytes(3 << 20))
    prefix = f"{table.name}/chunk/".encode()
    assert log.client.range(prefix, prefix_end(prefix), count_only=True).count == 0
    log.append(b"two")
    assert groups_of(table) == [b"one", b"two"]


# ---- two servers


def test_the_order_is_that_of_the_appends_whatever_the_keys_are_called(table: EtcdTable) -> None:
    """Guarantee 2. Turned red by taking groups in the order of their keys."""
    logs = [table.follow() for _ in range(3)]
    expected = [b"%d" % number for number in range(30)]
    returned: list[list[bytes]] = [[] for _ in logs]
    for number, group in enumerate(expected):
        turn = number * 7 % 3
        returned[turn] += [*logs[turn].append(group), group]
    assert all(found == expected[: len(found)] for found in returned)
    assert groups_of(table) == expected
    for log, found in zip(logs, returned):
        found += log.barrier()
        assert found == expected and log.group == 30


def test_what_comes_behind_a_group_of_unknown_fate_waits_for_it(table: EtcdTable) -> None:
    """Guarantee 2. Turned red by handing out all that has come."""
    log, other = table.follow(), table.follow()
    log.append(b"zero")
    assert other.append(b"one") == [b"zero"]
    log.client.lose_answers(MEMBERS)
    begun_unknown(log, b"two")
    assert other.append(b"three") == [b"two"]
    assert select.select(log.descriptors(), [], [], PATIENCE_S)[0]
    until_s = time.monotonic() + PATIENCE_S
    found: list[bytes] = []
    while log.group + log.describe()["etcd_groups_waiting"] < 4:
        assert time.monotonic() < until_s
        found += log.receive()
    found += log.receive()
    found += resolved(log)
    assert found == [b"one"] and log.group == 3
    assert received(log, 1) == [b"three"]


def test_a_group_of_unknown_fate_that_was_trimmed_meanwhile_is_not_appended_again(table: EtcdTable) -> None:
    """Guarantee 5. Turned red by taking a log key that is not there for a group that never was."""
    log, other = table.follow(), table.follow()
    log.append(b"one")
    log.client.lose_answers(MEMBERS)
    begun_unknown(log, b"two")
    received(other, 2)
    other.write_checkpoint(Checkpoint(2, iter([b"one and two"])))
    other.truncate(2)
    assert not log.client.transact(log.client.transactions[-1]).succeeded, "the request once more"
    assert resolved(log) == []
    log.append(b"three")
    checkpoint, *groups = groups_of(table)
    assert isinstance(checkpoint, Checkpoint) and checkpoint.group == 2 and groups == [b"three"]


@pytest.mark.parametrize("is_open", [False, True])
def test_a_server_whose_key_somebody_else_has_removed_ends_and_says_nothing_of_its_group(
    is_open: bool, table: EtcdTable
) -> None:
    """Guarantee 11: it may have landed and been trimmed since. Turned red by taking it for one that never was."""
    log, other = table.follow(), table.follow()
    log.append(b"one")
    if is_open:
        log.client.lose_answers(MEMBERS)
        begun_unknown(log, b"two")
        received(other, 2)
        other.write_checkpoint(Checkpoint(2, iter([b"one and two"])))
        other.truncate(2)
    other.client.delete_range(log.keys.server(log.server))
    with pytest.raises(errors.StorageFatal, match="only this server may remove"):
        _ = resolved(log) if is_open else log.append(b"two")


def test_a_read_waits_for_the_watch_and_is_refused_when_it_lags(
    table: EtcdTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guarantee 4. Turned red by a barrier that does not wait: a read saw what was there before."""
    other = table.follow()
    wait_at_most(monkeypatch, 2.0)
    log = table.follow()
    log.client.hold_watches(MEMBERS)
    assert appended(other, b"one") == []
    with pytest.raises(errors.LogUnreachable, match="have not arrived"):
        log.barrier()
    with pytest.raises(errors.AppendUnknown, match="have come yet"):
        log.append(b"two")
    assert log.state is AppendState.LANDED
    with pytest.raises(errors.AppendUnknown):
        log.resolve()
    log.client.mend()
    assert resolved(log) == [b"one"] and log.group == 2
    assert log.barrier() == []


def test_reads_go_on_where_etcd_answers_again_and_takes_its_time(
    table: EtcdTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned red by a barrier that, once one has failed, never waits for as long as etcd takes."""
    wait_at_most(monkeypatch, 30.0)
    monkeypatch.setattr(etcd_log, "BARRIER_PATIENT_EVERY_S", 0.01)
    log = table.follow()
    log.client.cut()
    with pytest.raises(errors.LogUnreachable):
        log.barrier()
    log.client.mend()
    exchange = log.client._exchange

    def answer_the_patient(address: str, method: Any, request: Any, timeout_s: float) -> Any:
        if timeout_s < 1.0:
            raise Lost
        return exchange(address, method, request, timeout_s)

    monkeypatch.setattr(log.client, "_exchange", answer_the_patient)
    for _ in range(100):
        with contextlib.suppress(errors.LogUnreachable):
            assert log.barrier() == []
            return
        time.sleep(0.001)
    raise AssertionError("no read succeeds")


def test_a_watch_that_lags_is_begun_at_another_member(table: EtcdTable) -> None:
    log, other = table.follow(), table.follow()
    other.append(b"one")
    received(log, 1)
    log.client.hold_watches(1)
    other.append(b"two")
    found: list[bytes] = []
    until_s = time.monotonic() + PATIENCE_S
    while not found and time.monotonic() < until_s:
        try:
            found += log.barrier()
        except errors.LogUnreachable:
            found += log.receive()
    assert found == [b"two"] and log.describe()["etcd_watches"] > 1


def test_a_watch_goes_on_where_etcd_has_forgotten_the_history(table: EtcdTable) -> None:
    """The keys are there: nothing is lost while the log is not trimmed. Turned red by a watch from now on."""
    log, other = table.follow(), table.follow()
    other.append(b"one")
    received(log, 1)
    log.client.end_watches()
    other.append(b"two")
    other.append(bytes(2 << 20))
    other.client.compact(other.client.range(b"x").header.revision)
    log.client.mend()
    assert received(log, 2) == [b"two", bytes(2 << 20)]
    other.append(b"three")
    assert received(log, 1) == [b"three"]


def test_a_recovery_during_which_etcd_forgets_the_history_begins_again(
    table: EtcdTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server starts while another one has etcd compacted. Turned red by looking for trimmed groups alone."""
    other = table.follow()
    other.append(b"one")

    def read_and_forget(client: EtcdClient, keys: Keys) -> Tail:
        monkeypatch.undo()
        tail = read_tail(client, keys)
        other.append(b"two")
        client.compact(client.range(b"x").header.revision)
        return tail

    monkeypatch.setattr(etcd_log, "read_tail", read_and_forget)
    assert groups_of(table) == [b"one", b"two"]


_CANCEL_WATCHES = """
import os, sys
from kvzmq.store.etcd import messages_pb2 as pb
from kvzmq.store.etcd.client import EtcdClient

client = EtcdClient(sys.argv[1].split(","))
def cancel_watches(number):
    for _ in range(number):
        stream = client.watch(pb.WatchCreateRequest(key=b"x", start_revision=1), client.address)
        next(stream)
        stream.cancel()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = cancel_watches(100)
print((cancel_watches(400) - before) // 400)
"""


def test_a_watch_that_was_given_up_leaves_no_memory_behind(etcd_cluster: EtcdCluster) -> None:
    """A slow etcd has a server give up three a second. Seen red with gRPC's SingleThreadedUnaryStream: 19 kB each."""
    grown = subprocess.run(
        [sys.executable, "-c", _CANCEL_WATCHES, ",".join(etcd_cluster.addresses)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert int(grown.stdout) < 6000


def fall_behind(log: FaultyLog, other: FaultyLog) -> None:
    """Have a log miss two groups, which only a checkpoint holds then."""
    log.client.end_watches()
    other.append(b"one")
    other.append(b"two")
    other.write_checkpoint(Checkpoint(2, iter([b"both"])))
    other.truncate(2)
    other.client.compact(other.client.range(b"x").header.revision)
    log.client.mend()
    assert select.select(log.descriptors(), [], [], PATIENCE_S)[0]


def test_a_server_that_is_behind_the_trimming_begins_again_from_the_checkpoint(table: EtcdTable) -> None:
    """Guarantee 7: a gap is never skipped. Turned red by going on behind it."""
    log, other = table.follow(), table.follow()
    fall_behind(log, other)
    with pytest.raises(errors.WriteRejected, match="not applied: this server is behind"):
        log.append(b"three")
    with pytest.raises(errors.LogUnreachable, match="this server is behind"):
        log.barrier()
    with pytest.raises(errors.LogTrimmed, match="this server is behind"):
        log.receive()
    descriptors = log.descriptors()
    (checkpoint,) = log.recover()
    assert isinstance(checkpoint, Checkpoint) and list(checkpoint.sections) == [b"both"] and log.group == 2
    assert log.append(b"three") == [] and log.descriptors() == descriptors
    other.append(b"four")
    assert received(log, 1) == [b"four"]


@pytest.mark.parametrize("keeps", [False, True])
def test_a_server_behind_the_trimming_whose_own_group_is_open_executes_nothing_twice(
    table: EtcdTable, keeps: bool
) -> None:
    """Guarantee 5: what is in the checkpoint is not executed on top of it."""
    log, other = table.follow(), table.follow()
    log.append(b"zero")
    received(other, 1)
    (log.client.lose_answers if keeps else log.client.lose_requests)(MEMBERS)
    log.client.end_watches()
    begun_unknown(log, b"mine")
    other.append(b"one")
    other.write_checkpoint(Checkpoint(other.group, iter([b"all"])))
    other.truncate(other.group)
    other.client.compact(other.client.range(b"x").header.revision)
    log.client.mend()
    assert select.select(log.descriptors(), [], [], PATIENCE_S)[0]
    assert log.receive() == ()
    if keeps:
        with pytest.raises(errors.StorageFatal, match="start again"):
            resolved(log)
    else:
        with pytest.raises(errors.WriteRejected):
            resolved(log)
        assert select.select(log.descriptors(), [], [], PATIENCE_S)[0]
        with pytest.raises(errors.LogTrimmed):
            log.receive()


def test_what_waits_to_be_applied_is_bounded(table: EtcdTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 9: then etcd keeps the rest."""
    monkeypatch.setattr(feed, "QUEUE_BYTES_MAX", 3000)
    log, other = table.follow(), table.follow()
    for _ in range(20):
        other.append(bytes(1000))
    assert received(log, 1) == [bytes(1000)] * 3
    found = log.barrier()
    assert len(found) == 17, "the barrier takes them as they come"


def test_a_store_behind_the_trimming_is_built_anew_and_its_watches_end(table: EtcdTable) -> None:
    """Guarantee 7. Turned red by going on with the rows that were there."""
    with Stepped(log=table.open()) as served, Stepped(log=table.open()) as other:
        watcher, writer = served.zmq(), other.zmq()
        assert other.call(writer, "insert", "old", 1) == (0, None)
        assert served.call(watcher, "size") == (0, 1)
        number = served.call(watcher, "watch", "")[1]
        log, trimmer = table.logs[0], table.logs[1]
        assert isinstance(log, FaultyLog)
        log.client.end_watches()
        assert other.call(writer, "remove", "old") == (0, None)
        assert other.call(writer, "insert", "new", 2) == (0, None)
        trimmer.write_checkpoint(Checkpoint(trimmer.group, other.store.table.dump()))
        trimmer.truncate(trimmer.group)
        trimmer.client.compact(trimmer.client.range(b"x").header.revision)
        assert other.call(writer, "insert", "newest", 3) == (0, None)
        log.client.mend()
        served.until(lambda: served.store.revision == 4)
        (event,) = served.events(watcher, 1)
        assert event[2][0] == number and errors.RevisionGone.code in event[2]
        assert dump_of(served.store.table) == dump_of(other.store.table)
        assert served.call(served.zmq(), "increment", "newest") == (0, 4)


# ---- what is in etcd is not what was written


def put(table: EtcdTable, key: bytes, value: bytes) -> None:
    table.logs[0].client.txn((), [put_op(key, value)])


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (b"", errors.CorruptionError, "are no group"),
        (layout.encode_inline(b"group")[:-1] + b"x", errors.CorruptionError, "checksum"),
        (bytes([7]) + layout.encode_inline(b"group")[1:], errors.WrittenByNewer, "newer version"),
        (bytes([0, SEMANTICS + 1]) + layout.encode_inline(b"group")[2:], errors.WrittenByNewer, "newer version"),
        (bytes([1]) + layout.encode_inline(b"group")[1:], errors.CorruptionError, "where the group is"),
    ],
)
def test_a_group_that_is_not_what_was_written_is_never_applied(
    table: EtcdTable, value: bytes, error: type[Exception], says: str
) -> None:
    """Guarantee 7: at the start, and while a server follows."""
    log, other = table.follow(), table.follow()
    log.append(b"one")
    received(other, 1)
    put(table, log.keys.group("0123456789abcdef", 1), value)
    log.client.txn((), [put_op(log.keys.tail, b"")])
    with pytest.raises(error, match=says):
        groups_of(table)
    assert select.select(other.descriptors(), [], [], PATIENCE_S)[0]
    with pytest.raises(errors.StorageFatal, match=says):
        other.receive()


def test_a_group_that_is_missing_is_noticed(table: EtcdTable) -> None:
    """Guarantee 7. Turned red by taking the groups that are there."""
    log = table.follow()
    for group in (b"one", b"two", b"three"):
        log.append(group)
    log.client.txn((), [delete_op(log.keys.group(log.server, 2))])
    with pytest.raises(errors.StorageFatal, match="2 groups after group 0, but there should be 3"):
        groups_of(table)


@pytest.mark.parametrize("call", [EtcdLog.barrier, lambda log: log.append(b"x")])
def test_an_etcd_that_went_back_in_time_is_not_served_from(table: EtcdTable, call: Callable[[EtcdLog], object]) -> None:
    log = table.follow()
    for group in (b"one", b"two", b"three"):
        log.append(group)
    log.client.txn((), [delete_op(log.keys.tail)])
    with pytest.raises(errors.StorageFatal, match="older snapshot"):
        call(log)
