"""Every call of the store fails, once or from there on for ever: what the caller is told is what happened.

Guarantee 6, and 1, 2, 3, 11 with it. The outcome of a failing call is WriteRejected, then the change is not
applied, reads go on and later writes work; or StorageFatal, then the process stops without a reply and
the next one has everything acknowledged; or, in a recovery, a refusal to start that harms nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from support.forgetful import CHANGES, Call, Disk, Verdict
from support.witness import Clients, Witnessed, apply, raw, request

from kvzmq import errors
from kvzmq.protocol import operations
from kvzmq.store.file import file_log


@pytest.fixture(autouse=True)
def few_zeros_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no more than a page of zeros ahead, and say nothing of each torn tail."""
    monkeypatch.setattr(file_log, "PREPARED_BYTES", 4096)
    monkeypatch.setattr(logging.getLogger("kvzmq.store.file.file_log"), "disabled", True)


def failing(kind: str, number: int, verdict: Verdict, for_ever: bool) -> Callable[[Call], Verdict]:
    """Return a judge that fails the call `number` of a kind; a truncation only follows a write that failed."""
    left = number

    def judge(call: Call) -> Verdict:
        nonlocal left
        if kind == "truncate" and call.kind == "write":
            return "full"
        if call.kind != kind:
            return None
        left -= 1
        return verdict if left == -1 or (for_ever and left < -1) else None

    return judge


def run(witnessed: Witnessed, clients: Clients) -> bool:
    """Run groups, rotations and compactions; False as soon as the process has to end."""
    for turn in range(12):
        if not witnessed.run_group(clients.batch(), clients.time()):
            return False
        if turn % 4 == 1 and not witnessed.rotate():
            return False
        if turn % 4 == 2:
            witnessed.compact_sealed()
    return True


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("verdict", ["fail", "full"], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
def test_a_failing_call_is_answered_for_what_it_did(
    kind: str, verdict: Verdict, for_ever: bool, full: bool, count: Callable[[str, int], None]
) -> None:
    """Guarantee 6: nothing acknowledged is lost, nothing lost is acknowledged, whichever call fails.

    Turned red by: going on after a failed sync; no sync in `commit`; not cutting back after a failed write.
    """
    failures = stops = refused = 0
    for seed in range(20 if full else 3):
        for number in range(60):
            disk = Disk(Random(seed * 100 + number).randrange)
            witnessed = Witnessed(disk)
            clients = Clients(Random(seed))
            witnessed.start()
            witnessed.run_group(clients.opening(), clients.time())
            before = sum(call.kind == kind for call in disk.calls)
            disk.judge = failing(kind, number, verdict, for_ever)
            alive = run(witnessed, clients)
            happened = sum(call.kind == kind for call in disk.calls) - before > number
            disk.judge = lambda call: None
            failures += happened
            stops += not alive
            refused += witnessed.refused > 0
            if not alive:
                witnessed.die(power=bool(number % 2))
                witnessed.start()
                witnessed.retry()
            assert witnessed.run_group([request(None, 1, operations.Insert("later", raw(1)))], clients.time())
            assert witnessed.store is not None and witnessed.store.trouble is None, "a later write does not work"
            if witnessed.sealed:
                assert witnessed.compact_sealed()
            witnessed.die(power=True)
            witnessed.start()
            witnessed.retry()
            if not happened:
                break
    count(f"failing calls ({kind}): {stops} stopped the server, {refused} refused writes", failures)
    assert failures
    if kind == "sync" and not for_ever:
        assert stops


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn tail"])
def test_a_failing_call_of_a_recovery_refuses_to_start_and_harms_nothing(kind: str, torn: bool) -> None:
    """Guarantees 1, 2: the next recovery has everything.

    Turned red by leaving out `_make_tail_durable`.
    """
    for number in range(6):
        for power in (False, True):
            disk = Disk(Random(number).randrange)
            witnessed = Witnessed(disk)
            clients = Clients(Random(number))
            witnessed.start()
            witnessed.run_group(clients.opening(), clients.time())
            run(witnessed, clients)
            if torn:
                disk.judge = lambda call: "crash" if call.kind == "write" else None
                witnessed.run_group([request(None, 1, operations.Insert("torn", raw("x" * 3000)))], clients.time())
            witnessed.die(power=False)
            disk.judge = failing(kind, number, "fail", True)
            try:
                witnessed.start()
            except OSError:
                pass
            else:
                witnessed.retry()
            disk.judge = lambda call: None
            witnessed.die(power)
            witnessed.start()
            witnessed.retry()


def test_a_change_that_was_refused_is_not_there_and_runs_when_it_is_sent_again() -> None:
    """Guarantee 11: WriteRejected means not applied, for the request and for its session's number.

    Turned red by executing the group's writes in spite of the WriteRejected.
    """
    session = b"s" * 16
    disk = Disk(lambda n: n - 1)
    witnessed = Witnessed(disk)
    witnessed.start()
    witnessed.run_group([request(session, 1, operations.Open())], 1)
    store = witnessed.store
    assert store is not None
    write = request(session, 2, operations.Increment("n"))
    read = request(None, 1, operations.Size())
    disk.judge = lambda call: "full" if call.kind == "write" else None
    refused, answered = apply(store, [write, read], 2)
    assert isinstance(refused.results, bytes) and refused.results[1:3] == bytes([0x92, errors.WriteRejected.code])
    assert answered.results == b"\x91\x92\x00\x00"
    assert store.trouble and store.table.revision == 0
    disk.judge = lambda call: None
    (applied,) = apply(store, [write], 3)
    (again,) = apply(store, [write], 4)
    assert applied == again and applied.results == b"\x91\x92\x00\x01"
    assert store.trouble is None


def _at_most(written: int, choices: int) -> int:
    return min(choices - 1, written)


def test_a_failing_call_leaves_no_part_of_a_refused_group_behind() -> None:
    """Guarantees 2, 11: half a group that stays in the log could pass for damage, a whole one for a change.

    Turned red by not cutting back: a group written whole before its write failed came back at the next recovery.
    """
    for written in range(5):
        disk = Disk(partial(_at_most, written))
        witnessed = Witnessed(disk)
        witnessed.start()
        disk.judge = lambda call: "full" if call.kind == "write" else None
        witnessed.run_group([request(None, 1, operations.Insert("refused", raw("x" * 200)))], 1)
        assert witnessed.refused == 1
        witnessed.die(power=False)
        disk.judge = lambda call: None
        witnessed.start()
        assert witnessed.log is not None and witnessed.log.torn_bytes == 0


def test_what_a_failed_sync_left_in_the_cache_is_made_durable_before_it_is_shown() -> None:
    """Guarantee 3: the kernel takes the pages for clean after a failed sync: a second one alone says yes, does nothing.

    Turned red by a recovery that syncs the last group without writing it again.
    """
    disk = Disk()
    witnessed = Witnessed(disk)
    witnessed.start()
    disk.judge = lambda call: "fail" if call.kind == "sync" else None
    assert not witnessed.run_group([request(None, 1, operations.Insert("k", raw(1)))], 1)
    disk.judge = lambda call: None
    witnessed.die(power=False)
    witnessed.start()
    assert witnessed.store is not None and "k" in witnessed.store.table.rows
    witnessed.die(power=True)
    witnessed.start()
