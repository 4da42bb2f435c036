"""What every log promises, whoever keeps it; and what two stores on one log promise each other.

Each test of the first part runs over FileLog on a real directory, FileLog on the disk that forgets, a log in memory
that several stores share, and one that a real etcd cluster of three nodes keeps. Those of the second part run over the
last two, but for the ones that plant a fault in the log: test_etcd_log.py plants those of etcd.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.calls import noting
from support.etcd_log import EtcdTable
from support.forgetful import Disk
from support.shared_log import SharedGroups, SharedLog
from support.wire import results_of
from support.witness import Clients, apply, commit, copy_of, dump_of, raw, request

from kvzmq import errors
from kvzmq.protocol import operations
from kvzmq.protocol.messages import Reply, Request
from kvzmq.store.file.file_log import FileLog
from kvzmq.store.file.files import DiskDirectory
from kvzmq.store.group import Group, GroupState
from kvzmq.store.log import Checkpoint, Log
from kvzmq.store.store import Store, compact

SESSION = b"s" * 16
Opener = Callable[[], Log]


def etcd_table(request: pytest.FixtureRequest) -> EtcdTable:
    """Return the table of this test on the cluster of the session."""
    table = EtcdTable(request.getfixturevalue("etcd_cluster").addresses, request.getfixturevalue("etcd_name"))
    request.addfinalizer(table.close)
    return table


def shared_groups(request: pytest.FixtureRequest) -> SharedGroups:
    """Return groups whose logs are closed with this test."""
    shared = SharedGroups()
    request.addfinalizer(shared.close)
    return shared


@pytest.fixture(params=["file", "forgetful file", "shared", "etcd"])
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """A function that opens the one log of this test, again and again."""
    if request.param == "file":
        return lambda: FileLog(DiskDirectory(tmp_path / "table"))
    if request.param == "forgetful file":
        disk = Disk()
        return lambda: FileLog(disk.open())
    if request.param == "etcd":
        return etcd_table(request).open
    return partial(SharedLog, shared_groups(request))


def recovered(log: Log) -> list[Checkpoint | bytes]:
    return list(log.recover())


def opened(open_log: Opener) -> Store:
    store = Store(open_log())
    store.recover()
    return store


def run(store: Store, time_us: int, *requests: Request) -> list[Reply]:
    return apply(store, requests, time_us)


def payload(reply: Reply) -> Any:
    ((code, found),) = results_of(reply)
    return errors.error_of(code, found) if code else found


# ---- every log


def test_a_new_log_is_empty(open_log: Opener) -> None:
    log = open_log()
    assert recovered(log) == []
    log.close()


def test_a_group_that_was_synced_is_yielded_by_every_recovery(open_log: Opener) -> None:
    log = open_log()
    recovered(log)
    groups = [b"", b"one", bytes(range(256)) * 40, b"\0" * 5000]
    for number, group in enumerate(groups, start=1):
        commit(log, group)
        assert log.group == number
    log.close()
    for _ in range(2):
        log = open_log()
        assert recovered(log) == groups and log.group == len(groups)
        log.close()


def test_a_recovered_log_goes_on_where_it_ended(open_log: Opener) -> None:
    for number in range(5):
        log = open_log()
        assert recovered(log) == [b"%d" % before for before in range(number)]
        commit(log, b"%d" % number)
        log.close()


def test_nothing_stands_between_a_commit_and_a_read_of_its_own_store(open_log: Opener) -> None:
    log = open_log()
    recovered(log)
    commit(log, b"one")
    assert list(log.barrier()) == list(log.receive()) == []
    log.close()


def test_a_log_says_how_long_it_blocks_and_which_descriptors_wake_its_server(open_log: Opener) -> None:
    log = open_log()
    recovered(log)
    assert log.block_s_max >= 0
    descriptors = list(log.descriptors())
    commit(log, b"one")
    assert select.select(descriptors, [], [], 0)[0] == [], "nobody else has appended"
    log.close()


def test_a_checkpoint_and_the_groups_after_it_are_what_recovery_yields(open_log: Opener) -> None:
    log = open_log()
    recovered(log)
    commit(log, b"one")
    commit(log, b"two")
    sealed = log.seal()
    commit(log, b"three")
    assert sealed == 2
    log.write_checkpoint(Checkpoint(sealed, iter([b"section", b"another"])))
    log.truncate(sealed - 1)
    log.truncate(sealed)
    commit(log, b"four")
    log.close()
    for _ in range(2):
        log = open_log()
        found = log.recover()
        checkpoint = next(found)
        assert isinstance(checkpoint, Checkpoint) and checkpoint.group == 2
        assert list(checkpoint.sections) == [b"section", b"another"]
        assert list(found) == [b"three", b"four"] and log.group == 4
        log.close()


def test_a_truncation_keeps_what_the_checkpoint_does_not_hold(open_log: Opener) -> None:
    """Guarantee 8. Red when the sealed groups went though the checkpoint was written as of an earlier one."""
    log = open_log()
    recovered(log)
    for group in (b"one", b"two", b"three"):
        commit(log, group)
    log.seal()
    log.write_checkpoint(Checkpoint(2, iter([b"section"])))
    log.truncate(2)
    log.close()
    log = open_log()
    found = log.recover()
    checkpoint = next(found)
    assert isinstance(checkpoint, Checkpoint)
    list(checkpoint.sections)
    assert b"three" in list(found)
    log.close()


def test_a_compacted_log_is_the_same_table(open_log: Opener) -> None:
    """Guarantee 8: `compact` is recovery written down. The log it is given ends with what it has recovered."""
    clients = Clients(Random(3), value_bytes_max=300)
    store = opened(open_log)
    run(store, clients.time(), *clients.opening())
    for _ in range(20):
        run(store, clients.time(), *clients.batch())
    expected, groups = dump_of(store.table), store.seal()
    assert store.records == 0
    store.log.write_checkpoint(Checkpoint(groups, iter(expected)))
    store.log.truncate(groups)
    store.close()
    store = opened(open_log)
    assert dump_of(store.table) == expected and store.records == 0
    store.close()


def test_a_store_is_what_its_log_says(open_log: Opener, count: Callable[[str, int], None]) -> None:
    """Guarantee 2, determinism: the table recovered is the table that executed, in every part.

    Turned red by leaving `advance` out of replay, and by logging reads of a group as well.
    """
    clients = Clients(Random(1), value_bytes_max=300)
    store = opened(open_log)
    run(store, clients.time(), *clients.opening())
    for _ in range(30):
        for _ in range(10):
            run(store, clients.time(), *clients.batch())
        expected = dump_of(store.table)
        store.close()
        store = opened(open_log)
        assert dump_of(store.table) == expected
    store.close()


def test_a_retry_after_recovery_gets_the_first_result(open_log: Opener) -> None:
    """Guarantee 5. Turned red by not keeping results, and by a floor that is ignored."""
    store = opened(open_log)
    run(store, 1, request(SESSION, 1, operations.Open()), request(SESSION, 2, operations.Insert("a", raw(1))))
    remove = request(SESSION, 3, operations.Remove("a"))
    (first,) = run(store, 2, remove)
    store.close()
    store = opened(open_log)
    (again,) = run(store, 3, remove)
    assert payload(first) is None and again == first
    assert store.groups == 0, "a retry is not logged again"
    store.close()


def test_a_number_with_another_body_is_refused(open_log: Opener) -> None:
    store = opened(open_log)
    run(store, 1, request(SESSION, 1, operations.Open()), request(SESSION, 2, operations.Insert("a", raw(1))))
    (refused,) = run(store, 2, request(SESSION, 2, operations.Insert("a", raw(2))))
    assert isinstance(payload(refused), errors.SequenceReused)
    assert payload(run(store, 3, request(None, 1, operations.Lookup("a")))[0]) == 1
    store.close()


def test_the_same_request_twice_in_one_step_executes_once(open_log: Opener) -> None:
    """Guarantee 5. Turned red by not looking for kept results at execution."""
    store = opened(open_log)
    run(store, 1, request(SESSION, 1, operations.Open()))
    increment = request(SESSION, 2, operations.Increment("n"))
    assert [payload(reply) for reply in run(store, 2, increment, increment, increment)] == [1, 1, 1]
    expected = dump_of(store.table)
    store.close()
    store = opened(open_log)
    assert dump_of(store.table) == expected
    store.close()


def test_a_retry_whose_session_its_own_group_pushes_out_is_answered_not_executed(
    open_log: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guarantees 1, 5: executed but not logged, its change would be gone after a restart.

    Turned red by asking for kept results at execution only, as the first version did.
    """
    monkeypatch.setattr("kvzmq.store.sessions.SESSIONS_MAX", 2)
    store = opened(open_log)
    first = request(b"1" * 16, 1, operations.Increment("n"))
    run(store, 1, first)
    run(store, 2, request(b"2" * 16, 1, operations.Open()))
    replies = run(store, 3, request(b"3" * 16, 1, operations.Open()), first)
    assert payload(replies[1]) == 1
    expected = dump_of(store.table)
    assert store.table.revision == 1
    store.close()
    store = opened(open_log)
    assert dump_of(store.table) == expected
    store.close()


def test_rows_expire_by_a_commit_of_their_own(open_log: Opener) -> None:
    """Guarantee 2: expiry is in the log. Turned red by expiring rows when they are read."""
    store = opened(open_log)
    run(store, 1_000_000, request(None, 1, operations.Insert("a", raw(1), 1.0)))
    run(store, 1_999_999)
    assert len(store.table.rows) == 1 and store.groups == 1
    run(store, 2_000_000)
    assert len(store.table.rows) == 0 and store.groups == 2
    store.close()
    store = opened(open_log)
    assert len(store.table.rows) == 0 and store.table.revision == 2
    store.close()


def test_the_table_s_time_never_runs_back(open_log: Opener) -> None:
    """Turned red by taking the group's time as it is."""
    store = opened(open_log)
    run(store, 5_000_000, request(None, 1, operations.Insert("a", raw(1), 1.0)))
    run(store, 1_000_000, request(None, 1, operations.Insert("b", raw(1), 1.0)))
    assert store.table.time_us == 5_000_000
    assert store.table.expiries.get("b") == 6_000_000
    expected = dump_of(store.table)
    store.close()
    store = opened(open_log)
    assert dump_of(store.table) == expected
    store.close()


def test_a_time_to_live_shrinks_while_nothing_is_written(open_log: Opener) -> None:
    """Turned red by reading it against the time of the last write."""
    store = opened(open_log)
    run(store, 1_000_000, request(None, 1, operations.Insert("a", raw(1), 10.0)))
    assert payload(run(store, 5_000_000, request(None, 1, operations.Ttl("a")))[0]) == 6.0
    assert store.groups == 1
    store.close()


# ---- two stores on one log


@pytest.fixture(params=["shared", "etcd"])
def open_shared(request: pytest.FixtureRequest) -> Opener:
    """A function that opens a log to which others append, again and again."""
    if request.param == "etcd":
        return etcd_table(request).open
    return partial(SharedLog, shared_groups(request))


@pytest.fixture
def two(open_shared: Opener) -> tuple[Store, Store]:
    return opened(open_shared), opened(open_shared)


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> tuple[Store, Store, SharedGroups]:
    shared = shared_groups(request)
    stores = Store(SharedLog(shared)), Store(SharedLog(shared))
    for store in stores:
        store.recover()
    return *stores, shared


Pair = tuple[Store, Store, SharedGroups]


def interleave(random: Random, open_log: Opener, groups: int) -> list[bytes]:
    """Have three stores, whose clocks differ, commit in turn; return the table that they and a newcomer agree on."""
    stores = [opened(open_log) for _ in range(3)]
    clients = Clients(random, value_bytes_max=200)
    run(stores[0], clients.time(), *clients.opening())
    for _ in range(groups):
        skew_us = random.choice((0, 0, 2_000_000, -3_000_000))
        store = random.choice(stores)
        times = [other.table.time_us for other in stores]
        run(store, clients.time() + skew_us, *clients.batch())
        assert all(after.table.time_us >= before for before, after in zip(times, stores))
    for store in stores:
        apply(store, [request(None, 1, operations.Size())], 0)
    dumps = [dump_of(store.table) for store in (*stores, opened(open_log))]
    assert all(dump == dumps[0] for dump in dumps)
    return dumps[0]


def test_stores_on_one_log_stay_equal_under_interleaved_commits(count: Callable[[str, int], None]) -> None:
    """Guarantee 2: also one that recovers from the log, and one that recovers from a checkpoint of it.

    Turned red by executing one's own requests before the others' groups.
    """
    for seed in range(30):
        with contextlib.closing(SharedGroups()) as shared:
            open_log = partial(SharedLog, shared)
            dump = interleave(Random(seed), open_log, 100)
            shared.checkpoint = (shared.last, dump_of(copy_of(opened(open_log).table)))
            assert dump_of(opened(open_log).table) == dump
    count("interleaved commits of three stores", 3000)


def test_stores_on_an_etcd_cluster_stay_equal_under_interleaved_commits(request: pytest.FixtureRequest) -> None:
    """Guarantee 2, as above. Turned red by taking groups in the order of their keys."""
    for seed in range(3):
        interleave(Random(seed), etcd_table(request).open, 100)


def test_a_retry_through_the_other_store_gets_the_first_result(two: tuple[Store, Store]) -> None:
    """Guarantee 5 across servers, also when the other store has not seen the first execution yet.

    Turned red by not looking for kept results again after the others' groups are applied.
    """
    one, other = two
    run(one, 1, request(SESSION, 1, operations.Open()))
    increment = request(SESSION, 2, operations.Increment("n"))
    (first,) = run(one, 2, increment)
    assert other.table.revision == 0, "the other store has not seen it"
    (again,) = run(other, 3, increment)
    assert again == first and payload(again) == 1
    run(one, 4, request(None, 1, operations.Size()))
    assert dump_of(one.table) == dump_of(other.table)


def test_a_read_sees_what_the_other_store_has_acknowledged(two: tuple[Store, Store]) -> None:
    """Guarantee 4. Turned red by leaving out the barrier."""
    one, other = two
    for number in range(5):
        run(one, number, request(None, 1, operations.Insert("a", raw(number))))
        assert payload(run(other, number, request(None, 1, operations.Lookup("a")))[0]) == number


def test_expiry_agrees_whoever_notices_it(two: tuple[Store, Store]) -> None:
    """Turned red by expiring rows by the local clock, outside the log."""
    one, other = two
    run(one, 1_000_000, request(None, 1, operations.Insert("a", raw(1), 1.0)))
    run(other, 900_000, request(None, 1, operations.Size()))
    run(other, 3_000_000)
    assert "a" not in other.table.rows
    assert isinstance(payload(run(one, 1_500_000, request(None, 1, operations.Lookup("a")))[0]), errors.NoSuchKey)
    assert dump_of(one.table) == dump_of(other.table)


def test_a_refused_commit_changes_neither_store(pair: Pair) -> None:
    """Guarantee 11. Turned red by executing before the log has it."""
    one, two, shared = pair
    run(one, 1, request(SESSION, 1, operations.Open()), request(None, 1, operations.Insert("a", raw(1))))
    shared.fails = errors.WriteRejected
    write = request(SESSION, 2, operations.Remove("a"))
    replies = run(two, 2, write, request(None, 1, operations.Size()))
    assert isinstance(payload(replies[0]), errors.WriteRejected)
    assert payload(run(one, 3, request(None, 1, operations.Size()))[0]) == 1
    assert payload(run(two, 4, write)[0]) is None
    run(one, 5, request(None, 1, operations.Size()))
    assert dump_of(one.table) == dump_of(two.table)


def test_a_log_that_fails_for_good_leaves_the_table_as_it_was(pair: Pair) -> None:
    one, _, shared = pair
    shared.fails = errors.StorageFatal
    with pytest.raises(errors.StorageFatal):
        run(one, 1, request(None, 1, operations.Insert("a", raw(1))))
    assert one.table.revision == 0


def test_a_log_that_was_compacted_elsewhere_recovers_and_goes_on(pair: Pair) -> None:
    """Checkpoint and truncation while others append, as a compaction of a log on a cluster would do it."""
    one, two, shared = pair
    for number in range(10):
        run(one if number % 2 else two, number, request(None, 1, operations.Insert("a", raw(number))))
    run(one, 20, request(None, 1, operations.Size()))
    compact(SharedLog(shared))
    assert shared.groups == {} and shared.checkpoint is not None and shared.checkpoint[0] == 10
    run(one, 21, request(None, 1, operations.Insert("b", raw(1))))
    newcomer = Store(SharedLog(shared))
    newcomer.recover()
    assert dump_of(newcomer.table) == dump_of(one.table)


def test_a_store_that_is_behind_a_truncation_stops(pair: Pair) -> None:
    """Guarantee 7: a gap is never skipped."""
    one, two, shared = pair
    run(one, 1, request(None, 1, operations.Insert("a", raw(1))))
    compact(SharedLog(shared))
    with pytest.raises(errors.StorageFatal, match="truncated before it was applied"):
        run(two, 2, request(None, 1, operations.Size()))


def test_a_store_catches_up_with_what_others_append_without_being_asked(two: tuple[Store, Store]) -> None:
    one, other = two
    (descriptor,) = other.log.descriptors()
    assert select.select([descriptor], [], [], 0)[0] == []
    run(one, 1, request(None, 1, operations.Insert("a", raw(1))))
    assert select.select([descriptor], [], [], 10)[0] == [descriptor]
    other.catch_up()
    assert other.revision == 1 and other.groups == 0
    assert select.select([descriptor], [], [], 0)[0] == []


# ---- a group of which the log cannot tell


def begun_unknown(store: Store, shared: SharedGroups, keeps: bool, time_us: int, *requests: Request) -> Group:
    shared.fails, shared.keeps = errors.AppendUnknown, keeps
    group = store.begin(requests, time_us)
    assert group.state is GroupState.UNKNOWN
    return group


@pytest.mark.parametrize("keeps", [True, False])
def test_a_group_of_unknown_fate_is_executed_or_refused_when_it_is_known(pair: Pair, keeps: bool) -> None:
    """Guarantee 11. Turned red by executing at once, and by taking the unknown for refused."""
    one, two, shared = pair
    run(one, 1, request(SESSION, 1, operations.Open()))
    write = request(SESSION, 2, operations.Increment("n"))
    group = begun_unknown(one, shared, keeps, 2, write)
    shared.answers = False
    assert not group.resolve() and one.trouble
    with pytest.raises(AssertionError):
        group.execute(write)
    with pytest.raises(AssertionError):
        group.sync()
    run(two, 3, request(None, 1, operations.Insert("by another", raw(1))))
    shared.answers = True
    assert group.resolve() and group.state is not GroupState.UNKNOWN
    group.execute(write)
    (reply,) = group.sync()
    if keeps:
        assert payload(reply) == 1
    else:
        assert isinstance(payload(reply), errors.WriteRejected)
    assert payload(run(two, 4, write)[0]) == 1, "a retry elsewhere: once in all"
    run(one, 5, request(None, 1, operations.Size()))
    assert dump_of(one.table) == dump_of(two.table) and one.revision == 2
    assert (one.trouble is None) == keeps


def test_nothing_is_appended_while_the_fate_of_a_group_is_unknown(pair: Pair) -> None:
    """Guarantee 5. Turned red by beginning the next group as if the one before had ended."""
    one, _, shared = pair
    write = request(None, 1, operations.Insert("a", raw(1)))
    begun_unknown(one, shared, True, 1, write)
    for requests in ((request(None, 1, operations.Insert("b", raw(1))),), (request(None, 1, operations.Size()),), ()):
        with pytest.raises(AssertionError, match="a group begins when the one before it has been synced"):
            one.begin(requests, 2)
    with pytest.raises(AssertionError):
        one.seal()
    assert shared.last == 1


def test_what_others_append_behind_an_unknown_group_waits_for_it(pair: Pair) -> None:
    """Guarantee 2: the order of the log. Turned red by handing out what comes after the unknown group."""
    one, two, shared = pair
    run(two, 1, request(None, 1, operations.Insert("first", raw(1))))
    write = request(None, 1, operations.Insert("second", raw(1)))
    group = begun_unknown(one, shared, True, 2, write)
    run(two, 3, request(None, 1, operations.Insert("third", raw(1))))
    one.catch_up()
    assert set(one.table.rows) == {"first"}
    assert group.resolve()
    group.execute(write)
    group.sync()
    one.catch_up()
    assert dump_of(one.table) == dump_of(two.table)


def test_an_epoch_of_unknown_fate_does_not_begin(pair: Pair) -> None:
    one, _, shared = pair
    shared.fails, shared.keeps = errors.AppendUnknown, True
    with pytest.raises(errors.AppendUnknown, match="the log does not answer"):
        one.begin_epoch(1)


# ---- a group is used in one way


def test_a_group_that_is_misused_fails_at_once(open_log: Opener) -> None:
    store = opened(open_log)
    first, second = (request(None, 1, operations.Insert(key, raw(1))) for key in "ab")
    size = request(None, 1, operations.Size())
    group = store.begin([first, size, second], 1)
    with pytest.raises(AssertionError, match="a group begins when"):
        store.begin([size], 2)
    with pytest.raises(AssertionError, match="in its order"):
        group.execute(second)
    group.execute(first)
    with pytest.raises(AssertionError, match="not all writes"):
        group.sync()
    assert len(group.release()) == 1, "what was executed, when it is durable"
    group.execute(size)
    group.execute(second)
    assert [payload(reply) for reply in group.sync()] == [1, None]
    with pytest.raises(AssertionError, match="not open"):
        group.execute(size)
    with pytest.raises(AssertionError, match="not open"):
        group.sync()
    store.close()


def test_the_replies_of_a_group_come_when_it_is_durable(open_log: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 3. Turned red by giving them out without the sync."""
    store = opened(open_log)
    synced: list[int] = []
    sync = store.log.sync
    monkeypatch.setattr(store.log, "sync", noting(lambda: synced.append(1), sync))
    write, size = request(None, 1, operations.Insert("a", raw(1))), request(None, 1, operations.Size())
    for give_out in (Group.release, Group.sync):
        group = store.begin([write], 1)
        group.execute(write)
        assert not synced
        assert len(give_out(group)) == 1 and synced == [1]
        if give_out is Group.release:
            group.sync()
        assert synced == [1], "one sync a group"
        synced.clear()
    run(store, 2, size)
    assert not synced, "a group that changes nothing has nothing to sync"
    store.close()
